"""Maps from the attention matrices of a vision transformer, followed from the tokens that are read to the patches.

Which tokens the head reads is derived: those rows of the last attention that the score depends on. Class token only, or
distillation token too, or all patches that are averaged; the map is the mean over these rows. Attention with one query
for all tokens (attention pooling), if it comes last, is the row that is read. Class and register tokens take part in
the product and are left out of the map.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from camcore.ask import chunks, differentiable, rerun, score_of, subject_of
from camcore.cam.registry import register_partial
from camcore.cost import count
from camcore.errors import Undefined
from camcore.hooks import bare
from camcore.intercept import Attentions, check_not_scripted
from camcore.recording import Recording, ZeroGradient
from camcore.subject import at_least_fp32

MOST_PREFIX_TOKENS = 16  # class, distillation and register tokens, as in camcore.grid

Attention = Float[Tensor, "b heads queries keys"]
Mixing = Float[Tensor, "b queries keys"]  # heads reduced


@register_partial
def attention_rollout(rec: Recording) -> Float[Tensor, "b i j"]:
    """Attention rollout: the product over layers of half attention, half identity. Blind to the class, by definition.

    Abnar and Zuidema 2020, arXiv:2005.00928, section 3, eq. 1: A = 0.5 W + 0.5 I with W averaged over heads,
    re-normalised so that rows sum to 1, Ã_l = A_l Ã_{l-1}. Non-negative. One forward, and a backward to the last
    attention only, which finds the rows that are read.

    Raises:
        Undefined: The model has no attention, or attention that is not of all tokens to all tokens.
        ZeroGradient: No score depends on the last attention.
    """
    return _followed(rec, lambda attention, _gradient: attention.mean(1), weighted=False)


@register_partial
def attention_relevance(rec: Recording) -> Float[Tensor, "b i j"]:
    """Gradient-weighted attention relevance: attention that speaks for the class, accumulated over layers.

    Chefer, Gur and Wolf 2021, arXiv:2103.15679, eq. 5 and 6 (self-attention): Ā = E_h[(∇A ⊙ A)^+], R = R + Ā R from
    R = I, where ∇A is the gradient of the explained score. Non-negative, and empty where no attention to a patch speaks
    for the class.

    Raises:
        Undefined: The model has no attention, or attention that is not of all tokens to all tokens.
        ZeroGradient: No score depends on the last attention.
    """
    return _followed(rec, lambda attention, gradient: (gradient * attention).relu().mean(1), weighted=True)


def _followed(
    rec: Recording, mix: Callable[[Attention, Attention], Mixing], *, weighted: bool
) -> Float[Tensor, "b i j"]:
    """The product over layers of (identity + mixing), read at the rows that the head reads, folded into a map.

    Args:
        rec: Of a model that can be asked again.
        mix: (attention, its gradient) -> how one layer mixes tokens.
        weighted: Whether `mix` reads the gradients, and layers are added up as they are; else rows are brought to 1.
    """
    height, width = rec.activations.shape[2:]
    found, depends = [], False
    for part, attentions, gradients in _attended(rec, every_gradient=weighted):
        pooled = attentions[-1].shape[2] == 1
        layers = len(attentions) - pooled
        tokens = attentions[0].shape[3]
        identity = torch.eye(tokens, dtype=attentions[0].dtype, device=attentions[0].device)
        product = identity.expand(len(part), -1, -1)
        for attention, gradient in zip(attentions[:layers], gradients[:layers], strict=True):
            step = identity + mix(attention, gradient)
            product = (step if weighted else step / step.sum(2, keepdim=True)) @ product
        if pooled:
            row = mix(attentions[-1], gradients[-1])
        else:
            read = gradients[-1].ne(0).any(3).any(1, keepdim=True).to(product.dtype)
            row = read / read.sum(2, keepdim=True).clamp_min(1)
        found.append((row @ product)[:, 0])
        depends |= bool(gradients[-1].any())
    relevance = torch.cat(found)
    if not depends:
        raise ZeroGradient(f"the class score of {subject_of(rec).name} does not depend on its attention")
    prefix = relevance.shape[1] - height * width
    return relevance[:, prefix:].unflatten(1, (height, width))


def _attended(
    rec: Recording, *, every_gradient: bool
) -> Iterator[tuple[Int[Tensor, " n"], list[Attention], list[Attention]]]:
    """Chunk by chunk: which images, their attention matrices in order, and the gradients of the explained score.

    Zeros stand for the gradients that were not asked for: without `every_gradient`, those before the last.
    """
    subject = bare(subject_of(rec))
    check_not_scripted(subject.module, subject.name)
    for part in chunks(rec, len(rec.images)):
        with differentiable(rec):
            with Attentions() as attentions:
                logits = rerun(rec, rec.images[part].detach().clone().requires_grad_())
            kept = attentions.kept
            _check(rec, kept, len(part))
            pooled = kept[-1].shape[-2] == 1
            asked = kept if every_gradient else kept[-1 - pooled :]
            score = score_of(rec, logits, part).sum()
            if not score.requires_grad:
                raise ZeroGradient(f"the class score of {subject.name} does not depend on its attention")
            given = torch.autograd.grad(score, asked, allow_unused=True)
            count(backwards=len(part))
        gradients = [*[None] * (len(kept) - len(asked)), *given]
        if pooled and gradients[-1] is None:  # a pooling whose result nobody reads
            kept, gradients = kept[:-1], gradients[:-1]
        yield (
            part,
            [_by_head(matrix.detach(), len(part)) for matrix in kept],
            [
                _by_head(matrix.new_zeros(()).expand_as(matrix) if gradient is None else gradient, len(part))
                for matrix, gradient in zip(kept, gradients, strict=True)
            ],
        )


def _by_head(matrix: Float[Tensor, "*lead queries keys"], images: int) -> Attention:
    return at_least_fp32(matrix.unflatten(0, (images, -1)) if matrix.ndim == 3 else matrix)


def _check(rec: Recording, kept: list[Tensor], images: int) -> None:
    """Refuse attention that is not of all tokens of an image to all, or whose tokens are not the places of the map."""
    name = subject_of(rec).name
    if not kept or (len(kept) == 1 and kept[0].shape[-2] == 1):
        raise Undefined(f"no attention between tokens was met in a forward of {name}; use gradcam or hirescam")
    height, width = rec.activations.shape[2:]
    *layers, last = kept
    tokens = kept[0].shape[-1]
    for matrix in kept:
        whole = matrix.shape[0] == images if matrix.ndim == 4 else matrix.ndim == 3 and len(matrix) % images == 0
        square = matrix.shape[-2] == matrix.shape[-1] or (matrix is last and bool(layers) and matrix.shape[-2] == 1)
        if not whole or not square or matrix.shape[-1] != tokens:
            raise Undefined(
                f"attention of {name} is within windows or across stages ({tuple(matrix.shape)} for {images} images "
                f"and a map of {height}x{width}): what it passes on is not defined here; use gradcam or hirescam"
            )
    if not 0 <= tokens - height * width <= MOST_PREFIX_TOKENS:
        raise Undefined(
            f"attention of {name} is between {tokens} tokens, and layer {rec.layer!r} has {height}x{width} places; "
            "record a layer whose places are its tokens, or use gradcam or hirescam"
        )
