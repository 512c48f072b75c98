"""The scores of captions by their benchmarks' formulas, from the rows of `test_captions`; and every relation's.

The formula is the published one and no more: pictures are fed as `subject.fed` says, and what a model does not read
whole, or the profile does not allow, is left out. The tables say so.
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence

import torch

from audits.shares import exact_share
from camcore import statistics
from camcore.engine import Row
from camcore.imagetext import TwoTowers
from camcore.subject import ImageText
from camcore.verdict import Table
from fixtures.datasets.captions import Captions, Item, drawn, table, whatsup
from fixtures.datasets.captions.aro import ATTRIBUTION, RELATION

ENOUGH = 25  # pictures that a pair of attributes needs to count in ARO
Line = tuple[str, str, str, str]


def published(subject: ImageText, captions: Captions, rows: Mapping[str, Row]) -> Table:
    """Each part of the benchmark by its own score, beside what luck gives and what the captions give by themselves."""
    in_file = _by(captions, captions.by_id, "part")
    lines: list[Line] = []
    for part, items in _by(captions, rows, "part").items():
        lines += [(f"{part}: {name}", *rest) for name, *rest in _scores(captions.benchmark, in_file[part], items, rows)]
        blind = _share(items, rows, "blind", "pictures")
        lines.append((f"{part}: right with an even grey instead", f"{blind:.3f}", _luck(items, rows), _n(items)))
    return Table(
        title=f"{captions.benchmark}, {_formula(captions)} of {len(rows)} of {len(captions.items)} items "
        f"(pictures that share captions are one item){_fed(subject, captions)}; intervals are exact, 95 %, where items "
        "are counted whole",
        columns=("score", "share", "by luck", "items"),
        rows=tuple(lines),
    )


def _formula(captions: Captions) -> str:
    return "scores" if captions.benchmark in (drawn.NAME, table.NAME) else "by the formula as published,"


def _fed(subject: ImageText, captions: Captions) -> str:
    """How pictures are fed, if not as published; those that are drawn are drawn as the model takes them."""
    if not isinstance(subject, TwoTowers) or not subject.fed or captions.benchmark == drawn.NAME:
        return ""
    return f"; pictures are {subject.fed}"


def _scores(benchmark: str, in_file: Sequence[Item], items: Sequence[Item], rows: Mapping[str, Row]) -> list[Line]:
    """The scores of one part, of which `in_file` are all items and `items` those with rows."""
    part = items[0].part
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
        without = _scores(benchmark, in_file, sound, rows)
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
        return [_over_attributes(in_file, items, right)]
    return [("accuracy", exact_share(torch.tensor(right), digits=3), luck, n)]


def _over_attributes(in_file: Sequence[Item], items: Sequence[Item], right: Sequence[float]) -> Line:
    """Which pairs of attributes count is a matter of the whole file, of which a few may have been drawn."""
    enough = {name for name, count in Counter(item.relation for item in in_file).items() if count >= ENOUGH}
    held = [(share, item.relation) for share, item in zip(right, items, strict=True) if item.relation in enough]
    drawn_of = len({name for _, name in held})
    mean = statistics.macro_mean([share for share, _ in held], [name for _, name in held])
    return (
        f"mean over {drawn_of} of the {len(enough)} pairs of attributes with {ENOUGH} pictures or more in the file",
        f"{mean:.3f}" if held else "not enough pictures",
        "0.500",
        str(len(held)),
    )


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


def _by(captions: Captions, among: Container[str], key: str) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in captions.items:
        if item.id in among:
            found.setdefault(getattr(item, key), []).append(item)
    return found


def _share(items: Sequence[Item], rows: Mapping[str, Row], of: str, among: str) -> float:
    return sum(rows[item.id][of] for item in items) / sum(rows[item.id][among] for item in items)


def _luck(items: Sequence[Item], rows: Mapping[str, Row]) -> str:
    return f"{_share(items, rows, 'luck', 'pictures'):.3f}"


def _n(items: Sequence[Item]) -> str:
    return str(len(items))
