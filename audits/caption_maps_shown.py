"""What the audit of captions' maps shows: a picture with the maps of a true and of a false caption, all numbers."""

from collections.abc import Callable, Iterable, Mapping

import torch

from audits.caption_contrasts import Contrast, in_pixels, of_groups
from camcore.cam import CamMethod
from camcore.engine import Row, column_of, rank
from camcore.images import Batch
from camcore.imagetext import TwoTowers
from camcore.verdict import Evidence, Overlay, Table
from fixtures.datasets.binding_scenes import Bindings

Asked = Callable[[TwoTowers, Bindings, Batch], Contrast]


def show(
    subject: TwoTowers,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    name: str,
    cam: CamMethod,
    cams: Mapping[str, CamMethod],
    column: str,
    asked: Asked,
    single: bool,
    bindings: Bindings,
) -> Iterable[Evidence]:
    """One of each group's pictures twice, for the true caption and for the false one; every method's numbers.

    The two maps of a contrast are the two signs of one map, on one scale. With `single`, each caption's own map.
    """
    contrast = asked(subject, bindings, batch)
    rec = contrast.record(chunk=batch.chunk)
    captions = (contrast.true, contrast.false)
    if single:
        maps = [contrast.alone(said, {name: cam}, chunk=batch.chunk)[name] for said in captions]
    else:
        signed = in_pixels(rec, cam(rec))
        maps = [signed.relu(), (-signed).relu()]
    top = torch.maximum(*(one.amax((1, 2), keepdim=True) for one in maps))
    maps = [one / top.where(top > 0, 1) for one in maps]
    for index, image_id in enumerate(batch.ids):
        shown = 2 * index + index % 2  # the thing is on the left in the one, on the right in the next
        for note, said, saliency in zip(("true", "false"), captions, maps, strict=True):
            what, score = contrast.scorer.classes[said[shown]], rec.logits[shown, said[shown]]
            yield Overlay(
                unit=image_id,
                role=rank(index, len(batch)),
                value=rows[image_id].get(column, torch.nan),
                caption=f"what speaks for {what!r} ({note}, {score:.3g})"
                + (", on the same scale" if note == "false" else ""),
                image=contrast.pictures[shown],
                saliency=saliency[shown],
                outline=contrast.named[shown],
            )
    yield _table(rows, cams, PAIRS if asked is of_groups else OF_SIDES)


PAIRS = {
    "energy": "on the things",
    "positive": "of what speaks for the true caption",
    "over_area": "more than their area",
    "over_centre": "more than a blob in the middle",
}
OF_SIDES = {
    "side": "side",
    "half_mass": "half-mass",
    "on_named": "on the thing named",
    "on_other": "on the other thing",
    "true:named": "true: on the thing",
    "true:half": "true: in the half named",
    "false:named": "false: on the thing",
    "false:other": "false: on the other thing",
    "false:half": "false: in the half named",
}


def _table(rows: Mapping[str, Row], cams: Mapping[str, CamMethod], columns: Mapping[str, str]) -> Table:
    def mean(key: str) -> float:
        return round(float(column_of(rows, key).nanmean()), 3)

    area = mean("things:area" if columns is PAIRS else "named:area")
    what = "the two things named" if columns is PAIRS else "one thing and its side"
    return Table(
        title=f"Where maps of {what} lie (mean over {len(rows)} groups; {area:.3f} of the picture is in their boxes; "
        f"the true caption is scored higher in {mean('right'):.0%} of the pictures)",
        columns=("method", *columns.values()),
        rows=tuple((cam, *(mean(f"{cam}:{key}") for key in columns)) for cam in cams),
    )
