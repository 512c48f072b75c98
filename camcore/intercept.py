"""Torch functions that do otherwise for the length of a block. The only file that changes what one computes.

A function mode is told of every call of a torch function, whether a module, a functional form or a method makes it: no
module is replaced, and the block's end puts everything back. It does not see into TorchScript, nor into kernels that
are no torch functions (flash-attn, xformers).
"""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from camcore.errors import Undefined


class _Guided(torch.autograd.Function):
    """min(max(x, 0), cap), through which only positive gradients go back, and only where it is not clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cap: float | None, in_place: bool) -> Tensor:
        if in_place:
            ctx.mark_dirty(x)
            rectified = x.clamp_(0, cap)
        else:
            rectified = x.clamp(0, cap)
        passed = rectified > 0
        if cap is not None:
            passed &= rectified < cap
        # the mask rather than the output: what follows may write into the output
        ctx.save_for_backward(passed)
        return rectified

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (passed,) = ctx.saved_tensors
        return torch.where(passed, gradient.clamp_min(0), 0), None, None  # where, not a product: 0 x inf is NaN


def _guided(x: Tensor, cap: float | None, in_place: bool) -> Tensor:
    rectified: Tensor = _Guided.apply(x, cap, in_place)
    return rectified


# Each takes its arguments under the names that its torch function has for them.
def _relu(input: Tensor, inplace: bool = False) -> Tensor:
    return _guided(input, None, inplace)


def _relu_(input: Tensor) -> Tensor:
    return _guided(input, None, True)


def _relu6(input: Tensor, inplace: bool = False) -> Tensor:
    return _guided(input, 6.0, inplace)


def _hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    return _guided(input, max_val, inplace) if min_val == 0 else NotImplemented


def _hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    return _hardtanh(input, min_val, max_val, True)


_aten = torch.ops.aten
_RELUS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys([functional.relu, torch.relu, Tensor.relu, _aten.relu, _aten.relu.default], _relu),
    **dict.fromkeys([functional.relu_, torch.relu_, Tensor.relu_, _aten.relu_, _aten.relu_.default], _relu_),
    functional.relu6: _relu6,
    functional.hardtanh: _hardtanh,  # nn.ReLU6 calls it with 0 and 6
    functional.hardtanh_: _hardtanh_,
    **dict.fromkeys([_aten.hardtanh, _aten.hardtanh.default], _hardtanh),
    **dict.fromkeys([_aten.hardtanh_, _aten.hardtanh_.default], _hardtanh_),
}
# What stands where a ReLU might. No sigmoid or tanh: they gate as often.
_OTHER_ACTIVATIONS = {
    *("gelu", "silu", "hardswish", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "mish", "softplus"),
    *("hardtanh", "threshold", "softshrink", "hardshrink"),
}


class GuidedReLUs(TorchFunctionMode):
    """Inside the block every ReLU passes back what is positive of the gradient, where its own input is positive.

    Counts the calls that it rewired and names the other activations that ran. ReLU6, and hardtanh with a lower end of
    0, are ReLUs with an upper end. `clamp` is none: it bounds pixels and denominators as often as it activates.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rewired = 0
        self.others: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RELUS and (rectified := _RELUS[func](*args, **kwargs)) is not NotImplemented:
            self.rewired += 1
            return rectified
        name = getattr(func, "__name__", "").partition(".")[0].strip("_")
        if name in _OTHER_ACTIVATIONS:
            self.others.add(name)
        return func(*args, **kwargs)


_SOFTMAXES = {functional.softmax, torch.softmax, Tensor.softmax, torch.special.softmax, _aten.softmax.int}


class Attentions(TorchFunctionMode):
    """Keeps every attention matrix that depends on the image, as a tensor that lies between its softmax and its values.

    Attention is written out: softmax, then the product with the values. It is found in `scaled_dot_product_attention`,
    in `multi_head_attention_forward` (nn.MultiheadAttention), and in a softmax over the last of four axes, or of three
    if it is square or has one row: attention written out by the model, and what the model does to it before the values
    (gates, talking heads) is not seen. The images must ask for a gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []  # (…, queries, keys), in the order in which they ran

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._dot_product(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        output = func(*args, **kwargs)
        if func in _SOFTMAXES and _is_attention(output, args, kwargs):
            return self._keep(output).clone()  # what was kept is what the softmax gave, whatever is written later
        return output

    def _keep(self, weights: Tensor) -> Tensor:
        if weights.requires_grad:  # else it is of something other than the image: of a caption, say
            self.kept.append(weights)
        return weights

    def _dot_product(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if dropout_p:
            raise Undefined(f"attention is dropped at random (dropout_p={dropout_p}), in eval mode too")
        if enable_gqa:
            key, value = (heads.repeat_interleave(query.shape[-3] // heads.shape[-3], -3) for heads in (key, value))
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is None:
            return self._keep(scores.softmax(-1)) @ value
        masked = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if masked else scores + attn_mask
        blind = scores.isneginf().all(-1, keepdim=True)  # a query that may look nowhere sees zeros, not NaN
        return self._keep(scores.masked_fill(blind, 0).softmax(-1).masked_fill(blind, 0)) @ value

    def _multi_head(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """The matrices as torch gives them, and the output worked out once more from them: its own bypasses them."""
        bound = signature(functional.multi_head_attention_forward).bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        if given["query"].ndim != 3 or given["static_v"] is not None:
            raise Undefined("attention without an axis of images, or over values from elsewhere, cannot be followed")
        if given["bias_k"] is not None or given["add_zero_attn"]:
            raise Undefined("attention to tokens that no layer gives (bias_k, add_zero_attn) cannot be followed")
        if given["training"] and given["dropout_p"]:
            raise Undefined(f"attention is dropped at random (dropout_p={given['dropout_p']}): call .eval() first")
        asked = {**given, "need_weights": True, "average_attn_weights": False}
        weights = functional.multi_head_attention_forward(**asked)[1]
        assert weights is not None
        weights = self._keep(weights)
        packed, bias = given["in_proj_weight"], given["in_proj_bias"]
        projection = given["v_proj_weight"] if given["use_separate_proj_weight"] else packed.chunk(3)[2]
        values = functional.linear(given["value"], projection, None if bias is None else bias.chunk(3)[2])
        heads = values.unflatten(2, (given["num_heads"], -1)).permute(1, 2, 0, 3)  # (b, heads, keys, width)
        seen = (weights @ heads).permute(2, 0, 1, 3).flatten(2)  # (queries, b, heads width)
        output = functional.linear(seen, given["out_proj_weight"], given["out_proj_bias"])
        if not given["need_weights"]:
            return output, None
        return output, weights.mean(1) if given["average_attn_weights"] else weights


def check_not_scripted(module: nn.Module, name: str) -> None:
    """Refuse a model that is, or holds, TorchScript: what runs in it cannot be met.

    Raises:
        Undefined: The message names the first such layer.
    """
    for layer, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise Undefined(
                f"layer {layer!r} of {name} is TorchScript, in which no operation can be met; give it as Python"
            )


def _is_attention(weights: Float[Tensor, "*any"], args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if weights.ndim < 3 or axis not in (-1, weights.ndim - 1):
        return False
    return weights.ndim > 3 or weights.shape[1] in (1, weights.shape[2])
