import re
import sys
from functools import partial

import pytest
import torch

from fixtures.subjects.spec import find_subject
from tests.refusals import refusal

TINY = """
import torch
from torch import nn
from camcore.images import Geometry
from camcore.subject import Classifier, Normalise

def net(classes=4):
    features = nn.Sequential(nn.Conv2d(3, 5, 3, stride=4), nn.ReLU())
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, classes))

def named():
    model = net(2)
    model.classes = ["cat", "dog"]
    model.geometry = Geometry(crop=(32, 48))
    model.normalise = Normalise(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return model

def misnamed():
    model = net(3)
    model.classes = ["cat", "dog"]
    return model

class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = net(), wrap

    def forward(self, images):
        return self.wrap(self.net(images))

def dictionary():
    return Wrapped(lambda logits: {"loss": None, "logits": logits})

def pair():
    return Wrapped(lambda logits: (logits, None))

def whole():
    return Classifier(name="whole", spec="", module=net(), geometry=Geometry(crop=(64, 64)), classes=tuple("abcd"))

def warns():
    import warnings
    warnings.warn("an old habit", DeprecationWarning)
    return net()

def fails():
    raise RuntimeError("no GPU\\nin this machine")

def exits():
    raise SystemExit(3)

class Leaves(nn.Module):
    def forward(self, images):
        raise SystemExit(0)

def leaves():
    return Leaves()

def needs_argument(path):
    return net()

def number():
    return 42

def segments():
    return nn.Conv2d(3, 4, 1)

def binary():
    return net(1)

def greyscale():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

not_callable = 3
"""


@pytest.fixture
def tiny(tmp_path):
    file = tmp_path / "tiny.py"
    file.write_text(TINY)
    return file


refused = partial(refusal, find_subject)


def test_a_module_is_fed_the_imagenet_way(tiny):
    subject = find_subject(f"py:{tiny}:net")
    assert (subject.name, subject.spec) == ("tiny-net", f"py:{tiny}:net")
    assert (subject.geometry.resize, subject.geometry.crop) == (256, (224, 224))
    assert subject.preprocess.mean == (0.485, 0.456, 0.406)
    assert subject.classes == ("class 0", "class 1", "class 2", "class 3")
    assert subject.target_layer is not None
    assert not subject.module.training


def test_the_report_can_show_that_code_was_run(tiny):
    assert re.fullmatch(r"runs code from tiny\.py \(sha256 [0-9a-f]{12}\)", *find_subject(f"py:{tiny}:net").unsafe)


def test_a_module_is_fed_as_its_attributes_say(tiny):
    subject = find_subject(f"py:{tiny}:named")
    assert subject.classes == ("cat", "dog")
    assert (subject.geometry.resize, subject.geometry.crop) == (None, (32, 48))
    assert subject.preprocess.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("factory", ["dictionary", "pair"])
def test_logits_are_found_in_dictionaries_and_tuples(tiny, factory):
    subject = find_subject(f"py:{tiny}:{factory}")
    assert subject.logits(torch.zeros(2, 3, 224, 224)).shape == (2, 4)


def test_a_classifier_is_taken_as_it_is(tiny):
    subject = find_subject(f"py:{tiny}:whole")
    assert (subject.name, subject.spec, subject.classes) == ("whole", f"py:{tiny}:whole", tuple("abcd"))
    assert subject.geometry.crop == (64, 64)
    assert re.fullmatch(r"runs code from tiny\.py \(sha256 [0-9a-f]{12}\)", *subject.unsafe)


def test_a_model_that_draws_its_weights_is_the_same_in_every_run(tiny):
    torch.manual_seed(1)
    first = find_subject(f"py:{tiny}:net").sha256
    before = torch.get_rng_state()
    again, other = (find_subject(f"py:{tiny}:net", weights=weights).sha256 for weights in ("random:0", "random:1"))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


def test_own_weights_load_into_the_module(tiny, tmp_path):
    state = find_subject(f"py:{tiny}:net", weights="random:1").module.state_dict()
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    subject = find_subject(f"py:{tiny}:net", weights=str(tmp_path / "weights.pth"))
    assert subject.sha256 == find_subject(f"py:{tiny}:net", weights="random:1").sha256
    assert subject.weights == "file weights.pth"


def test_a_warning_in_the_users_code_stays_a_warning(tiny):
    with pytest.warns(DeprecationWarning, match="an old habit"):
        subject = find_subject(f"py:{tiny}:warns")
    assert len(subject.classes) == 4


def test_a_dotted_module_of_the_current_folder_is_found(tiny, monkeypatch):
    package = tiny.parent / "somebodys_models"
    package.mkdir()
    (package / "__init__.py").touch()
    tiny.rename(package / "small.py")
    monkeypatch.chdir(tiny.parent)
    subject = find_subject("py:somebodys_models.small:net")
    assert subject.name == "somebodys_models-net"
    told = r"runs code from somebodys_models\.small and 1 more of its files \(sha256 [0-9a-f]{12}\)"
    assert re.fullmatch(told, *subject.unsafe)  # the package's own


