"""Every audit, as a file: what it claims, what the policy says of it, and the columns that its measure gives."""

import tomllib
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

from audits.policy import SHIPPED
from audits.question import documentation
from camcore import with_target_layer
from camcore.cam import METHODS, RECORDED
from camcore.cost import metered
from camcore.images import Batch, load
from camcore.subject import Classifier
from camcore.wall import build_wall
from fixtures.controls.clean import clean_net
from fixtures.datasets.scenes import scenes

Clean = tuple[Classifier, Batch]
AUDITS = sorted(path.stem for path in Path(SHIPPED).parent.glob("test_*.py"))
CLAIMS = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))["claims"]


@pytest.fixture(params=AUDITS)
def audit(request: pytest.FixtureRequest) -> ModuleType:
    return import_module(f"audits.{request.param}")


def test_the_policy_and_the_audits_list_the_same_claims() -> None:
    asked = {question.name for name in AUDITS for question in import_module(f"audits.{name}").QUESTIONS}

    assert asked == set(CLAIMS)


def test_an_audit_documents_itself_in_the_house_format(audit: ModuleType) -> None:
    written = documentation(audit.__doc__ or "")

    assert all(len(text) > 10 for text in written.values())
    assert written["title"].endswith("?")


@pytest.mark.parametrize("name", CLAIMS)
def test_a_margin_has_a_source_and_a_severity_has_a_reason(name: str) -> None:
    claim = CLAIMS[name]

    assert len(claim["source"]) > 10
    assert claim["why"].startswith({"gate": "gates: ", "warn": "warns: ", "info": "informs: "}[claim["severity"]])


@pytest.fixture(scope="module")
def clean() -> Clean:
    subject = with_target_layer(clean_net())
    data = scenes(6, seed=11)
    return subject, load(data, data.ids, subject.geometry, seed=5, device=torch.device("cpu"))


def test_deletion_of_seven_methods_costs_one_recording_and_its_curves(clean: Clean) -> None:
    audit = import_module("audits.test_deletion")
    subject, batch = clean
    with metered() as cost:
        columns = audit.deletion(subject, batch, cams=RECORDED, draws=2)

    # per image: the recording, the blurred image, and for each of 7 methods, 2 draws, edges and centre two curves of
    # five steps, and one step with each of 4 other baselines
    assert cost.forwards == len(batch) * (1 + 1 + (2 * 5 + 4) * (7 + 2 + 1 + 1))
    assert cost.backwards == len(batch)
    assert all(column.shape == (len(batch),) for column in columns.values())


def test_deletion_of_an_image_does_not_depend_on_its_company(clean: Clean) -> None:
    audit = import_module("audits.test_deletion")
    subject, batch = clean
    together = audit.deletion(subject, batch, cams={"hirescam": RECORDED["hirescam"]}, draws=1)
    data = scenes(6, seed=11)
    alone = load(data, data.ids[3:4], subject.geometry, seed=5, device=torch.device("cpu"))
    single = audit.deletion(subject, alone, cams={"hirescam": RECORDED["hirescam"]}, draws=1)

    for name, column in single.items():
        torch.testing.assert_close(column[0], together[name][3], atol=1e-4, rtol=1e-4)


def test_noise_in_pixels_costs_no_more_than_noise_in_pixels(clean: Clean) -> None:
    """Scattered pixels cost more than blobs: beside a smooth random map, a map that says nothing came out well."""
    audit = import_module("audits.test_deletion")
    subject, _ = clean
    data = scenes(40, seed=12)
    batch = load(data, data.ids, subject.geometry, seed=5, device=torch.device("cpu"))
    noise = torch.rand(batch.images[:, 0].shape, generator=torch.Generator().manual_seed(0))
    cams = {"noise": lambda _rec: noise, "hirescam": RECORDED["hirescam"]}
    columns = audit.deletion(subject, batch, cams=cams, draws=2)

    gained = columns["noise:over_random:0.2"]
    assert abs(float(gained.nanmean())) < 3 * float(gained.std()) / len(gained) ** 0.5
    assert torch.equal(
        columns["noise:over_random:0.2"], columns["noise moved:deletion:0.2"] - columns["noise:deletion:0.2"]
    )
    assert torch.equal(
        columns["hirescam:over_random:0.2"], columns["random:deletion:0.2"] - columns["hirescam:deletion:0.2"]
    )
    assert "hirescam moved:deletion" not in columns


def test_a_method_that_marks_nothing_gives_nothing_to_judge(clean: Clean) -> None:
    audit = import_module("audits.test_deletion")
    subject, batch = clean
    nothing = {"nothing": lambda rec: -rec.activations.sum(1).abs()}
    columns = audit.deletion(subject, batch, cams=nothing, draws=1)

    assert columns["nothing:over_random:0.2"].isnan().all()
    assert not columns["random:deletion:0.2"].isnan().any()


def test_behind_the_wall_local_weights_are_exactly_zero_and_global_ones_leak(clean: Clean) -> None:
    audit = import_module("audits.test_wall")
    subject, batch = clean
    wall = build_wall(subject, batch.images[:2], seed=0)
    columns = audit.wall_leakage(subject, batch, cams=RECORDED, wall=wall)

    assert wall.dead_from is not None
    for name in ("hirescam", "layercam", "eigengradcam"):
        assert columns[f"{name}:leakage"].nan_to_num(0).eq(0).all(), name
        assert columns[f"{name}:cells"].nan_to_num(0).eq(0).all(), name
    assert columns["gradcam:leakage"].nanmean() > 0.1
    assert columns["hirescam:blank"].min() >= 1 - wall.kept_rows / wall.rows


def test_a_method_that_is_not_defined_behind_a_wall_has_no_columns_and_keeps_no_other_from_having_them(
    clean: Clean,
) -> None:
    audit = import_module("audits.test_wall")
    subject, batch = clean
    wall = build_wall(subject, batch.images[:2], seed=0)
    columns = audit.wall_leakage(subject, batch, cams={name: METHODS[name] for name in ("cam", "hirescam")}, wall=wall)

    assert {name.partition(":")[0] for name in columns} == {"hirescam"}


@pytest.mark.slow
def test_pixel_maps_are_exactly_zero_in_dead_pixels_and_unjudged_without(clean: Clean) -> None:
    audit = import_module("audits.test_wall")
    subject, batch = clean
    wall = build_wall(subject, batch.images[:2], seed=0)
    cams = {name: METHODS[name] for name in ("gradient", "integrated_gradients", "guided_backprop")}
    columns = audit.wall_leakage(subject, batch, cams=cams, wall=wall)
    unjudged = audit.wall_leakage(subject, batch, cams=cams, wall=replace(wall, dead_from=None))

    for name in cams:
        assert columns[f"{name}:leakage"].eq(0).all(), name
        assert unjudged[f"{name}:leakage"].isnan().all(), name


def test_where_every_map_is_empty_the_wall_says_so_and_shows_what_there_is(clean: Clean) -> None:
    audit = import_module("audits.test_wall")
    subject, batch = clean
    wall = build_wall(subject, batch.images[:2], seed=0)
    nothing = {"nothing": lambda rec: -rec.activations.sum(1).abs()}
    columns = audit.wall_leakage(subject, batch, cams=nothing, wall=wall)
    rows = {one: {key: float(column[index]) for key, column in columns.items()} for index, one in enumerate(batch.ids)}
    shown = list(audit.show(subject, batch, rows, name="nothing", cam=nothing["nothing"], wall=wall))

    assert ("empty maps", "6 of 6") in shown[-1].rows
    assert len(shown) == 7
