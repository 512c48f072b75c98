"""`py:` factories of models that find phrases: any object with `ground`."""

import pytest

from camcore.cost import metered
from camcore.errors import BadInput
from camcore.grounding import BoxFinder
from fixtures.subjects.spec import find_grounder, find_subject
from tests.grounded import LEFT, PHRASE, picture, refusal

pytestmark = pytest.mark.slow  # the first spec to be read imports what all families need, which takes seconds

FACTORY = """
import torch
from torch import nn

class Corner:
    def __init__(self, found=None):
        self.found = found
        self.module = nn.Linear(2, 2)

    def ground(self, image, caption, phrase):
        return self.found or (torch.tensor([[0.0, 0.0, 5.0, 5.0]]), torch.tensor([len(phrase)]))

class Network(nn.Module):
    def ground(self, image, caption, phrase):
        return torch.zeros(0, 4), torch.zeros(0)

def corner(): return Corner()
def network(): return Network()
def shapeless(): return Corner((torch.zeros(3), torch.zeros(3)))
def infinite(): return Corner((torch.full((1, 4), torch.inf), torch.zeros(1)))
def lists(): return Corner(([[0, 0, 1, 1]], [1.0]))
def classifier():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture
def factory(tmp_path):
    (tmp_path / "mine.py").write_text(FACTORY, encoding="utf-8")
    return f"py:{tmp_path / 'mine.py'}"


def test_whatever_has_a_method_ground_finds_phrases(factory) -> None:
    subject = find_grounder(f"{factory}:corner")

    assert isinstance(subject, BoxFinder)
    assert (subject.name, subject.geometry.crop) == ("mine-corner", (384, 384))
    assert "runs code from mine.py (sha256" in subject.unsafe[0]
    with metered() as cost:
        boxes, scores = subject.ground(picture(), LEFT, PHRASE)
    assert cost.forwards == 1
    assert (boxes.tolist(), scores.tolist()) == ([[0, 0, 5, 5]], [len(PHRASE)])
    assert find_grounder(f"{factory}:network").ground(picture(), LEFT, PHRASE)[0].shape == (0, 4)
    assert [*subject.module.state_dict()] == ["weight", "bias"]


def test_what_a_factorys_grounder_must_not_give(factory) -> None:
    assert "boxes (3,) and scores (3,), expected (n, 4) and (n,)" in refusal(f"{factory}:shapeless")
    assert "not finite" in refusal(f"{factory}:infinite")
    assert "gave list and list, expected tensors" in refusal(f"{factory}:lists")
    assert "no method ground(image, caption, phrase)" in refusal(f"{factory}:classifier")
    with pytest.raises(BadInput, match="finds phrases and scores no classes"):
        find_subject(f"{factory}:corner")
