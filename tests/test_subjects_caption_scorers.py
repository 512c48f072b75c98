"""`py:` factories of models that score captions: any object with `similarity`, or two towers that also have maps."""

from pathlib import Path

import pytest
import torch

from audits.options import read_settings
from audits.plan import Audited, prepare
from camcore.cost import metered
from camcore.errors import BadInput
from camcore.images import Geometry
from camcore.imagetext import CaptionScorer, TwoTowers
from camcore.prompted import scorer_as_classifier
from camcore.subject import abilities
from fixtures.subjects.spec import find_any, find_image_text, find_subject
from tests import captions_folders as folders
from tests.refusals import refusal

MINE = """
import torch
from torch import nn
from camcore import Geometry
from fixtures.controls.registry import find_control

class Reddish(nn.Module):
    def __init__(self, kind=torch.float32, geometry=None):
        super().__init__()
        self.red = nn.Linear(3, 1)
        self.kind = kind
        if geometry is not None:
            self.geometry = geometry

    def similarity(self, images, captions):
        assert 0 <= images.min() and images.max() <= 1
        said = torch.tensor([float(len(caption)) for caption in captions])
        return (self.red(images.mean((2, 3))) * said).to(self.kind)

class Wrong:
    def similarity(self, images, captions):
        return torch.zeros(len(captions), len(images))

def plain(): return Reddish(geometry=Geometry(crop=(64, 64), squash=True))
def fed_as_it_likes(): return Reddish()
def half(): return Reddish(torch.float16)
def cut(): return Reddish(geometry=Geometry(crop=(64, 64), resize=64))
def oblong(): return Reddish(geometry=Geometry(crop=(64, 96)))
def wrong(): return Wrong()
def towers(): return find_control("clip-by-hand")
def classifier(): return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("py") / "mine.py"
    file.write_text(MINE, encoding="utf-8")
    return f"py:{file}"


def planned(tmp_path: Path, model: str, **given: object) -> Audited:
    options = {"model": [model], "report": str(tmp_path / "report"), "batch_size": 8, **given}
    settings = read_settings({f"audit_option_{name}": value for name, value in options.items()}, {})
    return prepare(settings, batch_sizes={}).audited[0]


def test_whatever_has_a_method_similarity_scores_captions(mine: str) -> None:
    subject = find_any(f"{mine}:plain")

    assert isinstance(subject, CaptionScorer)
    assert abilities(subject) == ("captions",)
    assert (subject.name, subject.geometry.crop) == ("mine-plain", (64, 64))
    assert "runs code from mine.py (sha256" in subject.unsafe[0]
    assert [*subject.module.state_dict()] == ["red.weight", "red.bias"]
    with metered() as cost:
        assert subject.similarity(torch.rand(2, 3, 64, 64), ["a mug", "a red mug", "a cat"]).shape == (2, 3)
    assert cost.forwards == 2
    assert find_any(f"{mine}:fed_as_it_likes").geometry == Geometry(crop=(224, 224), squash=True)
    assert find_image_text(f"{mine}:plain").sha256 == subject.sha256


def test_what_no_model_of_captions_may_give(mine: str) -> None:
    assert "gave (2, 1) for 1 pictures and 2 captions, expected a tensor (1, 2)" in refusal(find_any, f"{mine}:wrong")
    assert "scores captions, and has no classes till it is told some" in refusal(find_subject, f"{mine}:plain")
    assert "has no method similarity(images, captions)" in refusal(find_image_text, f"{mine}:classifier")


def test_two_towers_of_a_factory_have_maps_and_a_scorer_has_none(mine: str, tmp_path: Path) -> None:
    towers = planned(tmp_path, f"{mine}:towers").subject
    assert isinstance(towers, TwoTowers)
    assert towers.target_layer == "pool"
    assert planned(tmp_path, f"{mine}:plain").subject.target_layer is None
    message = refusal(planned, tmp_path, f"{mine}:plain", layer="red")
    assert "has no tower of images; leave it out, or return a camcore.TwoTowers" in message


def test_with_classes_a_scorer_classifies_by_the_mean_over_its_prompts(mine: str, tmp_path: Path) -> None:
    roles = planned(tmp_path, f"{mine}:plain", data="scenes").roles
    assert list(roles) == ["captions", "classes"]
    assert len(roles["classes"].subject.classes) == 10
    scorer, images = find_image_text(f"{mine}:plain"), torch.rand(2, 3, 64, 64)
    assert isinstance(scorer, CaptionScorer)
    made = scorer_as_classifier(scorer, ["cat", "horse"], templates=["a {}", "the {} there"])
    means = [
        scorer.similarity(images, [f"a {name}", f"the {name} there"]).mean(1, keepdim=True) for name in made.classes
    ]

    torch.testing.assert_close(made.logits(images), torch.cat(means, 1))
    assert made.target_layer is None
    with pytest.raises(ValueError, match="expected a template with"):
        scorer_as_classifier(scorer, ["cat"], templates=["a photo"])


def test_a_model_that_would_be_shown_a_part_of_a_picture_is_not_judged(mine: str, tmp_path: Path) -> None:
    data = folders.table(tmp_path / "data")
    for name in ("left.png", "right.png", "on.png"):
        folders.picture(data / name, size=(100, 120))
    words = "of 'on.png', 100 x 120 pixels, the model would see 100 x 101, and questions about sides cannot be judged"

    assert words in refusal(planned, tmp_path, f"{mine}:cut", data=str(data))
    assert len(planned(tmp_path, f"{mine}:plain", data=str(data)).roles["captions"].captions.items) == 2
    assert "of drawn scenes, 96 x 96 pixels, the model would see 96 x 64" in refusal(
        planned, tmp_path, f"{mine}:oblong"
    )
    assert planned(tmp_path, f"{mine}:cut").roles["captions"].bindings is not None  # squares are seen whole


HELD = """
import torch
from torch import nn

