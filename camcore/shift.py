"""A twin of a model that takes every image with a constant added to it, and gives the same scores.

Kindermans et al. 2019, arXiv:1711.00867, section 2: with the pixels shifted by s, the bias of the first layer takes up
what the shift adds to its output, b' = b - W s, and the network computes the same function. A convolution pads with
zeros, which stand for a value of the input like any other: the twin pads with the shift, so that it is the same at the
border as well.
"""

import copy
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from camcore.errors import Undefined
from camcore.hooks import Hook, bare, find_layer, hooked
from camcore.images import Images
from camcore.recording import Recording, record
from camcore.subject import Classifier

SHIFT = -1.0  # as in the paper: [0, 1] becomes [-1, 0], and black and white change places as what is multiplied by 0
ROUNDING = 1e-3  # of the largest logit: what reordered sums may move in single precision, and no missing border does


class PadWith(nn.Module):
    """Padding with one value per channel."""

    value: Tensor

    def __init__(self, value: Float[Tensor, " channels"], padding: list[int]) -> None:
        super().__init__()
        self.register_buffer("value", value)
        self.padding = padding  # left, right, top, bottom

    def forward(self, images: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b channels rows columns"]:
        """Place the images on a ground of the value."""
        left, right, top, bottom = self.padding
        b, channels, height, width = images.shape
        ground = self.value.to(images)[:, None, None]
        padded = ground.expand(b, channels, height + top + bottom, width + left + right).clone()
        padded[:, :, top : top + height, left : left + width] = images
        return padded


@torch.no_grad()
def absorbed(subject: Classifier, images: Images, *, shift: float = SHIFT) -> Classifier:
    """The twin: `twin.logits(images + shift)` is `subject.logits(images)`, to within rounding.

    Its first affine layer has a bias of its own, every other weight is shared with the subject, which stays as it is.

    Args:
        subject: A classifier in eval mode.
        images: A few, to find the first layer with, and what the shift is when it arrives there; two forwards.
        shift: In pixel units.

    Raises:
        Undefined: No convolution or linear layer takes the images in such a way that a constant stays one.
    """
    subject = bare(subject)
    name, before = _first_input(subject, images)
    other, after = _first_input(subject, images + shift)
    moved = (after - before).double()
    layer = find_layer(subject.module, name)
    constant = moved.mean((0, 2, 3)) if isinstance(layer, nn.Conv2d) else moved.flatten(0, -2).mean(0)
    spread = constant[:, None, None] if isinstance(layer, nn.Conv2d) else constant
    # what is shifted is in the units of the first layer's input, and rounded there
    if other != name or not torch.allclose(moved, spread.expand_as(moved), rtol=1e-3, atol=1e-4 * abs(shift)):
        raise Undefined(
            f"a constant added to the images of {subject.name} is none any more at its first layer {name!r}, "
            "whose bias therefore cannot absorb it"
        )
    module = _sharing_weights(subject.module)
    parent, _, child = name.rpartition(".")
    first = module.get_submodule(name)
    assert isinstance(first, nn.Conv2d | nn.Linear)
    setattr(module.get_submodule(parent), child, _shifted(first, constant))
    return replace(subject, module=module)


def record_shifted(
    twin: Classifier, images: Images, target: Int[Tensor, " b"], *, shift: float = SHIFT, chunk: int | None = None
) -> Recording:
    """A recording of the twin on the shifted images, which lie outside [0, 1] and are what a method gets to see."""
    shifted = replace(twin, preprocess=lambda pixels: twin.preprocess(pixels + shift))
    rec = record(shifted, images, target, chunk=chunk)
    return replace(rec, images=images + shift, subject=twin)


def apart(one: Float[Tensor, "b classes"], other: Float[Tensor, "b classes"]) -> Float[Tensor, " b"]:
    """How far an image's logits are apart, as a share of the largest of them."""
    return (one - other).abs().amax(1) / torch.maximum(one, other).abs().amax(1).clamp(min=1e-30)


def twin_of(subject: Classifier, images: Images, *, shift: float = SHIFT) -> Classifier:
    """The twin, certified: on these images it gives the same logits, to within rounding.

    Raises:
        Undefined: It does not, or there is none: the image reaches the network on another way as well.
    """
    twin = absorbed(subject, images[:1], shift=shift)
    with torch.no_grad():
        moved = apart(subject.logits(images), twin.logits(images + shift)).max().item()
    if not moved <= ROUNDING:
        raise Undefined(
            f"the first layer's bias does not absorb a constant added to the images of {subject.name}: the logits move "
            f"by {moved:.2g} of the largest; the images reach it on another way as well"
        )
    return twin


def _first_input(subject: Classifier, images: Images) -> tuple[str, Tensor]:
    """The first convolution or linear layer that runs, and what it is given."""
    seen: list[tuple[str, Tensor]] = []

    def keep(name: str) -> Hook:
        def hook(_module: nn.Module, args: Any, _output: Any) -> None:
            if not seen and args and isinstance(args[0], Tensor):
                seen.append((name, args[0].clone()))

        return hook

    layers = [
        name for name, layer in subject.module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear) and name
    ]
    with hooked(subject.module, {name: keep(name) for name in layers}):
        subject.logits(images)
    if not seen:
        raise Undefined(f"{subject.name} has no convolution or linear layer whose bias could absorb a shift")
    return seen[0]


def _sharing_weights(module: nn.Module) -> nn.Module:
    shared = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in shared})


def _shifted(layer: nn.Conv2d | nn.Linear, constant: Float[Tensor, " inputs"]) -> nn.Module:
    """A layer whose bias takes up what the constant adds to its output."""
    weight = layer.weight.double()
    if isinstance(layer, nn.Conv2d):
        places = [dilation * (side - 1) + 1 for dilation, side in zip(layer.dilation, layer.kernel_size, strict=True)]
        ground = constant[None, :, None, None].expand(1, -1, *places)
        added = functional.conv2d(ground, weight, dilation=layer.dilation, groups=layer.groups).flatten()
    else:
        added = weight @ constant
    bias = -added if layer.bias is None else layer.bias.double() - added
    layer.bias = nn.Parameter(bias.to(layer.weight), requires_grad=False)
    if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and any(layer._reversed_padding_repeated_twice):
        padding = list(layer._reversed_padding_repeated_twice)
        layer.padding, layer._reversed_padding_repeated_twice = (0, 0), [0, 0, 0, 0]
        return nn.Sequential(PadWith(constant.to(layer.weight), padding), layer)
    return layer
