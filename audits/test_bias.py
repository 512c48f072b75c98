"""Has a yellow square become the class?

## What it measures

The usual suspects (coloured squares and discs, a price tag, a ruler, a logo, borders, a watermark, and the user's own,
`--audit-artefact`) are stuck into pictures, in five places, and the probability of every class is compared with what it
is when the same pixels are hidden under a piece of the same picture, with soft edges. A part of the images is searched
for the suspect and the class that gain most; pull is that gain on the other images, of other classes, which the search
has not seen, and 0 where the class loses: what some pictures lose does not make up for what others gain. Where nearly
all pictures are of one class, so many of the others are searched that it shows what pulls towards that one, too; where
there are too few, pull and map_share are INCONCLUSIVE. decides is about the suspect with which most of the searched
images are called something else, whatever that is: the share of the images that the search has not seen, of any class,
that are, and are not when the same pixels are hidden. map_share is the share of the map on the strongest suspect, as
far as it is more than its share of the area, in the same pictures, for the class that is predicted then.

## Why it matters

A sticker that is on the pictures of one class, in the data somebody collected, is the easiest thing to learn about
that class. Accuracy on pictures of the same source does not show it, and rewards it.

## Known limits

What is not among the suspects, and not like any, is not found: a taught cross of half the size that pulled by 0.90
showed as a square of a like colour that pulled by 0.19 (docs/reproductions.md). Stickers are searched for in one size,
0.16 of the picture's shorter side: a model for which one means something only if it is larger passes, unless the user
asks for that size (`--audit-artefact FILE@0.3`). One suspect is confirmed, the strongest: a PASS says that it pulls
less than the margin, and that the search found none stronger. A weak pull by many suspects is not added up. Images in
the middle of which something is stuck lose what was there; the comparison with hidden pixels takes that out on average.
A model may rightly take a red disc for a ball: what pulls a class that looks like it is for the reader to judge. A
suspect that turns the pictures of one class alone, or each towards another class and less than half of them, is not
found; nor is the watermark by decides, which takes away what is seen all over: it turned 0.67 of SqueezeNet's
photographs, and was left out of decides after that. The search is not journalled, and made again when a run is resumed.
Beside stand, as evidence, how small and how faint the suspect may be and still pull (on 32 images), and what its class
loses where its pictures carry the suspect, in that place and of that size, and it is inpainted.

## Caught by

shortcut100, shortcut050, shortcut025, shortcut_other, flat_corner, scattering_square, scattering_border

## References

Selvaraju et al. 2017 (Grad-CAM, arXiv:1610.02391, section 6.3, bias in data sets); Lapuschkin et al. 2019
(arXiv:1902.10178) for the watermark that was a horse; Geirhos et al. 2020 (arXiv:2004.07780) on shortcuts; Adebayo et
al. 2022 (arXiv:2212.04629) on whether explanations find spurious signals that nobody looks for.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from audits.ask import Ask
from audits.bias_doses import doses
from audits.bias_removal import removed
from audits.bias_scan import Scan, area, refuse_untried, scan, to_search, turned, unseen, unseen_of_others
from audits.bias_shown import TURNED, show
from audits.question import Question
from camcore.cam import CamMethod
from camcore.degeneracy import degeneracy
from camcore.engine import shuffled
from camcore.images import Batch, Dataset
from camcore.maps import rectify, upsample
from camcore.metrics.localisation import energy_inside
from camcore.recording import Recording, record
from camcore.subject import Classifier
from fixtures.artefacts import carrying, covered, fingerprint, suspects

VERSION = "4"
SEARCHED = 32  # images that are searched, for each chance draw of the profile

PULL = Question(
    name="bias/pull",
    sentence="nothing that was stuck into pictures of other classes pulls them towards a class",
    kind="INV",
    measure="gain of the class by the strongest suspect, over the same pixels hidden; 0 where it loses",
    unit="class probability",
    bounds=(0.0, 1.0),
    direction="within",
)
DECIDES = Question(
    name="bias/decides",
    sentence="nothing that was stuck into pictures decides more of them than what they show",
    kind="INV",
    measure="1 where a picture is called something else with the suspect that turns most, and not with it hidden",
    unit="of the pictures",
    bounds=(0.0, 1.0),
    direction="within",
)
MAP_SHARE = Question(
    name="bias/map_share",
    sentence="the {cam} map does not lie on the strongest suspect",
    kind="INV",
    measure="share of the map on the suspect, for the class predicted with it, beyond its share of the area",
    unit="share of the map",
    bounds=(0.0, 1.0),
    direction="within",
)
QUESTIONS = (PULL, DECIDES, MAP_SHARE)


def bias(subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod], found: Scan) -> dict[str, Tensor]:
    """What the strongest suspect does to each image, and where the maps lie then.

    Returns:
        `pull`, what is judged; `gain`, the same where it is negative too; `without`, `hidden` and `with`, the class's
        probability in the three versions of the image; `called`, 1 where the image with the suspect is called by that
        class; `turned`, 1 where the suspect that turns most gives it another class. Per CAM method `<cam>:share`, and
        `<cam>:degenerate`.
    """
    suspect, label = found.strongest[0].suspect, found.strongest[0].label

    images = carrying(batch.images, suspect)
    rec = record(subject, images, chunk=batch.chunk) if cams else None
    with torch.no_grad():
        plain, hidden = subject.logits(batch.images), subject.logits(covered(batch.images, suspect))
        logits = subject.logits(images) if rec is None else rec.logits
        turner, there = found.turners[0].suspect, (hidden, logits)
        if turner is not suspect:
            there = (subject.logits(covered(batch.images, turner)), subject.logits(carrying(batch.images, turner)))
    without, behind, now = (each.softmax(1)[:, label] for each in (plain, hidden, logits))
    columns = {
        "pull": (now - behind).relu(),
        "gain": now - behind,
        "with": now,
        "hidden": behind,
        "without": without,
        "called": (logits.argmax(1) == label).double(),
        TURNED: turned(plain, *there).double(),
    }
    for name, cam in cams.items():
        assert rec is not None
        saliency = rectify(cam(rec))
        code = degeneracy(rec, saliency)
        columns[f"{name}:share"] = _share(rec, saliency, found).masked_fill(code != 0, torch.nan)
        columns[f"{name}:degenerate"] = code.double()
    return columns


def _share(rec: Recording, saliency: Tensor, found: Scan) -> Tensor:
    mask = area(rec.images, found.strongest[0].suspect)
    shown = upsample(saliency, rec.images.shape[2:], rec.placement)
    return (energy_inside(shown, mask.expand_as(shown)) - mask.mean()).relu()


@pytest.mark.audit("bias")
def test_bias_pulls_no_picture(ask: Ask) -> None:
    ask_about(ask, PULL, "pull")


@pytest.mark.audit("bias")
def test_bias_decides_few_pictures(ask: Ask) -> None:
    ask_about(ask, DECIDES, TURNED)


@pytest.mark.audit("bias")
def test_bias_is_not_what_the_map_shows(ask: Ask, cam: str) -> None:
    ask_about(ask, MAP_SHARE, f"{cam}:share", cam)


def to_confirm(dataset: Dataset, found: Scan, column: str) -> Dataset:
    """The images that a claim is judged on."""
    if column == TURNED:  # what turns pictures may turn those of the very class that another suspect pulls towards
        return unseen(dataset, found)
    refuse_untried(dataset, found)
    return unseen_of_others(dataset, found)


def ask_about(ask: Ask, question: Question, column: str, cam: str = "") -> None:
    """Put one of the claims: they share the search, and read different columns of the same measurement."""
    cams, seed = ask.defined, ask.terms.seed

    def search(_images: Tensor) -> dict[str, Scan]:
        every_id = shuffled(ask.dataset, seed)
        order = every_id[: ask.terms.budget]
        cut = min(SEARCHED * ask.policy.chance_draws, len(order) // 3)  # the others are left for confirming
        chosen = to_search(ask.dataset, every_id, cut)
        every = suspects(ask.artefacts)
        common: dict[str, Any] = {"seed": seed, "chunk": ask.terms.batch_size, "progress": ask.progress}
        found = scan(ask.subject, ask.dataset, chosen, every, **common)
        suspect, label = found.strongest[0].suspect, found.strongest[0].label
        judged = shuffled(unseen_of_others(ask.dataset, found), seed)[: ask.terms.budget]
        tried = doses(ask.subject, ask.dataset, judged, suspect, label, **common)
        searched = set(chosen)
        rest = [one for one in order if one not in searched]
        taken_out = removed(ask.subject, ask.dataset, rest, suspect, label, **common)
        return {"found": replace(found, doses=tried, removal=taken_out)}

    ask(
        question,
        cam,
        measure=partial(bias, cams=cams),
        column=column,
        show=partial(
            show,
            cams=cams,
            name=cam or next(iter(cams), None),
            column=column,
            enough=ask.policy.claims[PULL.name].margin,
        ),
        version=VERSION,
        premise=search,
        among=lambda dataset, given: to_confirm(dataset, given["found"], column),
        apart=f"{fingerprint(ask.artefacts)} of {ask.terms.budget}",  # of more images more are searched
    )
