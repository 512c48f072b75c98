"""What the wordings of drawn captions tell beside a verdict: side swaps, colour swaps, and what is preferred of each.

It needs no further forwards: the captions of a group, in all their wordings, are each other's side and colour swaps.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite, nan
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

from audits.shares import LEVEL, share_so_far
from camcore.engine import Row
from camcore.metrics.swaps import Worded, colour_swaps, preferred, side_swaps
from camcore.statistics import Estimate, confidence_sequence
from camcore.verdict import Table
from fixtures.datasets.binding_scenes import WORDS
from fixtures.datasets.captions import Item

KINDS = {"side": side_swaps, "colour": colour_swaps}
WORD, FIRST = "prior:word", "prior:first"
COLUMNS = (*(f"{what}:{kind}" for kind in KINDS for what in ("swaps", "turned", "apart")), WORD, FIRST)
DIGITS = 4  # that are shown of a difference: below, there is none
Parts = Sequence[tuple[str, Sequence[Row]]]  # a relation, or "all", and the rows of its groups


def swapped(groups: Sequence[Item], each: Sequence[Sequence[Float[Tensor, "3 wordings"]]]) -> dict[str, Tensor]:
    """What is shown of the swaps in each group, and never judged; NaN where wordings do not come in pairs.

    Args:
        groups: Of two pictures and two captions.
        each: For each group, the scores of every wording of both captions, with the two pictures first.

    Returns:
        Of either kind: `swaps:<kind>`, the share of the swaps whose interaction is above 0, `turned:<kind>`, below 0,
        and `apart:<kind>`, half its mean size. `prior:word` and `prior:first`, as `preferred` gives them.
    """
    found = [_of_group(group, captions) for group, captions in zip(groups, each, strict=True)]
    return {name: torch.stack([one[name] for one in found]) for name in COLUMNS}


def _of_group(group: Item, captions: Sequence[Float[Tensor, "3 wordings"]]) -> dict[str, Tensor]:
    if not group.opposite:
        return dict.fromkeys(COLUMNS, captions[0].new_tensor(nan))
    pairs = torch.tensor(group.opposite, device=captions[0].device)
    scores: Worded = torch.stack([one[:2][:, pairs] for one in captions[:2]], 1)[None]
    liked = preferred(scores)
    columns = {WORD: liked.word[0], FIRST: liked.first[0]}
    for kind, interactions in KINDS.items():
        swaps = interactions(scores)[0]
        columns |= {
            f"swaps:{kind}": (swaps > 0).double().mean(),
            f"turned:{kind}": (swaps < 0).double().mean(),
            f"apart:{kind}": swaps.abs().mean() / 2,
        }
    return columns


def swap_tables(rows: Mapping[str, Row], groups: Mapping[str, Item]) -> Iterable[Table]:
    """Two tables by relation, of the groups whose wordings come in pairs; none where there is no such group."""
    # what was journalled before there were these columns has none
    paired = {one: row for one, row in rows.items() if isfinite(row.get(WORD, nan))}
    relations = dict.fromkeys(group.relation for group in groups.values())
    parts = [("all", list(paired.values()))]
    parts += [(name, [row for one, row in paired.items() if groups[one].relation == name]) for name in relations]
    parts = [(name, part) for name, part in parts if part]
    if paired:
        yield _told_apart(parts)
        yield _separated(parts)


def _told_apart(parts: Parts) -> Table:
    return Table(
        title="Side swaps and colour swaps. Of 'red left of green' the side swap is 'red right of green', and the "
        "colour swap 'green left of red'. Told apart: the share of them in which both captions go with their own "
        "pictures (with its 95 % interval, from which the words follow; by luck 0.5; level ones are wrong). Apart by: "
        "how much the picture changes which of the two is preferred, rightly or not (mean difference; 0: the change is "
        "not read)",
        columns=(
            "relation",
            "groups",
            "side swaps told apart",
            "apart by",
            "colour swaps told apart",
            "apart by",
            "in words",
        ),
        rows=tuple(
            (
                name,
                len(part),
                *(
                    cell
                    for kind in KINDS
                    for cell in (
                        share_so_far(torch.tensor(_column(part, f"swaps:{kind}"))),
                        _size(part, f"apart:{kind}"),
                    )
                ),
                _noticed(part),
            )
            for name, part in parts
        ),
    )


def _noticed(part: Sequence[Row]) -> str:
    """Which of the two kinds is told apart."""
    side, colour = (_said_of(part, kind) for kind in KINDS)
    if side != colour:
        return f"side swaps {side}; colour swaps {colour}"
    return f"neither {side.removeprefix('not ')}" if side.startswith("not ") else f"both {side}"


def _said_of(part: Sequence[Row], kind: str) -> str:
    if _interval(_column(part, f"swaps:{kind}")).low > 0.5:
        return "told apart"
    if _interval(_column(part, f"turned:{kind}")).low > 0.5:
        return "taken for the opposite"
    return "not shown to be told apart" if _size(part, f"apart:{kind}") else "not read"


def _separated(parts: Parts) -> Table:
    return Table(
        title="Binding, position prior and colour prior, kept apart (mean differences of the score; priors in "
        "whichever direction, and whatever the picture). Binding: the true caption to the false one. Position prior: a "
        "relation to its opposite. Colour prior: captions that begin with one colour to those that begin with the "
        "other. One caption: one colour in one place to the other. The shares of the groups (with their 95 % "
        "intervals, from which the words follow; by luck 0.5) are of those in which there is a difference",
        columns=(
            "relation",
            "binding",
            "position prior",
            "word preferred",
            "colour prior",
            "one caption",
            "position prior the larger",
            "in words",
        ),
        rows=tuple(
            (
                name,
                round(fmean(row["margin"] / 2 for row in part), DIGITS),
                _size(part, WORD),
                _word(name, part),
                _size(part, FIRST),
                _size(part, "caption_prior"),
                share_so_far(torch.tensor(_position_larger(part))),
                _stronger(name, part),
            )
            for name, part in parts
        ),
    )


def _word(name: str, part: Sequence[Row]) -> str:
    share = share_so_far(torch.tensor(_first_word(part)))
    return share if share == "none" else f"{WORDS[name][0]} {share}" if name in WORDS else ""


def _size(part: Sequence[Row], key: str) -> float:
    return round(fmean(map(abs, _column(part, key))), DIGITS)


def _first_word(part: Sequence[Row]) -> list[float]:
    """1 where the relation's first word is preferred, 0 where its opposite is."""
    return [_larger(one, 0.0) for one in _column(part, WORD)]


