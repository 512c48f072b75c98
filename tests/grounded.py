"""A picture and captions for models that find phrases, and how their loading is refused."""

import torch

from camcore.seeds import generator
from fixtures.subjects.spec import find_grounder
from tests.refusals import refusal as refused

LEFT, RIGHT, PHRASE = "the red mug is on the left", "the red mug is on the right", "the red mug"


def picture(height: int = 80, width: int = 80) -> torch.Tensor:
    return torch.rand(3, height, width, generator=generator(0, "grounded"))


def refusal(spec: str, **options: str) -> str:
    return refused(find_grounder, spec, **options)