class Holds:
    def __init__(self, **networks):
        self.__dict__.update(networks)

    def similarity(self, images, captions):
        return torch.zeros(len(images), len(captions))

def drawn(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))

def one(): return Holds(net=drawn(0))
def other(): return Holds(net=drawn(1))
def two(): return Holds(net=drawn(0), head=drawn(2), name="two")
def none(): return Holds(name="none")
"""


def test_whatever_networks_an_object_holds_are_hashed_and_do_not_train(tmp_path: Path) -> None:
    file = tmp_path / "held.py"
    file.write_text(HELD, encoding="utf-8")
    found = {name: find_image_text(f"py:{file}:{name}") for name in ("one", "other", "two", "none")}

    assert len({subject.sha256 for subject in found.values()}) == 4
    assert not any(module.training for subject in found.values() for module in subject.module.modules())
    assert [len(subject.unsafe) for subject in found.values()] == [1, 1, 1, 2]
    assert "holds no network" in found["none"].unsafe[1]


def test_what_holds_no_network_is_not_resumed(tmp_path: Path) -> None:
    file = tmp_path / "held.py"
    file.write_text(HELD, encoding="utf-8")
    assert planned(tmp_path, f"py:{file}:none")
    with pytest.raises(BadInput, match=r"holds no network with weights in its attributes.*leave --audit-resume out"):
        planned(tmp_path, f"py:{file}:none", resume=True)
    assert planned(tmp_path, f"py:{file}:one", resume=True)


def test_class_scores_in_half_precision_are_refused(mine: str) -> None:
    asked = scorer_as_classifier(find_image_text(f"{mine}:half"), ("a", "bb"))
    with pytest.raises(ValueError, match=r"single precision at least, got torch\.float16"):
        asked.logits(torch.rand(1, 3, 64, 64))


def test_what_finds_phrases_in_oblong_pictures_is_not_shown_square_ones(tmp_path: Path) -> None:
    file = tmp_path / "finds.py"
    file.write_text(
        "import torch\nfrom camcore import Geometry\n\n"
        "class Finds:\n    geometry = Geometry(crop=(48, 64), squash=True)\n\n"
        "    def ground(self, image, caption, phrase):\n        return torch.zeros(1, 4), torch.zeros(1)\n\n"
        "def build(): return Finds()\n",
        encoding="utf-8",
    )
    message = refusal(planned, tmp_path, f"py:{file}:build")
    assert "takes pictures of 48x64, and drawn scenes are square" in message
