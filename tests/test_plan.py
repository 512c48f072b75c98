import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audits import catalogue
from audits.options import read_settings
from audits.plan import Plan, chosen_cams, family_size, prepare, resolve_device, subject_ids
from audits.policy import load_policy
from audits.roles import Role, undefined_methods
from camcore.cam import METHODS, PARTIAL, RECORDED
from camcore.cost import metered
from camcore.errors import BadInput, Undefined
from camcore.recording import Recording
from camcore.statistics import simultaneous_level
from fixtures.controls.binding_scorers import SIDE
from fixtures.datasets.find import default_data
from fixtures.subjects.spec import first_ability
from tests.running import factories
from tests.tiny import GapNet, tiny_subject


def plan(folder: Path, **given: object) -> Plan:
    options = {"report": str(folder / "report"), "batch_size": 4, **given}
    settings = read_settings({f"audit_option_{name}": value for name, value in options.items()}, {})
    return prepare(settings, batch_sizes={})


def classifier(made: Plan) -> Role:
    return made.audited[0].roles["classes"]


@pytest.mark.parametrize(
    ("specs", "ids"),
    [
        (["resnet50"], ["resnet50"]),
        (["torchvision:resnet50@IMAGENET1K_V1"], ["resnet50-IMAGENET1K_V1"]),
        (["control:clean", "control:clean", "clean", "control:clean"], ["clean", "clean.2", "clean.3", "clean.4"]),
        (["py:/a/b/model.py:build", "py:/c/model.py:build"], ["model.py-build", "model.py-build.2"]),
        (["py:pkg.mod:build"], ["pkg.mod-build"]),
        (
            ["hf:/a/clip/", "mdetr:resnet101@../w/x.pth", "hf:owner/name@main"],
            ["clip", "resnet101-x.pth", "owner-name-main"],
        ),
        (["a/b", "<script>", "//"], ["a-b", "script", "model"]),
    ],
)
def test_ids_are_short_and_no_two_are_alike(specs: list[str], ids: list[str]) -> None:
    assert subject_ids(specs) == ids


@pytest.mark.parametrize("specs", [["a", "a.2", "a", "a"], ["a.2", "a", "a"], ["a.2", "a.2", "a", "a", "a"]])
def test_an_id_that_looks_like_a_second_one_is_not_given_twice(specs: list[str]) -> None:
    assert len(set(subject_ids(specs))) == len(specs)


def test_methods_are_the_users_then_the_controls_then_the_default() -> None:
    assert list(chosen_cams("resnet50", ())) == ["hirescam"]
    assert list(chosen_cams("resnet50", ("gradcam", "layercam"))) == ["gradcam", "layercam"]
    assert list(chosen_cams("control:edge_map", ())) == ["edge_detector"]
    assert list(chosen_cams("control:edge_map", ("gradcam",))) == ["gradcam"]
    assert list(chosen_cams("resnet50", ("gradcam", "all"))) == sorted(RECORDED)
    assert set(RECORDED) <= set(METHODS)


def test_every_claim_that_gates_shares_the_level(tmp_path: Path) -> None:
    policy = load_policy(None, profile="pr")
    gates = {name for name, claim in policy.claims.items() if claim.severity == "gate"}
    gates = {name for name in gates if catalogue.questions(policy)[name].needs == "classes"}  # it answers no others
    of_maps = {name for name in gates if catalogue.questions(policy)[name].of_map}
    made = plan(tmp_path, cam=["gradcam", "hirescam"])

    family = 2 * len(of_maps) + len(gates - of_maps)
    assert of_maps < gates
    assert family_size(made.policy, made.audited[0].cams, ["classes"]) == family
    assert classifier(made).terms.level == simultaneous_level(policy.level, family)


