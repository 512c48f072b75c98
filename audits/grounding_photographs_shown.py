"""What grounding shows of photographs: chosen boxes in the pictures as the model saw them, and rates by relation."""

from collections.abc import Iterable, Mapping
from math import isnan

import torch

from audits.grounding_shown import CHOSEN, MEANT, drawn, mean
from camcore.engine import Row, rank
from camcore.images import Batch
from camcore.metrics.grounding import auc
from camcore.subject import Grounder
from camcore.verdict import Evidence, Overlay, Table
from fixtures.datasets.phrases import Phrases, Sought

ALL = "all"
PICTURES = 2  # of each group
RIM = (0.0, 0.0, 0.0)  # around white, which a photograph may be all over


def show(subject: Grounder, batch: Batch, rows: Mapping[str, Row], *, phrases: Phrases) -> Iterable[Evidence]:
    """Of each group two phrases, wrong ones first, with the boxes; what is found, by relation; what foils do."""
    for place, group_id in enumerate(batch.ids):
        row, group = rows[group_id], phrases.by_id[group_id]
        for index in sorted(range(len(group.sought)), key=lambda index: row[f"right:{index}"])[:PICTURES]:
            sought = group.sought[index]
            picture, things = phrases.view(sought.file, subject.geometry)
            box = torch.tensor([row[f"box:{index}:{edge}"] for edge in range(4)])
            meant = things[phrases.meant(sought)]
            yield Overlay(
                unit=group_id,
                role=rank(place, len(batch)),
                value=row["right"],
                caption=_caption(sought, row, index),
                image=drawn(picture, {MEANT: meant, RIM: meant, CHOSEN: box}),
                saliency=None,
            )
    yield _by_relation(rows, phrases)
    if any(sought.foil for group_id in rows for sought in phrases.by_id[group_id].sought):
        yield _foils(rows, phrases)


def _caption(sought: Sought, row: Row, index: int) -> str:
    what = "another thing" if row[f"around:{index}"] >= 0 else "nothing that is known"
    what = "what is meant" if row[f"right:{index}"] else what
    found = "no box" if isnan(row[f"box:{index}:0"]) else f"around {what}, score {row[f'score:{index}']:.2f}"
    where = f"line {sought.line}, {sought.file}, squashed as the model saw it"
    return f"“{sought.caption}”, find “{sought.phrase}”: {found} (white in black: meant, magenta: found; {where})"


def _by_relation(rows: Mapping[str, Row], phrases: Phrases) -> Table:
    named = dict.fromkeys(sought.relation for group_id in rows for sought in phrases.by_id[group_id].sought)
    return Table(
        title="What is found, by the column relation (mean over the groups with its 95 % interval; who reads nothing "
        "is right in half of a group at most)",
        columns=(
            "relation",
            "groups",
            "phrases that are right",
            "right (IoU ≥ 0.5)",
            "right (GIoU ≥ 0.5)",
            "around another thing",
            "around none",
        ),
        rows=tuple(_line(relation, rows, phrases) for relation in (ALL, *(named if len(named) > 1 else ()))),
    )


def _line(relation: str, rows: Mapping[str, Row], phrases: Phrases) -> tuple[str | int, ...]:
    shares, right, asked = [], 0.0, 0
    for group_id, row in rows.items():
        sought = phrases.by_id[group_id].sought
        about = [index for index, one in enumerate(sought) if relation in (ALL, one.relation)]
        if about:
            none = [row[f"around:{index}"] < 0 for index in about]
            other = [row[f"around:{index}"] >= 0 and not row[f"right:{index}"] for index in about]
            of = {"other": other, "none": none}
            of |= {name: [row[f"{name}:{index}"] for index in about] for name in ("right", "giou")}
            shares.append({name: sum(each) / len(about) for name, each in of.items()})
            right, asked = right + sum(of["right"]), asked + len(about)
    means = (mean(shares, name) for name in ("right", "giou", "other", "none"))
    return relation, len(shares), f"{right:.0f} of {asked}", *means


def _foils(rows: Mapping[str, Row], phrases: Phrases) -> Table:
    scores: dict[str, list[float]] = {"score": [], "foil": []}
    for group_id, row in rows.items():
        for index, sought in enumerate(phrases.by_id[group_id].sought):
            for name, held in scores.items():
                if sought.foil:
                    held.append(row[f"{name}:{index}"])
    area, measured = auc(torch.tensor(scores["score"]), torch.tensor(scores["foil"])), list(rows.values())
    return Table(
        title="The same phrases in captions that are false of the picture (mean over the groups that have one, with "
        "its 95 % interval)",
        columns=("measure", "found", "by luck"),
        rows=(
            ("phrases with a foil", len(scores["foil"]), ""),
            ("the true caption scores higher", mean(measured, "above"), "0.5"),
            ("area under the curve of true against false", "-" if isnan(area) else f"{area:.2f}", "0.5"),
            (
                "the box is around the same thing as with the foil, or around none both times",
                mean(measured, "stays"),
                "",
            ),
        ),
    )
