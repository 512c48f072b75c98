"""The audit of grounding: what is measured of a group, what it costs, what is shown, and what the finders leave out."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audits import test_grounding as audit
from audits.grounding_shown import show
from audits.policy import SHIPPED, load_policy
from camcore.cost import metered
from camcore.engine import Terms, evaluate
from camcore.grounding import BoxFinder
from camcore.images import Batch, load
from camcore.seeds import generator
from camcore.subject import Grounder
from camcore.verdict import Outcome, Overlay, Table
from fixtures.controls import CONTROLS, find_control
from fixtures.controls import grounding_finders as finders
from fixtures.datasets.grounding_scenes import FAMILIES, MIRROR, GroundingScenes, grounding_scenes
from fixtures.subjects.spec import find_grounder
from tests.oracles import grounding as oracle
from tests.running import overlay, run

COUNT, QUERIES = 6, 22


@pytest.fixture(scope="module")
def scenes() -> GroundingScenes:
    return grounding_scenes(COUNT, seed=21, size=finders.SIDE)


def batch(scenes: GroundingScenes, *chosen: int) -> Batch:
    data = scenes.first
    ids = [data.ids[index] for index in chosen or range(COUNT)]
    return load(data, ids, finders.finder("x", finders.oracle).geometry, seed=0, device=torch.device("cpu"))


def measured(find: finders.Find, scenes: GroundingScenes, *chosen: int) -> dict[str, Tensor]:
    return audit.grounding(finders.finder("x", find), batch(scenes, *chosen), scenes=scenes)


def verdict(subject: BoxFinder, question: audit.Question, scenes: GroundingScenes, journal: dict) -> Outcome:
    policy = load_policy(None, profile="smoke")
    found = evaluate(
        question.claim("", policy.claims[question.name]),
        lambda model, some: audit.grounding(model, some, scenes=scenes),
        subject,
        scenes.first,
        column=question.name.partition("/")[2],
        terms=Terms(level=0.95, budget=len(scenes.groups), seed=0, batch_size=8),
        journal=journal,
    )
    assert found.outcome != Outcome.ERROR, found.reason
    return found.outcome


def test_what_is_measured_of_a_group_does_not_depend_on_its_batch_and_costs_a_forward_for_each_query(
    scenes: GroundingScenes,
) -> None:
    subject = finders.finder("oracle", finders.oracle)
    assert isinstance(subject, Grounder)
    with metered() as cost:
        together = audit.grounding(subject, batch(scenes), scenes=scenes)

    assert (cost.forwards, cost.backwards) == (QUERIES * COUNT, 0)
    for index in range(0, COUNT, 2):
        alone = audit.grounding(subject, batch(scenes, index), scenes=scenes)
        for name, column in alone.items():
            torch.testing.assert_close(column[0], together[name][index], msg=name)
    for question in audit.QUESTIONS:
        assert (
            (together[question.name.partition("/")[2]] >= 0) & (together[question.name.partition("/")[2]] <= 1)
        ).all()


def test_every_measure_is_what_going_through_the_queries_gives(scenes: GroundingScenes) -> None:
    draws, width = generator(0, "answers"), float(finders.SIDE)
    for trial in range(8):
        group = scenes.groups[trial % COUNT]
        queries = scenes.queries(group)
        views = [replace(one, boxes=one.boxes.round()) for one in scenes.views(group)]
        # near a thing, or anywhere: whole pixels, so that the slow one can count them
        near = [views[one.picture].boxes for one in queries]
        chosen = torch.stack([boxes[torch.randint(len(boxes), (), generator=draws)] for boxes in near])
        corners = torch.randint(0, finders.SIDE, (QUERIES, 2, 2), generator=draws).sort(1).values
        anywhere = corners.flatten(1).float() + torch.tensor([0.0, 0.0, 1.0, 1.0])
        jittered = chosen + torch.randint(-2, 3, (QUERIES, 4), generator=draws)
        boxes = torch.where(torch.rand(QUERIES, 1, generator=draws) < 0.7, jittered, anywhere).clamp(0, width)
        scores = torch.randint(0, 3, (QUERIES,), generator=draws).double()

        found = audit.answers(queries, views, boxes.double(), scores)
        expected = oracle.shares(
            [(one.family, one.picture, one.meant, one.said, one.beside) for one in queries],
            [[(thing.colour, thing.kind) for thing in one.things] for one in views],
            [one.boxes.tolist() for one in views],
            boxes.tolist(),
            scores.tolist(),
            width,
        )
        assert found.keys() == expected.keys()
        for name, value in found.items():
            assert value.item() == pytest.approx(expected[name]), name


def test_the_oracle_is_right_and_the_others_are_as_their_defect_has_it(scenes: GroundingScenes) -> None:
    right = measured(finders.oracle, scenes)
    for name in ("sides", "relations", "finds", *FAMILIES, "verdict:true", "verdict:false", "confidence", "mirror"):
        assert (right[name] == 1).all(), name
    assert right["mirror:error"].max() < 0.05
    swapped = measured(finders.sides_swapped, scenes)
    assert not torch.cat([swapped[name] for name in ("sides", "relations", "confidence")]).any()
    assert (swapped["mirror"] == 1).all()  # it is wrong, and consistent
    assert (swapped["F4:turned"] == 1).all()
    blind = measured(finders.colour_only, scenes)
    for name in ("sides", "relations", "F4:turned"):
        assert (blind[name] == 0.5).all(), name
    # who reads no side is always right about who says what: verdicts are no test of sides
    for name in ("finds", "verdict:true", "verdict:false"):
        assert (blind[name] == 1).all(), name
    assert (blind["confidence"] == 0).all()
    fixed = measured(finders.fixed_boxes, scenes)  # the caption's words score its boxes, as one bag
    assert (fixed["finds"] == 1).all()
    assert (fixed["sides"] == 0.5).all()
    assert not fixed["relations"].any()  # the only colour in the caption is that of the thing beside it
    assert (fixed["F4:anchor"] == 1).all()
    first = measured(finders.first_box, scenes)
    for name, share in {"sides": 0.5, "relations": 0.25, "finds": 0.25, "verdict:true": 0.5, "mirror": 0.0}.items():
        assert (first[name] == share).all(), name


def test_whoever_leaves_out_a_word_is_right_in_half_of_what_takes_it(scenes: GroundingScenes) -> None:
    for find, shares in {
        finders.sides_only: {
            "sides": 1.0,
            "relations": 0.5,
            "F4:far": 0.5,
            "finds": 0.25,
            "F0:colour": 0.5,
            "F0:kind": 0.5,
        },
        finders.no_anchor: {"sides": 1.0, "relations": 0.5, "F4:far": 0.5, "finds": 1.0},
        finders.no_colours: {"sides": 1.0, "relations": 0.5, "finds": 0.5, "F0:colour": 0.5, "F0:kind": 1.0},
        finders.no_kinds: {"sides": 1.0, "relations": 1.0, "finds": 0.5, "F0:colour": 1.0, "F0:kind": 0.5},
    }.items():
        found = measured(find, scenes)
        for name, share in shares.items():
            assert (found[name] == share).all(), (find, name)


def test_without_a_box_everything_is_wrong_and_nothing_breaks(scenes: GroundingScenes) -> None:
    found = measured(lambda image, caption, phrase: (torch.zeros(0, 4), torch.zeros(0)), scenes, 0)

    for name in ("sides", "relations", "finds", "confidence", "mirror", "verdict:false"):
        assert (found[name] == 0).all(), name
    assert (found["F0:none"] == 1).all()
    assert found["mirror:error"].isnan().all()
    rows = {one: {key: float(column[0]) for key, column in found.items()} for one in batch(scenes, 0).ids}
    shown = list(show(finders.finder("x", finders.oracle), batch(scenes, 0), rows, **asked("sides", scenes)))
    assert all("no box" in one.caption for one in shown if isinstance(one, Overlay))


def test_boxes_far_off_the_picture_are_wrong_and_their_error_is_bounded(scenes: GroundingScenes) -> None:
    found = measured(lambda image, caption, phrase: (torch.tensor([[9e3, 0, 1e4, 10]]), torch.ones(1)), scenes, 0)

    assert (found["mirror:error"] == 1).all()
    assert (found["sides"] == 0).all()


def asked(column: str, scenes: GroundingScenes) -> dict:
    return {"column": column, "families": audit.BESIDE[column], "scenes": scenes}


def test_what_is_shown_is_the_claims_queries_and_a_false_caption_with_both_boxes(scenes: GroundingScenes) -> None:
    subject, some = finders.finder("blind", finders.colour_only), batch(scenes)
    columns = audit.grounding(subject, some, scenes=scenes)
    rows = {one: {key: float(column[at]) for key, column in columns.items()} for at, one in enumerate(some.ids)}
    with metered() as cost:
        shown = list(show(subject, some, rows, **asked("sides", scenes)))

    assert cost.forwards == 0  # the boxes were kept
    pictures = [one for one in shown if isinstance(one, Overlay)]
    assert len(pictures) == 3 * COUNT
    queries, views = scenes.queries(scenes.groups[0]), scenes.views(scenes.groups[0])
    sought = [one for one in queries if one.family == "F3" and one.picture != MIRROR][:2]
    for one, query in zip(pictures, sought, strict=False):
        assert one.caption.startswith(f"“{query.caption}”")
    told = {words for one in pictures[:2] for words in ("what is meant", "another thing") if words in one.caption}
    assert told == {"what is meant", "another thing"}
    assert "the caption is false" in pictures[2].caption
    magenta = (pictures[0].image == torch.tensor([1.0, 0.0, 1.0])[:, None, None]).all(0)
    larger = pictures[0].image.shape[1] // finders.SIDE
    rows_of, columns_of = magenta.nonzero().T / larger
    box = [rows[some.ids[0]][f"box:{queries.index(sought[0])}:{edge}"] for edge in range(4)]
    assert (columns_of.min(), rows_of.min()) == pytest.approx(tuple(box[:2]), abs=2)
    assert (columns_of.max(), rows_of.max()) == pytest.approx(tuple(box[2:]), abs=2)
    assert not magenta.all()
    assert len(views[0].picture) == 3


def test_the_tables_have_every_family_and_every_measure(scenes: GroundingScenes) -> None:
    subject, some = finders.finder("blind", finders.colour_only), batch(scenes)
    columns = audit.grounding(subject, some, scenes=scenes)
    rows = {one: {key: float(column[at]) for key, column in columns.items()} for at, one in enumerate(some.ids)}
    families, others = (one for one in show(subject, some, rows, **asked("finds", scenes)) if isinstance(one, Table))
    assert [line[2] for line in families.rows] == [4, 4, 4, 4, 4]
    assert [str(line[3])[:4] for line in families.rows] == ["1.00", "1.00", "1.00", "0.50", "0.50"]
    found = {str(line[0]): str(line[1]) for line in others.rows}
    assert found["area under the curve of true against false"] == "0.50"
    assert all(len(line) == len(others.columns) for line in others.rows)


@pytest.mark.parametrize("name", [name for name, made in CONTROLS.items() if made.scores == "boxes"])
@pytest.mark.slow
def test_controls_reach_their_verdicts(name: str) -> None:
    scenes, control, journal = grounding_scenes(32, seed=3, size=finders.SIDE), CONTROLS[name], {}
    for question in audit.QUESTIONS:
        assert verdict(find_control(name), question, scenes, journal) == control.wanted(question.name)


@pytest.mark.slow
@pytest.mark.filterwarnings("default:.*:DeprecationWarning")
def test_an_mdetr_with_random_weights_goes_through_and_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from fixtures.subjects import mdetr
    from fixtures.vision_language.tiny_grounders import save_tiny_mdetr

    monkeypatch.setattr(mdetr, "SIDE", 48)
    monkeypatch.setattr(mdetr, "SHORTER", 48)  # a forward at 800 pixels takes half a second
    file = save_tiny_mdetr(tmp_path / "mdetr")
    subject = find_grounder(f"mdetr:resnet18@{file}")
    scenes, journal = grounding_scenes(16, seed=0, size=48), {}
    for question in audit.QUESTIONS:
        assert verdict(subject, question, scenes, journal) == Outcome.FAIL
    file.unlink()  # 90 MB, and pytest keeps the folders of three runs


@pytest.mark.slow
def test_the_command_asks_a_model_from_a_folder_and_says_which(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from fixtures.vision_language.tiny_grounders import save_tiny_grounder

    folder = save_tiny_grounder(tmp_path / "tiny", kind="owlv2")
    policy = overlay(tmp_path, "[profiles.smoke]\nimages = 1\n")
    options = ("--audit-profile", "smoke", "--audit-policy", policy, "-k", "test_grounding")
    done = run(tmp_path / "report", "--model", f"hf:{folder}", *options)

    assert done.code == 6, done.output  # one group decides nothing
    (subject,) = done.results["subjects"]
    assert subject["weights"] == "folder tiny"
    assert (subject["kind"], subject["arch"]) == ("phrases in boxes", "Owlv2ForObjectDetection")
    grounding = [claim for claim in done.results["claims"] if claim["audit"] == "grounding"]
    assert [claim["verdict"] for claim in grounding] == ["INCONCLUSIVE"] * 3
    assert [claim["cost"]["forwards"] for claim in grounding] == [QUERIES] * 3
    assert done.results["data"][0]["spec"] == "grounding scenes"


def test_margins_are_half_way_from_the_best_that_leaves_out_a_word_to_always() -> None:
    policy = load_policy(SHIPPED, profile="smoke")
    assert {policy.claims[question.name].margin for question in audit.QUESTIONS} == {0.75}
    assert [policy.claims[question.name].severity for question in audit.QUESTIONS] == ["gate"] * 3
    assert replace(audit.SIDES).needs == "boxes"