def test_a_model_of_captions_is_asked_about_groups_and_has_a_family_of_its_own(tmp_path: Path) -> None:
    made = plan(tmp_path, model=["control:clip-oracle", "control:clean"])
    captions, classes = (next(iter(one.roles.values())) for one in made.audited)
    gates = {
        name
        for name, question in catalogue.questions(made.policy).items()
        if question.needs == "captions" and made.policy.claims[name].severity == "gate"
    }

    assert [list(one.roles) for one in made.audited] == [["captions"], ["classes"]]
    of_captions = ("control:clip-oracle", "open_clip:RN50-quickgelu@openai", "hf:a/b")
    assert {first_ability(spec) for spec in of_captions} == {"captions"}
    assert {first_ability(spec) for spec in ("control:clean", "resnet50", "nonsense:x")} == {"classes"}
    assert list(made.audited[0].cams) == ["hirescam"]
    assert captions.terms.level == simultaneous_level(made.policy.level, len(gates))
    assert captions.dataset.ids == tuple(group.id for group in captions.bindings.groups)
    assert captions.dataset.read(captions.dataset.ids[1]).shape == (3, SIDE, SIDE)
    assert classes.bindings is None
    assert classes.terms == classifier(plan(tmp_path)).terms
    with pytest.raises(BadInput, match="--data 'scenes' has no captions: it does not exist"):
        plan(tmp_path, model=["control:clip-oracle"], data="scenes")
    with pytest.raises(BadInput, match="--audit-layer 'pool': 'control:clip-oracle' has no tower of images"):
        plan(tmp_path, model=["control:clip-oracle"], layer="pool")


def test_two_towers_have_a_map_of_features_and_the_methods_and_the_layer_are_the_users(tmp_path: Path) -> None:
    made = plan(tmp_path, model=["control:clip-by-hand"], cam=["gradcam", "attention_rollout"])
    role = made.audited[0].roles["captions"]
    assert list(made.audited[0].roles) == ["captions"]
    assert list(made.audited[0].cams) == ["gradcam", "attention_rollout"]
    assert (role.subject.target_layer, role.subject.grid.height) == ("pool", 12)
    assert list(role.undefined) == ["attention_rollout"]

    chosen = plan(tmp_path, model=["control:clip-by-hand"], layer="colours").audited[0].roles["captions"].subject
    assert (chosen.target_layer, chosen.grid.height) == ("colours", 96)
    with pytest.raises(BadInput, match=r"no layer 'encoder.pooling' .* did you mean 'encoder.pool'"):
        plan(tmp_path, model=["control:clip-by-hand"], layer="pooling")


def test_two_towers_are_asked_about_the_classes_of_the_data_if_any_is_named(tmp_path: Path) -> None:
    made = plan(tmp_path, model=["control:clip-by-hand"], data="scenes")
    roles = made.audited[0].roles
    classifier = roles["classes"].subject
    assert list(roles) == ["captions", "classes"]
    assert classifier.classes == roles["classes"].dataset.classes
    assert classifier.classes[:2] == ("ladybird", "beach ball")
    assert classifier.target_layer == "encoder.pool"
    assert classifier.sha256 != roles["captions"].subject.sha256
    towers = roles["captions"].subject
    images = roles["classes"].dataset.read(roles["classes"].dataset.ids[0])[None]
    said = [f"a photo of a {name}" for name in classifier.classes]
    torch.testing.assert_close(classifier.logits(images), towers.similarity(images, said))
    family = family_size(made.policy, made.audited[0].cams, ["captions", "classes"])
    assert {role.terms.level for role in roles.values()} == {simultaneous_level(made.policy.level, family)}

    other = plan(tmp_path, model=["control:clip-by-hand"], data="scenes", template=["a {} here", "one {}"])
    subject = other.audited[0].roles["classes"].subject
    assert subject.classes == classifier.classes
    assert subject.sha256 != classifier.sha256


def test_a_template_needs_a_place_for_the_name_and_a_model_to_be_told_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--audit-template needs \{} where the class's name goes, got 'a photo'"):
        plan(tmp_path, model=["control:clip-by-hand"], data="scenes", template=["a photo"])
    for given in ({"model": ["control:clip-by-hand"]}, {"model": ["control:clean"], "data": "scenes"}):
        with pytest.raises(BadInput, match=r"--audit-template 'a \{}' is for a model of captions that is asked about"):
            plan(tmp_path, template=["a {}"], **given)


