"""`camcore.testing.audit_model`: the same verdicts as the command gives, on whatever model is in hand."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from audits import parametrize
from audits.in_hand import How
from audits.in_process import begin
from camcore import BadInput, Geometry, Normalise, Recording
from camcore.cam import METHODS
from camcore.subject import Classifier
from camcore.testing import audit_model, parametrize_with_audits
from fixtures.subjects.weights import seeded
from reports.schema import Claim, Results, load
from tests.running import factories, overlay, run
from tests.tiny import GapNet, numbered_dataset, tiny_subject

FEW = "[profiles.smoke]\nimages = 24\n"


class Net(nn.Module):
    """Odd in all that must be left as it was: a mode of its own in one part, dropout, a frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.BatchNorm2d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, 4)
        self.features[2].eval()
        self.head.bias.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean((2, 3)))


def net() -> Net:
    with seeded(0):
        return Net()


def pictures(n: int = 24) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 3, 24, 24, generator=torch.Generator().manual_seed(1)), torch.arange(n) % 4


def audited(model: Any, **how: Any) -> Results:
    given = {"data": pictures(), "profile": "smoke", "batch_size": 8, "audits": ["invariance"], **how}
    return audit_model(model, **given)


@pytest.mark.slow
def test_the_verdicts_are_those_of_the_command(tmp_path: Path) -> None:
    spec, policy = factories(tmp_path), overlay(tmp_path, FEW)
    chosen = (
        "--audit-profile",
        "smoke",
        "--audit-policy",
        policy,
        "--audit-seed",
        "3",
        "-k",
        "test_wall or test_deletion",
    )
    theirs = load(run(tmp_path / "report", "--model", f"{spec}convolutional", *chosen).report / "results.json")
    namespace: dict[str, Any] = {}
    exec((tmp_path / "models.py").read_text(encoding="utf-8"), namespace)
    with seeded(0):
        model = namespace["convolutional"]()

    ours = audit_model(
        model,
        data="scenes",
        normalise=Normalise(),
        profile="smoke",
        policy=policy,
        seed=3,
        batch_size=8,
        audits=["deletion", "wall"],
        name="models.py-convolutional",
    )

    assert [claim.id for claim in ours.claims] == [claim.id for claim in theirs.claims]
    assert len(ours.claims) == 8
    for one, other in zip(ours.claims, theirs.claims, strict=True):
        for field in ("verdict", "reason", "units", "gates", "margin", "node_id", "controls"):
            assert getattr(one, field) == getattr(other, field)
        assert one.values == pytest.approx(other.values, rel=1e-5, abs=1e-6)
        assert numbers(one) == pytest.approx(numbers(other), abs=1e-6)
    assert {claim.verdict for claim in ours.claims} > {"NOT_APPLICABLE"}
    assert (ours.verdict, ours.exit_code, ours.run.family) == (theirs.verdict, theirs.exit_code, theirs.run.family)
    assert (ours.subjects[0].sha256, ours.data) == (theirs.subjects[0].sha256, theirs.data)


def numbers(claim: Claim) -> list[float]:
    """Of the verdict: empty where nothing was measured."""
    found = claim.estimate
    return [] if found is None else [found.point, found.low, found.high, found.level, found.n, claim.p_holm or -1]


@pytest.mark.slow
def test_model_and_process_are_left_as_they_were() -> None:
    model = net()
    model.train()
    model.features[2].eval()
    before = {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [part.training for part in model.modules()],
        "grads": [parameter.grad for parameter in model.parameters()],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()],
        "frozen": [parameter.requires_grad for parameter in model.parameters()],
        "path": list(sys.path),
    }
    # `random` is drawn from by the checks of types that are made in CI; lint refuses it in our own code
    drawn = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002

    results = audited(model, normalise="inside")

    assert {claim.verdict for claim in results.claims} <= {"PASS", "FAIL", "INCONCLUSIVE", "NOT_APPLICABLE"}
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before["weights"].items())
    assert [part.training for part in model.modules()] == before["modes"]
    assert [parameter.grad for parameter in model.parameters()] == before["grads"]
    assert [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()] == before["hooks"]
    assert [parameter.requires_grad for parameter in model.parameters()] == before["frozen"]
    assert sys.path == before["path"]
    assert torch.equal(torch.random.get_rng_state(), drawn[0])
    assert np.random.get_state()[1].tolist() == drawn[1]  # noqa: NPY002


