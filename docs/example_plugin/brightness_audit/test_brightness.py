"""Does the prediction stay when the picture is made slightly brighter?

## What it measures

A twentieth of the range is added to every value of the picture, cut off at white, and it is noted whether the model
still predicts the class that it predicted first (stays).

## Why it matters

Nobody who looks at the two pictures would call them different. A model that does has learned the light.

## Known limits

One change in one direction. Pictures that are white already barely change, and count as if they had.

## Caught by

dimmer_steps

## References

Hendrycks and Dietterich 2019 (arXiv:1903.12261), whose brightness corruption of the least severity is a tenth.
"""

from collections.abc import Iterable, Mapping

import pytest
import torch

from audits.ask import Ask
from audits.question import Question
from camcore.engine import WORST, Row
from camcore.images import Batch
from camcore.subject import Classifier
from camcore.verdict import Evidence, Overlay

VERSION = "1"
ADDED = 0.05  # of the range of values

STAYS = Question(
    name="brightness/stays",
    sentence="the predicted class stays when every value of the picture is raised by a twentieth",
    kind="INV",
    measure="whether the predicted class stays",
    unit="share of the images",
    bounds=(0.0, 1.0),
)
QUESTIONS = (STAYS,)


@torch.no_grad()
def brightness(subject: Classifier, batch: Batch) -> dict[str, torch.Tensor]:
    """1 for each image whose class stays."""
    before, after = subject.logits(batch.images), subject.logits(brighter(batch.images))
    return {"stays": (before.argmax(1) == after.argmax(1)).double()}


def brighter(images: torch.Tensor) -> torch.Tensor:
    """The pictures with a twentieth added."""
    return (images + ADDED).clamp(max=1)


@torch.no_grad()
def show(subject: Classifier, batch: Batch, rows: Mapping[str, Row]) -> Iterable[Evidence]:
    """Pictures as they are and brighter, with what the model makes of them."""
    for index, image_id in enumerate(batch.ids):
        for caption, images in (("as it is", batch.images), ("brighter", brighter(batch.images))):
            predicted = int(subject.logits(images[[index]]).argmax())
            yield Overlay(
                unit=image_id,
                role="worst" if index < WORST else "typical",
                value=rows[image_id]["stays"],
                caption=f"{caption}: {subject.classes[predicted]}",
                image=images[index],
                saliency=None,
            )


@pytest.mark.audit("brightness")
def test_brightness_leaves_the_class(ask: Ask) -> None:
    """The sentence has no {cam}: the claim is about the model itself, and put once."""
    ask(STAYS, measure=brightness, column="stays", show=show, version=VERSION)