def _position_larger(part: Sequence[Row]) -> list[float]:
    """1 where the position prior is the larger one, 0 where the colour prior is."""
    return [_larger(abs(row[WORD]), abs(row[FIRST])) for row in part]


def _larger(one: float, other: float) -> float:
    """1 or 0; NaN where neither is."""
    return float(one > other) if round(one - other, DIGITS) else nan


def _stronger(name: str, part: Sequence[Row]) -> str:
    """Which of the two priors is the stronger, and which word it prefers."""
    if not any(isfinite(_larger(abs(row[key]), 0.0)) for row in part for key in (WORD, FIRST)):
        return "no prior"
    compared, words = _interval(_position_larger(part)), _interval(_first_word(part))
    said = "neither shown to be the stronger"
    if compared.low > 0.5 or compared.high < 0.5:
        said = f"{'position' if compared.low > 0.5 else 'colour'} prior the stronger"
    if name in WORDS and (words.low > 0.5 or words.high < 0.5):
        said += f"; prefers '{WORDS[name][0 if words.low > 0.5 else 1]}'"
    return said


def _column(part: Sequence[Row], key: str) -> list[float]:
    return [row[key] for row in part]


def _interval(values: Sequence[float]) -> Estimate:
    return confidence_sequence([one for one in values if isfinite(one)], level=LEVEL)
