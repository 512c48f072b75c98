"""Which captions are contrasted on which pictures, where the named things are, and the maps of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from camcore.cam import CamMethod
from camcore.degeneracy import Degeneracy, degeneracy
from camcore.images import Batch, Images
from camcore.imagetext import TwoTowers
from camcore.maps import upsample
from camcore.prompted import as_scorer
from camcore.recording import Recording, ZeroGradient, record, zero_gradients_recorded
from camcore.subject import Classifier
from fixtures.datasets.binding_scenes import Bindings, Group
from fixtures.datasets.binding_sides import sided_captions
from fixtures.datasets.masks import draw_boxes

Masks = Float[Tensor, "b h w"]
Maps = Float[Tensor, "b h w"]


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Pictures, two of each group one after the other, each with a true caption and a false one.

    `scorer` scores all their captions, by the mean over wordings; `true` and `false` are its classes.
    """

    pictures: Images
    scorer: Classifier
    true: Int[Tensor, " b"]
    false: Int[Tensor, " b"]
    named: Masks  # 1 in the boxes of what the captions name
    other: Masks  # 1 in the box of what is in the picture and in neither caption
    half: Masks  # 1 in the half that the true caption names; the left one where it names none

    def record(self, *, chunk: int) -> Recording:
        """What speaks for the true caption rather than for the false one; the score's cosines are of length one."""
        # two captions that are one to the model have no gradient whatever the layer: that is what was found, and advice
        # to choose another layer would be wrong
        with zero_gradients_recorded():
            return record(self.scorer, self.pictures, self.true, against=self.false, chunk=chunk)

    def degenerate(self, rec: Recording, signed: Float[Tensor, "b i j"]) -> Int[Tensor, " b"]:
        """What is wrong with each map of the recording: a `Degeneracy`, 0 where nothing is.

        Where nothing tells the captions apart there is nothing to explain, whatever a method draws that asks for no
        gradient.
        """
        true, false = (rec.logits.gather(1, said[:, None])[:, 0] for said in (self.true, self.false))
        level = (true == false) & ~rec.gradients.flatten(1).any(1)
        return torch.where(level, int(Degeneracy.ZERO_GRADIENT), degeneracy(rec, signed.abs()))

    def alone(self, captions: Int[Tensor, " b"], cams: Mapping[str, CamMethod], *, chunk: int) -> dict[str, Maps]:
        """What speaks for one caption, whatever the other: rectified maps in pixels, empty without a gradient."""
        try:
            rec = record(self.scorer, self.pictures, captions, chunk=chunk)
        except ZeroGradient:  # of the whole batch; of some of its pictures the maps would be empty, too
            return {name: torch.zeros_like(self.named) for name in cams}
        return {name: in_pixels(rec, cam(rec)).relu() for name, cam in cams.items()}


def in_pixels(rec: Recording, signed: Float[Tensor, "b i j"]) -> Maps:
    """A map of the recording at the pictures' size, its signs kept."""
    return upsample(signed, rec.images.shape[2:], rec.placement)


def of_groups(subject: TwoTowers, bindings: Bindings, batch: Batch) -> Contrast:
    """Each picture's own caption against the other picture's, in which the colours have changed places."""
    drawn, boxes, groups = _drawn(bindings, batch)
    scorer = as_scorer(subject, [wordings for group in groups for wordings in group.captions])
    own = torch.arange(len(drawn), device=drawn.device)
    return Contrast(
        pictures=drawn,
        scorer=scorer,
        true=own,
        false=own ^ 1,
        named=_masks([[*both] for both in boxes], drawn),
        other=torch.zeros_like(drawn[:, 0]),
        half=_half(torch.ones(len(drawn), dtype=torch.bool), drawn),
    )


def of_sides(subject: TwoTowers, bindings: Bindings, batch: Batch) -> Contrast:
    """The thing of a group's first colour on the side where it is, against the same on the other side."""
    drawn, boxes, groups = _drawn(bindings, batch)
    captions = [sided_captions(group, group.colours[0]) for group in groups]
    scorer = as_scorer(subject, [wordings for both in captions for wordings in both])
    middle = (boxes[:, 0, 0] + boxes[:, 0, 2]) / 2
    is_left = middle < drawn.shape[3] / 2
    left = torch.arange(len(drawn), device=drawn.device) // 2 * 2  # of either picture its group's caption of the left
    right_is_true = (~is_left).long().to(drawn.device)
    return Contrast(
        pictures=drawn,
        scorer=scorer,
        true=left + right_is_true,
        false=left + 1 - right_is_true,
        named=_masks([[first] for first, _ in boxes], drawn),
        other=_masks([[second] for _, second in boxes], drawn),
        half=_half(is_left, drawn),
    )


def _drawn(bindings: Bindings, batch: Batch) -> tuple[Images, Float[Tensor, "b 2 4"], list[Group]]:
    by_id = {group.id: group for group in bindings.groups}
    groups = [by_id[one] for one in batch.ids]
    pictures, boxes = zip(*(bindings.draw(group) for group in groups), strict=True)
    return torch.stack([one for both in pictures for one in both]).to(batch.images), torch.cat(boxes), groups


def _masks(boxes: Sequence[Sequence[Tensor]], pictures: Images) -> Masks:
    size = (pictures.shape[2], pictures.shape[3])
    return torch.stack(
        [draw_boxes(tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in map(Tensor.tolist, some)), size) for some in boxes]
    ).to(pictures)


def _half(is_left: Tensor, pictures: Images) -> Masks:
    """Of an odd width the middle column belongs to neither half: it is counted as half in."""
    width = pictures.shape[3]
    columns = torch.arange(width, device=pictures.device) + 0.5
    left = ((columns < width / 2).to(pictures) + (columns <= width / 2).to(pictures)) / 2
    half = torch.where(is_left.to(pictures.device)[:, None], left, 1 - left)
    return half[:, None].expand(-1, pictures.shape[2], -1).contiguous()
