"""The questions of grounding, put to photographs of the user's with phrases to be found in them (docs/data.md)."""

from dataclasses import replace
from math import nan

import torch
from jaxtyping import Float
from torch import Tensor

from audits.ask import Ask
from audits.grounding_photographs_shown import show
from audits.question import Question
from camcore.errors import Undefined
from camcore.images import Batch, Boxes, Dataset, Image, Images
from camcore.metrics import grounding as metrics
from camcore.subject import Grounder
from fixtures.datasets.phrases import Group, Phrases

SAID = {
    "sides": "of things in a photograph that left and right alone tell apart, it finds the one on the side asked for",
    "relations": "of things in a photograph, it finds the one on the side of another that is asked for",
    "finds": "of things in a photograph, it finds the one that is named",
}
MEASURE = "share of the phrases whose box is around what they mean (IoU of 0.5), and around nothing else that is named"


def ask_about(ask: Ask, question: Question, claim: str, *, phrases: Phrases, version: str) -> None:
    """Put one of grounding's claims to the lines that are about it; without any it does not apply."""

    def premise(_images: Images) -> dict[str, Phrases]:
        return {"phrases": phrases}

    ask(
        replace(question, sentence=SAID[claim], measure=MEASURE),
        measure=grounding,
        column="right",
        show=show,
        version=version,
        premise=premise,
        early=False,  # what is shown is of all that the budget allows
        among=lambda _pictures, given: about(given["phrases"], claim),
    )


def about(phrases: Phrases, claim: str) -> Dataset:
    """The groups that a claim is about.

    Raises:
        Undefined: There are none.
    """
    found = phrases.of(claim)
    if not found.ids:
        raise Undefined(f"no line of the phrases in {phrases.spec!r} has {claim!r} in the column claim")
    return found


@torch.no_grad()
def grounding(subject: Grounder, batch: Batch, *, phrases: Phrases) -> dict[str, Tensor]:
    """What the model finds for the phrases of each group; one forward per phrase, and one per foil.

    Returns:
        `right`, what is judged, a share of the group's phrases. `above` and `stays`, of those with a foil: the caption
        scores higher, and the foil's box is around the same thing; NaN where there is no foil. By phrase, NaN beyond a
        group's last: `right:<phrase>`, `giou:<phrase>` (by the generalised IoU), `around:<phrase>`, the number of the
        thing (-1: none), `score:<phrase>`, `foil:<phrase>`, the foil's score, and `box:<phrase>:<edge>`, in pixels of
        the picture as the model saw it.
    """
    rows = [_of(subject, phrases.by_id[one], phrases, batch.images) for one in batch.ids]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: torch.tensor([row.get(name, nan) for row in rows], dtype=torch.float64) for name in names}


def _of(subject: Grounder, group: Group, phrases: Phrases, like: Images) -> dict[str, float]:
    views = {file: phrases.view(file, subject.geometry) for file in {one.file: None for one in group.sought}}
    found: dict[str, float] = {}
    rights, above, stays = [], [], []
    for index, sought in enumerate(group.sought):
        picture, things = views[sought.file]
        meant = phrases.meant(sought)
        box, score, around = _found(subject, picture.to(like), things, sought.caption, sought.phrase)
        rights.append(around == meant)
        found |= {
            f"right:{index}": float(rights[-1]),
            f"giou:{index}": float(metrics.generalised_iou(box, things[meant].double()) >= metrics.HIT),
            f"around:{index}": float(around),
            f"score:{index}": score,
            **{f"box:{index}:{edge}": float(box[edge]) for edge in range(4)},
        }
        if sought.foil:
            _, false, instead = _found(subject, picture.to(like), things, sought.foil, sought.phrase)
            above.append(score > false)
            stays.append(instead == around)
            found[f"foil:{index}"] = false
    return {"right": _share(rights), "above": _share(above), "stays": _share(stays), **found}


def _found(
    subject: Grounder, picture: Image, things: Boxes, caption: str, phrase: str
) -> tuple[Float[Tensor, "4"], float, int]:
    """The box with the highest score, that score, and which of the things it is around (-1: none)."""
    box, score = metrics.best(*subject.ground(picture, caption, phrase))
    box = box.cpu().double()
    return box, float(score), int(metrics.matched(box, things.double()))


def _share(held: list[bool]) -> float:
    return sum(held) / len(held) if held else nan
