"""The scores of captions as their benchmarks publish them, from the rows of `test_captions`; and every relation's."""

from collections.abc import Mapping, Sequence

import torch

from audits.shares import exact_share
from camcore import statistics
from camcore.engine import Row
from camcore.verdict import Table
from fixtures.datasets.captions import Captions, Item, whatsup
from fixtures.datasets.captions.aro import ATTRIBUTION, RELATION

ENOUGH = 25  # pictures that a pair of attributes needs to count in ARO
Line = tuple[str, str, str, str]


def published(captions: Captions, rows: Mapping[str, Row]) -> Table:
    """Each part of the benchmark by its own score, beside what luck gives and what the captions give by themselves."""
    lines: list[Line] = []
    for part, items in _by(captions, rows, "part").items():
        lines += [(f"{part}: {name}", *rest) for name, *rest in _scores(captions.benchmark, part, items, rows)]
        blind = _share(items, rows, "blind", "pictures")
        lines.append((f"{part}: right with an even grey instead", f"{blind:.3f}", _luck(items, rows), _n(items)))
    return Table(
        title=f"{captions.benchmark}, scored as published, of {len(rows)} of {len(captions.items)} items (pictures "
        "that share captions are one item); intervals are exact, 95 %, where items are counted whole",
        columns=("score", "share", "by luck", "items"),
        rows=tuple(lines),
    )


def _scores(benchmark: str, part: str, items: Sequence[Item], rows: Mapping[str, Row]) -> list[Line]:
    right = [rows[item.id]["right"] / rows[item.id]["pictures"] for item in items]
    relations = [item.relation for item in items]
    luck, n = _luck(items, rows), _n(items)
    if benchmark != whatsup.NAME and all(item.pairs == ((0, 1),) for item in items):
        return [
            (f"{name} score", exact_share(torch.tensor([rows[item.id][name] for item in items]), digits=3), chance, n)
            for name, chance in (("text", "0.250"), ("image", "0.250"), ("group", "0.167"))
        ]
    if benchmark == whatsup.NAME and any(item.pairs for item in items):
        pictures = sum(rows[item.id]["pictures"] for item in items)
        pairs = sum(rows[item.id]["pairs_right"] for item in items) / (pictures / 2)
        sets = sum(rows[item.id]["whole"] for item in items if len(item.pictures) == 4) / (pictures / 4)
        found = [
            ("individual accuracy", f"{_share(items, rows, 'right', 'pictures'):.3f}", luck, n),
            ("pair accuracy", f"{pairs:.3f}", "0.063", n),
            ("set accuracy", f"{sets:.3f}", "0.004", n),
        ]
        sound = [item for item in items if not whatsup.exchanged(item)]
        if len(sound) in (0, len(items)):
            return found
        without = _scores(benchmark, part, sound, rows)
        return found + [(f"{name}, less the set with exchanged labels", *rest) for name, *rest in without]
    if f"{part}.json" == RELATION:
        every = "symmetric ones too, but for those in symmetric.txt"
        return [
            (
                f"mean over {len(set(relations))} relations ({every})",
                f"{statistics.macro_mean(right, relations):.3f}",
                luck,
                n,
            )
        ]
    if f"{part}.json" == ATTRIBUTION:
        mean = statistics.macro_mean(right, relations, least=ENOUGH)
        return [(f"mean over pairs of attributes with {ENOUGH} pictures or more", f"{mean:.3f}", luck, n)]
    return [("accuracy", exact_share(torch.tensor(right), digits=3), luck, n)]


def by_relation(captions: Captions, rows: Mapping[str, Row]) -> Table:
    """The share of pictures that are right, relation by relation, the most frequent first."""
    lines = []
    for name, items in sorted(_by(captions, rows, "relation").items(), key=lambda one: (-len(one[1]), one[0])):
        level = int(sum(rows[item.id]["level"] for item in items))
        lines.append(
            (
                name,
                int(sum(rows[item.id]["pictures"] for item in items)),
                round(_share(items, rows, "right", "pictures"), 3),
                round(_share(items, rows, "blind", "pictures"), 3),
                round(_share(items, rows, "luck", "pictures"), 3),
                level,
            )
        )
    return Table(
        title="How many pictures are right, by relation or category",
        columns=("relation", "pictures", "right", "right with an even grey", "by luck", "level"),
        rows=tuple(lines),
    )


def _by(captions: Captions, rows: Mapping[str, Row], key: str) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in captions.items:
        if item.id in rows:
            found.setdefault(getattr(item, key), []).append(item)
    return found


def _share(items: Sequence[Item], rows: Mapping[str, Row], of: str, among: str) -> float:
    return sum(rows[item.id][of] for item in items) / sum(rows[item.id][among] for item in items)


def _luck(items: Sequence[Item], rows: Mapping[str, Row]) -> str:
    return f"{_share(items, rows, 'luck', 'pictures'):.3f}"


def _n(items: Sequence[Item]) -> str:
    return str(len(items))
