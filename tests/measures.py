"""A claim, and measures whose values a test knows, put to the engine."""

import torch
from torch import Tensor

from camcore.cost import count
from camcore.engine import Terms, evaluate
from camcore.images import Batch
from camcore.subject import Classifier
from camcore.verdict import Claim, Verdict
from tests.tiny import numbered_dataset

CLAIM = Claim(
    id="test/claim[x]",
    sentence="the value is large",
    kind="DIR",
    measure="value",
    unit="1",
    margin=0.5,
    margin_source="made up",
    severity="gate",
)
TERMS = Terms(level=0.95, budget=128, seed=0, batch_size=8)


def brightness(_subject: Classifier, batch: Batch) -> dict[str, Tensor]:
    """Image i of n is i / n everywhere: a value that the test knows."""
    count(forwards=3 * len(batch), backwards=len(batch))
    return {"value": batch.images.mean((1, 2, 3))}


def put(subject: Classifier, measure=brightness, *, claim=CLAIM, terms=TERMS, n=200, **options) -> Verdict:  # type: ignore[no-untyped-def]
    options.setdefault("journal", {})
    return evaluate(claim, measure, subject, numbered_dataset(n), column="value", terms=terms, **options)


def constant(value: float):  # type: ignore[no-untyped-def]
    def measure(_subject: Classifier, batch: Batch) -> dict[str, Tensor]:
        return {"value": torch.full((len(batch),), value)}

    return measure
