"""What the audit of grounding shows: chosen boxes in pictures, and every family's rates."""

from collections.abc import Iterable, Mapping, Sequence
from math import isnan

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from camcore import statistics
from camcore.engine import Row, rank
from camcore.images import Batch, Image
from camcore.metrics import grounding as metrics
from camcore.subject import Grounder
from camcore.verdict import Evidence, Overlay, Table
from fixtures.datasets.grounding_scenes import FAMILIES, MIRROR, GroundingScenes, Query, View

LEAST = 192  # pixels: smaller pictures are shown larger, so that boxes can be told apart
MEANT, CHOSEN = (1.0, 1.0, 1.0), (1.0, 0.0, 1.0)  # white and magenta: no thing has these colours
ASKED = {
    "F0": "a colour and a kind",
    "F1": "a colour and its side",
    "F2": "a colour and the other side",
    "F3": "a side",
    "F4": "a side of another thing",
}


def show(
    subject: Grounder,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    column: str,
    families: Sequence[str],
    scenes: GroundingScenes,
) -> Iterable[Evidence]:
    """Of each group two queries of the claim's families and a false caption, with the boxes; every family's rates."""
    groups = {group.id: group for group in scenes.groups}
    for place, image_id in enumerate(batch.ids):
        row, views, queries = rows[image_id], scenes.views(groups[image_id]), scenes.queries(groups[image_id])
        asked = [index for index, one in enumerate(queries) if one.family in families and one.picture != MIRROR]
        false = [index for index, one in enumerate(queries) if one.family == "F2"]
        for index in (*asked[:2], false[0]):
            query, view = queries[index], views[queries[index].picture]
            box = torch.tensor([row[f"box:{index}:{edge}"] for edge in range(4)])
            yield Overlay(
                unit=image_id,
                role=rank(place, len(batch)),
                value=row[column],
                caption=_caption(query, view, box, row[f"score:{index}"]),
                image=drawn(view.picture, {MEANT: view.boxes[query.meant], CHOSEN: box}),
                saliency=None,
            )
    yield _families(list(rows.values()), scenes)
    yield _others(list(rows.values()), scenes)


def _caption(query: Query, view: View, box: Float[Tensor, "4"], score: float) -> str:
    around = int(metrics.matched(box, view.boxes))
    what = "what is meant" if around == query.meant else "another thing" if around >= 0 else "nothing"
    found = "no box" if box.isnan().any() else f"around {what}, score {score:.2f}"
    sought = "" if query.phrase == query.caption else f", find “{query.phrase}”"
    false = "; the caption is false, its colour is meant" if query.family == "F2" else ""
    return f"“{query.caption}”{sought}: {found} (white: meant, magenta: found{false})"


def drawn(picture: Image, boxes: Mapping[tuple[float, float, float], Float[Tensor, "4"]]) -> Image:
    """Edges in their colours, the first the thinnest, so that two boxes in one place are both seen.

    Args:
        picture: Shown larger if it is small.
        boxes: By their colours, in pixels of the picture; one that is NaN is left out.
    """
    larger = -(-LEAST // picture.shape[1])
    image = interpolate(picture[None].cpu(), scale_factor=larger, mode="nearest")[0].clone()
    far = torch.tensor(image.shape[1:]).flip(0).repeat(2) - 1  # the last pixel across, down, and again
    for width, (colour, box) in zip(range(2 * len(boxes), 0, -2), reversed(boxes.items()), strict=True):
        if box.isnan().any():
            continue
        x0, y0, x1, y1 = (int(edge) for edge in (box * larger).round().clamp_min(0).minimum(far.to(box)))
        ink = torch.tensor(colour)[:, None, None]
        for top, bottom, left, right in (
            (y0, y0 + width, x0, x1),
            (y1 - width, y1, x0, x1),
            (y0, y1, x0, x0 + width),
            (y0, y1, x1 - width, x1),
        ):
            image[:, max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = ink
    return image


def _families(rows: Sequence[Row], scenes: GroundingScenes) -> Table:
    queries = scenes.queries(scenes.groups[0])
    asked = {name: [one for one in queries if one.family == name and one.picture != MIRROR] for name in FAMILIES}
    return Table(
        title="What is found, by what is asked for (mean over the groups with its 95 % interval; of a false caption, "
        "right is the thing of the colour that is named)",
        columns=(
            "asked for",
            "for example",
            "queries of a group",
            "right (IoU ≥ 0.5)",
            "right (GIoU ≥ 0.5)",
            "on the right side",
            "in the middle",
            "around none",
        ),
        rows=tuple(
            (
                ASKED[name],
                asked[name][0].caption,
                len(asked[name]),
                *(
                    mean(rows, key)
                    for key in (name, *(f"{name}:{each}" for each in ("giou", "side", "middle", "none")))
                ),
            )
            for name in FAMILIES
        ),
    )


def _others(rows: Sequence[Row], scenes: GroundingScenes) -> Table:
    queries = scenes.queries(scenes.groups[0])
    true, false = (
        torch.tensor([row[f"score:{index}"] for row in rows for index, one in enumerate(queries) if one.family == name])
        for name in ("F1", "F2")
    )
    balanced = [{"both": (row["verdict:true"] + row["verdict:false"]) / 2} for row in rows]
    area = metrics.auc(true, false)
    return Table(
        title="Other boxes, false captions, and mirrored pictures (mean over the groups with its 95 % interval)",
        columns=("measure", "found", "by luck"),
        rows=(
            ("true captions, whose box is where they say", mean(rows, "verdict:true"), "0.5"),
            ("false captions, whose box is not where they say", mean(rows, "verdict:false"), "0.5"),
            ("both, which takes no word for a side: the colour will do", mean(balanced, "both"), "0.5"),
            ("of a colour and a kind: the box is around a thing of the colour", mean(rows, "F0:colour"), "0.5"),
            ("of a colour and a kind: the box is around a thing of the kind", mean(rows, "F0:kind"), "0.5"),
            ("of what is next to another: the box is around that other", mean(rows, "F4:anchor"), "0.25"),
            ("of what is next to another: the box is around its other neighbour", mean(rows, "F4:turned"), "0.25"),
            ("of what is next to another: the box is around what is not next to it", mean(rows, "F4:far"), "0.25"),
            ("of false captions: the box is around the colour that they name", mean(rows, "F2"), ""),
            ("of false captions: the box is around what is on the side that they name", mean(rows, "F2:other"), ""),
            ("of false captions: the box is around neither", mean(rows, "F2:none"), ""),
            ("a true caption scores higher than its false twin", mean(rows, "confidence"), "0.5"),
            ("area under the curve of true against false", "-" if isnan(area) else f"{area:.2f}", "0.5"),
            ("picture mirrored and word swapped: the box changes sides", mean(rows, "mirror"), "1 who goes by colour"),
            ("and how far it is from the mirror image, in widths", mean(rows, "mirror:error"), ""),
        ),
    )


def mean(rows: Sequence[Row], key: str) -> str:
    """The mean of a column over the groups that have it, with its 95 % interval."""
    values = [row[key] for row in rows if not isnan(row[key])]
    if not values:
        return "-"
    found = statistics.confidence_sequence(values, level=0.95)
    return f"{found.point:.2f} [{found.low:.2f}, {found.high:.2f}]"