def test_what_the_factory_imports_from_its_folder_is_part_of_the_model(tiny, monkeypatch):
    """An edited neighbour is other code, with the same weights and the same file: rows of before are not its own."""
    (tiny.parent / "main_of_two.py").write_text("import neighbour_of_two\nimport tiny\n\n\nnet = tiny.net\n")
    (tiny.parent / "site-packages").mkdir()
    (tiny.parent / "site-packages" / "others_library.py").write_text("")
    monkeypatch.syspath_prepend(tiny.parent / "site-packages")
    told = []
    for text in ("import others_library\n", "SCALE = 2\n"):
        (tiny.parent / "neighbour_of_two.py").write_text(text)
        for name in ("neighbour_of_two", "tiny"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        told += find_subject(f"py:{tiny.parent / 'main_of_two.py'}:net").unsafe
    again = find_subject(f"py:{tiny.parent / 'main_of_two.py'}:net").unsafe  # imported already

    assert told[0].startswith("runs code from main_of_two.py and 2 more of its files (sha256 ")
    assert told[0] != told[1]
    assert [*again] == told[1:]


def test_a_module_beside_the_file_can_be_imported_and_the_path_stays_clean(tiny):
    (tiny.parent / "beside_tiny.py").write_text("WIDTH = 6\n")
    (tiny.parent / "uses.py").write_text(
        "from beside_tiny import WIDTH\nfrom tiny import net\ndef make(): return net(WIDTH)\n"
    )
    before = list(sys.path)
    subject = find_subject(f"py:{tiny.parent / 'uses.py'}:make")
    assert len(subject.classes) == 6
    assert sys.path == before


def test_two_files_of_one_name_are_two_modules(tmp_path):
    counts = []
    for classes in (2, 3):
        file = tmp_path / str(classes) / "model.py"
        file.parent.mkdir()
        file.write_text(
            "from torch import nn\n"
            f"def make(): return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, {classes}))\n"
        )
        counts.append(len(find_subject(f"py:{file}:make").classes))
    assert counts == [2, 3]


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("fails", ["RuntimeError: no GPU in this machine"]),
        ("exits", ["SystemExit"]),
        ("needs_argument", ["TypeError", "without arguments"]),
        ("number", ["returned int"]),
        ("segments", ["(1, 4, 224, 224)"]),
        ("binary", ["(1, 1)", "at least 2 classes"]),
        ("greyscale", ["does not run on one 224x224 image", "geometry"]),
        ("leaves", ["does not run on one 224x224 image", "SystemExit"]),
        ("misnamed", ["2 names", "3 scores"]),
        ("nett", ["no function 'nett'", "'net'"]),
        ("not_callable", ["no function 'not_callable'"]),
    ],
)
def test_a_factory_that_gives_no_classifier_is_refused(tiny, factory, words):
    message = refused(f"py:{tiny}:{factory}")
    assert all(word in message for word in words), message
    assert "tiny.py" in message


@pytest.mark.parametrize("spec", ["py:", "py:factory", "py::factory", "py:file.py:", "py:file.py:not-a-name"])
def test_a_spec_of_another_form_is_refused(spec):
    message = refused(spec)
    assert repr(spec) in message
    assert "py:FILE.py:factory" in message


def test_a_missing_file_and_a_missing_module_are_refused():
    assert "there is no file 'no/such.py'" in refused("py:no/such.py:make")
    assert "there is no module 'no_such_package.models'" in refused("py:no_such_package.models:make")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def make(:\n", "SyntaxError"),
        ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("import sys\nsys.exit('bye')\n", "SystemExit: bye"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused(tmp_path, code, words):
    file = tmp_path / "broken.py"
    file.write_text(code)
    before = set(sys.modules), list(sys.path)
    message = refused(f"py:{file}:make")
    assert words in message
    assert str(file) in message
    assert (set(sys.modules), list(sys.path)) == before


def test_weights_of_another_shape_are_refused(tiny, tmp_path):
    torch.save(find_subject(f"py:{tiny}:named").module.state_dict(), tmp_path / "two.pth")
    assert "2 of another shape ('3.weight', '3.bias')" in refused(f"py:{tiny}:net", weights=str(tmp_path / "two.pth"))


def test_other_code_is_another_model_whatever_its_weights(tiny):
    before = find_subject(f"py:{tiny}:net")
    tiny.write_text(tiny.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    after = find_subject(f"py:{tiny}:net")
    assert after.sha256 == before.sha256
    assert after.unsafe != before.unsafe