@pytest.mark.slow
def test_a_folder_is_written_if_one_is_named_and_claims_are_told_as_they_come(tmp_path: Path) -> None:
    told: list[Claim] = []
    steps: list[tuple[str, int, int]] = []

    results = audited(
        net(),
        normalise="inside",
        name="my <net>",
        report=tmp_path / "report",
        on_claim=told.append,
        on_progress=lambda *step: steps.append(step),
    )

    assert load(tmp_path / "report" / "results.json") == results
    assert "my-net" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert sorted(claim.id for claim in told) == sorted(claim.id for claim in results.claims)
    assert {step[0] for step in steps} <= {claim.node_id for claim in results.claims}
    assert steps
    assert all(0 < done <= planned for _, done, planned in steps)
    assert results.claims[0].rerun == results.run.command
    assert (results.verdict, results.exit_code) in (("INCONCLUSIVE", 6), ("FAIL", 1))
    assert any(line.startswith("deletion/beats_random[hirescam] on my-net") for line in results.not_tested)


@pytest.mark.slow
def test_what_stops_an_audit_costs_nothing_that_was_measured(tmp_path: Path) -> None:
    def stop(claim: Claim) -> None:
        raise LookupError(claim.id)

    with pytest.raises(LookupError):
        audited(net(), normalise="inside", report=tmp_path, on_claim=stop)

    results = load(tmp_path / "results.json")
    assert results.run.interrupted
    assert len(results.claims) == 1
    assert results.exit_code == 2


@pytest.mark.slow
def test_maps_of_the_callers_own_are_judged() -> None:
    def upside_down(recording: Recording) -> Tensor:
        return METHODS["hirescam"](recording).flip(-2)

    results = audited(tiny_subject(GapNet(), "conv2"), data=sixteen(), cams={"upside_down": upside_down})

    assert {claim.id.partition("[")[2] for claim in results.claims} == {"upside_down]"}


def sixteen() -> tuple[Tensor, Tensor]:
    size = tiny_subject(GapNet(), "conv2").geometry.crop
    return torch.rand(16, 3, *size, generator=torch.Generator().manual_seed(1)), torch.zeros(16, dtype=torch.long)


def subject() -> Classifier:
    return tiny_subject(GapNet(), "conv2")


def with_nan() -> nn.Module:
    broken = net()
    broken.head.weight.data[0, 0] = math.nan
    return broken


