"""What the report shows of binding: the pictures with what was preferred of them, and tables by relation."""

import re
from collections.abc import Iterable, Mapping
from statistics import fmean

import torch

from audits.binding_swaps import swap_tables
from audits.shares import share_so_far
from camcore.engine import Row, rank
from camcore.images import Batch, Images
from camcore.subject import ImageText
from camcore.verdict import Evidence, Overlay, Table
from fixtures.datasets.binding_things import COLOURS
from fixtures.datasets.captions import Captions, Item

RATES = ("interaction", "text", "image", "group")
NEUTRAL = "a picture"  # a caption that says nothing of what is where


def pictures_of(subject: ImageText, captions: Captions, group: Item, batch: Batch) -> Images:
    """A group's two pictures as the subject takes them, where and as the batch's are."""
    return captions.pictures(group, subject.geometry).to(batch.images)


def show(
    subject: ImageText,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    column: str,
    tables: bool,
    captions: Captions,
) -> Iterable[Evidence]:
    """Both pictures of each group with the scores of both captions; every relation's rates, with `tables`."""
    for index, image_id in enumerate(batch.ids):
        group, row = captions.by_id[image_id], rows[image_id]
        for picture, image in enumerate(pictures_of(subject, captions, group, batch)):
            own, other = (row[f"score:{picture}{caption}"] for caption in (picture, 1 - picture))
            true, false = (group.captions[caption][0] for caption in (picture, 1 - picture))
            preferred = "level" if own == other else "the true one" if own > other else "the FALSE one"
            yield Overlay(
                unit=image_id,
                role=rank(index, len(batch)),
                value=row[column],
                caption=f"true: {true} {own:.2f}; false: {false} {other:.2f}; preferred: {preferred}",
                image=image,
                saliency=None,
            )
    if tables:
        yield from _tables(rows, captions.by_id)
        yield from _by_colours(rows, captions.by_id)
        yield from swap_tables(rows, captions.by_id)


def _by_colours(rows: Mapping[str, Row], groups: Mapping[str, Item]) -> Iterable[Table]:
    """Of captions that name two colours: every pair by itself, for a liking for one of them shows in no other table."""
    pairs: dict[tuple[str, ...], list[tuple[Row, float]]] = {}
    for one, row in rows.items():
        named = list(
            dict.fromkeys(re.findall("|".join(rf"\b{name}\b" for name in COLOURS), groups[one].captions[0][0]))
        )
        if len(named) == 2:
            turned = -1.0 if named != sorted(named) else 1.0  # captions in which the first of the pair comes first
            pairs.setdefault(tuple(sorted(named)), []).append((row, turned))
    if pairs:
        yield Table(
            title="The same by the colours that are named (share with its 95 % interval), and by how much, "
            "whatever the picture, those captions are preferred that put the pair's first colour where the wording has "
            "its first thing (mean difference)",
            columns=("colours", "groups", "interaction", "group", "its first colour first by"),
            rows=tuple(
                (
                    " and ".join(pair),
                    len(part),
                    *(share_so_far(torch.tensor([row[key] for row, _ in part])) for key in ("interaction", "group")),
                    round(fmean(turned * row["caption_prior"] for row, turned in part), 4),
                )
                for pair, part in sorted(pairs.items())
            ),
        )


def _tables(rows: Mapping[str, Row], groups: Mapping[str, Item]) -> Iterable[Table]:
    relations = dict.fromkeys(group.relation for group in groups.values())
    lines = [("all", list(rows.values()))]
    lines += [(name, [row for one, row in rows.items() if groups[one].relation == name]) for name in relations]
    lines = [(name, part) for name, part in lines if part]
    yield Table(
        title="How many groups are right, by relation (share with its 95 % interval; by luck 0.5 of the "
        "interactions, 0.25, 0.25 and 0.17 of the others)",
        columns=("relation", "groups", "interaction", "text", "picture", "group", "level"),
        rows=tuple(
            (
                name,
                len(part),
                *(share_so_far(torch.tensor([row[key] for row in part])) for key in RATES),
                int(sum(row["level"] for row in part)),
            )
            for name, part in lines
        ),
    )
    yield Table(
        title="By how much the true caption is preferred to the false one, one caption to the other whatever the "
        "picture, and one picture to the other whatever the caption (mean differences). Alone: captions scored with a "
        f"grey picture, pictures with '{NEUTRAL}': how many are right if that decides (half, for each is true once and "
        "false once; level ones are wrong), and of how many groups it does decide",
        columns=(
            "relation",
            "true caption by",
            "one caption by",
            "one picture by",
            "right by the caption alone",
            "decided by it",
            "right by the picture alone",
            "decided by it",
        ),
        rows=tuple(
            (
                name,
                round(fmean(row["margin"] / 2 for row in part), 4),
                *(round(fmean(abs(row[key]) for row in part), 4) for key in ("caption_prior", "picture_prior")),
                *(
                    f"{fmean(row[key] for row in part):.2f}"
                    for key in ("text_only", "by_caption", "picture_only", "by_picture")
                ),
            )
            for name, part in lines
        ),
    )
