"""HiResCAM drawn over the pixels that its cells respond to, instead of upsampled between their centres."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from camcore.ask import differentiable, subject_of
from camcore.cam.gradients import hirescam
from camcore.cam.masking import PixelMap
from camcore.cam.registry import register_asking
from camcore.cost import count
from camcore.hooks import bare, hooked
from camcore.recording import Recording, ZeroGradient, grid_of
from camcore.seeds import generator
from camcore.subject import at_least_fp32, first_tensor


@register_asking
@torch.no_grad()
def hirescam_spread(rec: Recording, *, probes: int = 2, seed: int = 0) -> PixelMap:
    """HiResCAM with each cell's contribution spread over its effective receptive field.

    Ours, an answer to an open question of Taimeskhanov et al. 2024 (arXiv:2404.01964): HiResCAM (Draelos and Carin
    2020, eq. 5) leaves far more blank than what the network cannot see. M_pq = Σ_ij H_ij u_i(p) v_j(q), where H is
    HiResCAM and u_i(p) the share of pixel row p in what cell row i responds to: the squared gradient of its features
    at the pixels (after Luo et al. 2016, arXiv:1701.04128), summed over that pixel row, averaged over the height of a
    cell (strides make it alternate from row to row, which would show as a grid), left at 0 where it was 0, and brought
    to sum to 1; v_j likewise for columns. A row that responds to no pixel has u_i = 0.

    It is zero in dead pixels, exactly. Behind a head wall H_ij = 0 for hidden cells, since the score has no gradient
    there; and for the others u_i(p) = 0 at a dead pixel p, since a feature that p cannot move has no gradient there.
    Behind a cover on the picture or on an earlier layer, cells without any pixel have u_i = 0, so that features
    which are constant there mark nothing. It blanks nothing else on the wall's account: the last row before the wall
    reaches every pixel that the row responds to. Where every row responds to some pixel, Σ M = Σ H.

    The fields are measured on noise, not on the images, so they are the same for every image; the features are
    summed with random signs, so that the squared gradient is on average that of each single feature, added up. One
    forward, and one backward for each row and column of cells, per probe: none of them per image.

    Args:
        rec: A recording that knows its model.
        probes: Images of noise.
        seed: Of the noise and the signs.

    Raises:
        ValueError: No probes, or a recording without a model.
    """
    if probes < 1:
        raise ValueError(f"hirescam_spread needs probes >= 1, got {probes}")
    down, across = receptive_fields(rec, probes=probes, seed=seed)
    return torch.einsum("bij,ip,jq->bpq", hirescam(rec), down, across)


def receptive_fields(rec: Recording, *, probes: int, seed: int) -> tuple[Float[Tensor, "i h"], Float[Tensor, "j w"]]:
    """Which pixel rows each row of cells responds to, and which pixel columns each column; shares of 1 (or all 0)."""
    fields = []
    for probe in range(probes):
        noise = torch.rand(rec.images.shape[1:], generator=generator(seed, "spread", "noise", str(probe)))
        signs = random_signs(rec.activations.shape[1:], seed, probe)
        fields.append(_energies(rec, noise[None].to(rec.images), signs.to(rec.activations)))
    down, across = (torch.stack(energies).sum(0) for energies in zip(*fields, strict=True))
    size, cells = rec.images.shape[2:], rec.activations.shape[2:]
    steps = rec.placement.step if rec.placement else (size[0] / cells[0], size[1] / cells[1])
    return _shares(down, round(steps[0])), _shares(across, round(steps[1]))


def random_signs(shape: tuple[int, ...], seed: int, probe: int) -> Float[Tensor, "k i j"]:
    """+1 or -1 for each feature: between them, mixed terms of a squared sum cancel on average."""
    return torch.randint(2, shape, generator=generator(seed, "spread", "signs", str(probe))) * 2.0 - 1


def _energies(
    rec: Recording, image: Tensor, signs: Float[Tensor, "k i j"]
) -> tuple[Float[Tensor, "i h"], Float[Tensor, "j w"]]:
    """Squared gradients of each row and column of cells at the pixels of one image, by pixel row and pixel column."""
    subject, kept = bare(subject_of(rec)), []

    def keep(_module: nn.Module, _args: object, output: object) -> None:
        raw = first_tensor(output)
        # clone: an in-place ReLU after the layer would rewrite what we kept
        kept.append(at_least_fp32(grid_of(subject, rec.layer, raw).fold(raw).clone()))

    with differentiable(rec), hooked(subject.module, {rec.layer: keep}):
        pixels = image.clone().requires_grad_()
        subject.logits(pixels)
        signed = (kept[0] * signs).sum((0, 1))
        if not signed.requires_grad:
            raise ZeroGradient(
                f"layer {rec.layer!r} of {subject.name} is cut off from its input; "
                "remove torch.inference_mode or .detach() from the model"
            )
        cells = [*signed.sum(1), *signed.sum(0)]
        squared = [torch.autograd.grad(cell, pixels, retain_graph=True)[0].square()[0].sum(0) for cell in cells]
        count(backwards=len(cells))
    rows = len(signed)
    return torch.stack([one.sum(1) for one in squared[:rows]]), torch.stack([one.sum(0) for one in squared[rows:]])


def _shares(energy: Float[Tensor, "n pixels"], step: int) -> Float[Tensor, "n pixels"]:
    """Averaged over a cell's width, but nowhere else than it was, and brought to sum to 1."""
    # Whatever alternates with a period that divides the step is gone; half weights keep an even window in the middle.
    window = torch.ones(step + 1 - step % 2)
    if step % 2 == 0:
        window[0] = window[-1] = 0.5
    smooth = functional.conv1d(energy[:, None], window.to(energy)[None, None], padding=len(window) // 2)[:, 0]
    smooth = torch.where(energy > 0, smooth, 0)
    total = smooth.sum(1, keepdim=True)
    return torch.where(total > 0, smooth / total, 0)