@pytest.mark.parametrize(
    ("model", "how", "said"),
    [
        (net, {}, "say how the model is fed"),
        (net, {"normalise": "imagenet"}, "got 'imagenet'"),
        (net, {"normalise": "inside", "data": None}, "say what the model is shown"),
        (net, {"normalise": "inside", "data": (torch.rand(4, 3, 24, 24) - 1, [0] * 4)}, "images must be in [0, 1]"),
        (net, {"normalise": "inside", "data": (torch.rand(4, 24, 24), [0] * 4)}, "shape (n, 3, height, width)"),
        (net, {"normalise": "inside", "data": (torch.rand(4, 3, 24, 24), [0] * 3)}, "labels must be 4 class indices"),
        (net, {"normalise": "inside", "data": (torch.rand(4, 3, 24, 24), [0, 1, 2, 9])}, "labels up to 9"),
        (net, {"normalise": "inside", "data": (torch.rand(0, 3, 24, 24), [])}, "there are no images"),
        (net, {"normalise": "inside", "data": replace(numbered_dataset(4), ids=(), labels=())}, "holds no pictures"),
        (net, {"normalise": "inside", "data": "no/such/folder"}, "neither a folder nor a known set"),
        (net, {"normalise": "inside", "classes": ["one"]}, "1 names in its classes, but gives 4 scores"),
        (net, {"normalise": "inside", "geometry": Geometry(crop=(2, 2))}, "does not run on one 2x2 image"),
        (net, {"normalise": "inside", "audits": ["deletions"]}, "did you mean 'deletion'?"),
        (net, {"normalise": "inside", "audits": "deletion"}, "write ['deletion']"),
        (net, {"normalise": "inside", "cams": "gradcam"}, "write ['gradcam']"),
        (net, {"normalise": "inside", "cams": ["grad_cam"]}, "gradcam"),
        (net, {"normalise": "inside", "cams": {"a b": len}}, "got 'a b'"),
        (net, {"normalise": "inside", "profile": "quick"}, "no profile 'quick'"),
        (net, {"normalise": "inside", "policy": "no.toml"}, "no policy file 'no.toml'"),
        (net, {"normalise": "inside", "device": "tpu9"}, "'tpu9' cannot be used here"),
        (net, {"normalise": "inside", "layer": "layer9"}, "layer9"),
        (net, {"normalise": "inside", "resume": True}, "name it with report="),
        (net, {"normalise": "inside", "plugins": [math]}, "pytest_audit_register"),
        (with_nan, {"normalise": "inside"}, "NaN"),
        (subject, {"classes": ["a"]}, "classes is for a torch.nn.Module"),
        (lambda: "control:cleen", {"data": None}, "did you mean"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(model: Callable[[], Any], how: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        audited(model(), **how)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("models", "how", "said"),
    [
        ([], {}, "models must be a list"),
        ("resnet50", {}, "models must be a list"),
        (["control:clean"], {"audits": ["dletion"]}, "did you mean 'deletion'?"),
        (["control:clean"], {"expected_failures": {"deletion/beats_edge[hirescam]": "why"}}, "did you mean"),
        (["control:clean"], {"expected_failures": {"deletion/beats_edges[*]": " "}}, "say why"),
        (["control:clean"], {"cams": ["nope"]}, "nope"),
    ],
)
def test_a_decorator_refuses_what_it_cannot_ask(models: Any, how: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        parametrize_with_audits(models, **how)

    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        (net, 7, "data must be as --data takes it, a camcore Dataset or (images, labels), got int"),
        (net, (pictures()[0],), "(images, labels), got tuple"),
        (lambda: 3, pictures(), "a subject of camcore or a spec as --model takes, got int"),
    ],
)
def test_what_is_of_the_wrong_type_is_said_in_one_line(
    model: Callable[[], Any], data: Any, said: str, tmp_path: Path
) -> None:
    """Asked behind `audit_model`, which hands on what it is given: where types are checked, they refuse it before."""
    with pytest.raises(BadInput) as refused:
        begin(model(), How(data=data, normalise="inside"), report=tmp_path, main=False)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_decorator_refuses_a_model_that_stands_alone() -> None:
    with pytest.raises(BadInput, match=r"^models must be a list .* got Linear"):  # behind the door, as above
        parametrize.parametrize_with_audits(nn.Linear(2, 2))


def test_each_claim_of_each_model_is_a_test_with_a_plain_name() -> None:
    made = {"a/b: c": net(), "again": net}
    found = parametrize_with_audits(made, audits=["deletion", "cues"], cams=["hirescam", "gradcam"])
    names, cases = found.args

    assert names == ("model", "claim")
    assert len(cases) == 2 * (5 * 2 + 2)
    ids = [case.id for case in cases]
    assert len(set(ids)) == len(ids)
    assert ids[0] == "a-b-c-deletion-beats_random-hirescam"
    assert all(set("[]/: ").isdisjoint(name) for name in ids)
    assert [case.values[0] for case in cases[:12]] == [made["a/b: c"]] * 12


def test_a_subject_without_a_spec_is_asked_under_its_name() -> None:
    from audits.in_hand import spec_of

    assert spec_of(replace(subject(), spec="")) == f"subject:{subject().name}"