def test_a_model_that_finds_phrases_is_asked_about_scenes_with_phrases(tmp_path: Path) -> None:
    (audited,) = plan(tmp_path, model=["control:grounder-oracle"]).audited
    ((ability, role),) = audited.roles.items()

    assert (ability, audited.cams) == ("boxes", {})
    assert {first_ability(spec) for spec in ("control:grounder-oracle", "mdetr:resnet101@x.pth")} == {"boxes"}
    assert role.dataset.ids == tuple(group.id for group in role.scenes.groups)
    assert role.dataset.read(role.dataset.ids[0]).shape == (3, *role.subject.geometry.crop)
    with pytest.raises(BadInput, match="--data 'scenes' has no phrases for 'control:grounder-oracle'"):
        plan(tmp_path, model=["control:grounder-oracle"], data="scenes")
    with pytest.raises(BadInput, match=r"'no/such\.pth' does not exist"):
        plan(tmp_path, model=["mdetr:resnet101@no/such.pth"])


def test_a_factory_that_returns_a_grounder_is_asked_about_boxes(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GROUNDER, encoding="utf-8")
    (audited,) = plan(tmp_path, model=[f"py:{tmp_path / 'mine.py'}:corner"]).audited

    assert list(audited.roles) == ["boxes"]
    assert "runs code from mine.py" in audited.subject.unsafe[0]


GROUNDER = """
import torch

class Corner:
    def ground(self, image, caption, phrase):
        return torch.tensor([[0.0, 0.0, 9.0, 9.0]]), torch.ones(1)

def corner():
    return Corner()
"""


def test_the_level_does_not_depend_on_what_else_is_audited(tmp_path: Path) -> None:
    alone = classifier(plan(tmp_path, model=["control:clean"]))
    both = plan(tmp_path, model=["control:clean", "control:edge_map"])
    first, second = (one.roles["classes"] for one in both.audited)

    assert alone.terms == first.terms == second.terms
    assert alone.dataset.sha256 == first.dataset.sha256


def test_terms_come_from_the_policy_and_the_options(tmp_path: Path) -> None:
    terms = classifier(plan(tmp_path, profile="smoke", seed=5)).terms

    assert (terms.budget, terms.seed, terms.batch_size, terms.min_images) == (192, 5, 4, 16)


def test_a_model_of_the_users_says_that_it_runs_code(tmp_path: Path) -> None:
    subject = plan(tmp_path, model=[f"{factories(tmp_path)}convolutional"], data="scenes").audited[0].subject

    assert subject.name == "models.py-convolutional"
    assert re.fullmatch(r"runs code from models\.py \(sha256 [0-9a-f]{12}\)", *subject.unsafe)
    assert subject.target_layer is not None


def test_photographs_are_for_models_that_were_trained_on_them() -> None:
    assert default_data("resnet50", None) == "imagenette"
    assert default_data("resnet50", "random:0") == "scenes"
    assert default_data("control:clean", None) == "scenes"


def test_auto_is_some_device() -> None:
    assert resolve_device("auto") in ("cpu", "cuda", "mps")
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["gpu", "", "cpu:x", "meta", "cuda:99"])
def test_what_is_no_device_here_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(BadInput, match="pass cpu or auto") as raised:
        resolve_device(name)

    assert "\n" not in str(raised.value)


def test_a_method_is_tried_once_where_it_may_not_be_defined(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_rec: Recording) -> Tensor:
        raise Undefined("tiny has no such maps")

    monkeypatch.setitem(PARTIAL, "refusing", refuses)
    monkeypatch.setitem(PARTIAL, "defined", RECORDED["gradcam"])
    subject = tiny_subject(GapNet(), "relu")
    cams = {"refusing": refuses, "defined": RECORDED["gradcam"], "hirescam": RECORDED["hirescam"]}
    with metered() as cost:
        assert undefined_methods(subject, cams) == {"refusing": "tiny has no such maps"}
    assert cost.forwards == 1
    with metered() as cost:
        assert undefined_methods(subject, {"hirescam": RECORDED["hirescam"]}) == {}
    assert cost.forwards == 0
