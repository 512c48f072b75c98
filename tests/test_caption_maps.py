"""Maps of captions: what is measured, against loops and closed forms; what is shown; towers set by hand."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from audits import test_caption_maps as audit
from audits.caption_contrasts import Contrast, of_groups, of_sides
from camcore.cam import METHODS
from camcore.cost import metered
from camcore.degeneracy import Degeneracy
from camcore.engine import Terms, evaluate
from camcore.errors import TooLong
from camcore.images import Batch, load
from camcore.imagetext import TwoTowers
from camcore.prompted import as_classifier, as_scorer, with_map
from camcore.recording import record
from camcore.verdict import Outcome, Overlay, Table
from fixtures.controls import hand_clip as by_hand
from fixtures.controls.binding_scorers import Said, read
from fixtures.datasets.binding_scenes import Bindings, binding_scenes
from fixtures.datasets.binding_sides import SIDED, side_by_side_scenes, sided_captions
from fixtures.datasets.binding_things import COLOURS
from fixtures.datasets.folder import decode
from fixtures.subjects.spec import find_image_text
from fixtures.vision_language.tiny_clip import save_tiny_clip, save_tiny_open_clip
from tests.measures import CLAIM

PHOTOGRAPHS = Path(__file__).parents[2] / "shared" / "data" / "binding"
COUNT = 5
HIRESCAM = {"hirescam": METHODS["hirescam"]}
BIASED = 3.0  # what random weights have beside, so that maps are of one sign in some places and of the other elsewhere


def at_random(caption: str) -> Tensor:
    weights = by_hand.drawn(caption, "test", 7 * by_hand.CELLS**2).view(7, by_hand.CELLS, by_hand.CELLS)
    return weights + BIASED * by_hand.binds(caption)


@pytest.fixture(scope="module")
def groups() -> Bindings:
    return binding_scenes(COUNT, seed=3, size=by_hand.SIDE)


@pytest.fixture(scope="module")
def beside() -> Bindings:
    return side_by_side_scenes(COUNT, seed=3, size=by_hand.SIDE)


def batch(bindings: Bindings, subject: TwoTowers, *chosen: int) -> Batch:
    data = bindings.first
    ids = [data.ids[index] for index in chosen or range(len(data))]
    return load(data, ids, subject.geometry, seed=0, device=torch.device("cpu"))


def box_of(bindings: Bindings, group: int, picture: int, colour: int) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = bindings.draw(bindings.groups[group])[1][picture, colour].int().tolist()
    return x0, y0, x1, y1


def map_by_hand(subject: TwoTowers, picture: Tensor, true: tuple[str, ...], false: tuple[str, ...] = ()) -> Tensor:
    """HiResCAM is linear in the score, so the mean over wordings of maps is the map of the mean: one at a time."""
    maps = []
    for one, other in zip(true, false or true, strict=True):
        asked = as_classifier(subject, [one, other] if false else [one])
        target = torch.zeros(1, dtype=torch.long)
        rec = record(asked, picture[None], target, against=target + 1 if false else None)
        maps.append(METHODS["hirescam"](rec)[0])
    cells = torch.stack(maps).mean(0)
    side = by_hand.SIDE
    return nn.functional.interpolate(cells[None, None], (side, side), mode="bilinear", align_corners=False)[0, 0]


def share(saliency: Tensor, box: tuple[int, int, int, int]) -> float:
    """The share of a map in a box, by a loop over its pixels."""
    x0, y0, x1, y1 = box
    inside = total = 0.0
    for row, values in enumerate(saliency.tolist()):
        for column, value in enumerate(values):
            total += value
            inside += value * (y0 <= row < y1 and x0 <= column < x1)
    return inside / total if total else 0.0


@pytest.mark.slow
def test_the_map_of_a_pair_is_measured_as_a_loop_over_pixels_has_it(groups: Bindings) -> None:
    subject = by_hand.hand_clip("random", at_random)
    found = audit.pairs(subject, batch(groups, subject), cams=HIRESCAM, bindings=groups)
    for index, group in enumerate(groups.groups):
        wanted = {"hirescam:energy": 0.0, "hirescam:over_area": 0.0, "hirescam:positive": 0.0, "right": 0.0}
        for picture, image in enumerate(groups.draw(group)[0]):
            true, false = group.captions[picture], group.captions[1 - picture]
            saliency = map_by_hand(subject, image, true, false)
            boxes = [box_of(groups, index, picture, colour) for colour in (0, 1)]
            named = torch.zeros_like(saliency)
            for x0, y0, x1, y1 in boxes:
                named[y0:y1, x0:x1] = 1  # boxes overlap where things stand in front of each other
            strength = saliency.abs()
            energy = float((strength * named).sum() / strength.sum())
            wanted["hirescam:energy"] += energy / 2
            wanted["hirescam:over_area"] += (energy - float(named.mean())) / 2
            wanted["hirescam:positive"] += float((saliency.relu() * named).sum() / saliency.relu().sum()) / 2
            scores = subject.similarity(image[None], [*true, *false])[0].unflatten(0, (2, -1)).mean(1)
            wanted["right"] += float(scores[0] > scores[1]) / 2
        for name, value in wanted.items():
            assert found[name][index].item() == pytest.approx(value, abs=1e-4), name


@pytest.mark.slow
def test_the_map_of_a_side_is_measured_as_a_loop_over_pixels_has_it(beside: Bindings) -> None:
    subject, side = by_hand.hand_clip("random", at_random), by_hand.SIDE
    found = audit.sides(subject, batch(beside, subject), cams=HIRESCAM, bindings=beside)
    for index, group in enumerate(beside.groups):
        wanted = {"side": 0.0, "object": 0.0, "half_mass": 0.0, "false_caption": 0.0, "false:half": 0.0}
        left, right = sided_captions(group, group.colours[0])
        for picture, image in enumerate(beside.draw(group)[0]):
            true, false = (left, right) if picture == 0 else (right, left)  # the first colour begins on the left
            saliency = map_by_hand(subject, image, true, false)
            named, other = (box_of(beside, index, picture, colour) for colour in (0, 1))
            halves = [(0, 0, side // 2, side), (side // 2, 0, side, side)]
            here, there = halves if picture == 0 else halves[::-1]
            strength = saliency.abs()
            signed = (saliency[:, here[0] : here[2]].sum() - saliency[:, there[0] : there[2]].sum()) / strength.sum()
            wanted["side"] += float(signed) / 2 / 2
            wanted["object"] += (share(strength, named) - share(strength, other)) / 2
            wanted["half_mass"] += share(saliency.relu(), here) / 2
            alone = [map_by_hand(subject, image, said).relu() for said in (true, false)]
            wanted["false_caption"] += (share(alone[0], named) - share(alone[1], named)) / 2
            wanted["false:half"] += share(alone[1], there) / 2
        for name, value in wanted.items():
            assert found[f"hirescam:{name}"][index].item() == pytest.approx(value, abs=1e-4), name


@pytest.mark.slow
def test_what_is_measured_does_not_depend_on_the_batch_and_costs_what_it_says(
    groups: Bindings, beside: Bindings
) -> None:
    subject = by_hand.hand_clip("random", at_random)
    for measure, bindings, per_group in ((audit.pairs, groups, 2), (audit.sides, beside, 6)):
        with metered() as cost:
            together = measure(subject, batch(bindings, subject), cams=HIRESCAM, bindings=bindings)
        assert (cost.forwards, cost.backwards) == (per_group * COUNT, per_group * COUNT)
        for index in (0, COUNT - 1):
            alone = measure(subject, batch(bindings, subject, index), cams=HIRESCAM, bindings=bindings)
            for name, column in alone.items():
                torch.testing.assert_close(column[0], together[name][index], msg=name, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@given(st.integers(0, 2**32), st.sampled_from([0, 1, 2]))
@settings(max_examples=10, deadline=None)
def test_a_map_that_ignores_the_picture_has_no_side_and_no_object(seed: int, index: int) -> None:
    subject = by_hand.hand_clip("binds", by_hand.binds)
    bindings = side_by_side_scenes(3, seed=5, size=by_hand.SIDE)
    cells = torch.rand(by_hand.CELLS, by_hand.CELLS, generator=torch.Generator().manual_seed(seed))
    fixed = {"fixed": lambda rec: cells.expand(len(rec.images), -1, -1)}
    found = audit.sides(subject, batch(bindings, subject, index), cams=fixed, bindings=bindings)
    for name in ("side", "object", "false_caption"):
        assert found[f"fixed:{name}"].item() == pytest.approx(0, abs=1e-5)
    assert found["fixed:half_mass"].item() == pytest.approx(0.5, abs=1e-5)


@pytest.mark.slow
def test_towers_that_bind_have_their_map_on_the_thing_and_its_mirror_image_beside_it(beside: Bindings) -> None:
    subject = by_hand.hand_clip("binds", by_hand.binds)
    cams = {**HIRESCAM, "mirrored": lambda rec: METHODS["hirescam"](rec).flip(-1)}
    found = audit.sides(subject, batch(beside, subject), cams=cams, bindings=beside)
    assert found["right"].eq(1).all()
    assert found["hirescam:side"].min() > 0.4  # of 0.5
    assert found["hirescam:object"].min() > 0.6
    assert found["hirescam:false:named"].max() < 0.1  # nothing that it names is where it says
    torch.testing.assert_close(found["mirrored:side"], -found["hirescam:side"])
    assert found["mirrored:object"].max() < 0


@pytest.mark.slow
def test_towers_without_places_or_colours_lose_what_they_leave_out_and_no_more(beside: Bindings) -> None:
    found = {
        meaning.__name__: audit.sides(subject, batch(beside, subject), cams=HIRESCAM, bindings=beside)
        for meaning in (by_hand.no_places, by_hand.no_colours)
        for subject in [by_hand.hand_clip("x", meaning)]
    }
    # the two pictures have the same colours and the contrast turned round: place by place the map is minus the other
    torch.testing.assert_close(found["no_places"]["hirescam:side"], torch.zeros(COUNT), atol=0.01, rtol=0)
    assert found["no_places"]["hirescam:false_caption"].abs().max() < 0.05
    assert found["no_colours"]["hirescam:side"].min() > 0.3
    assert found["no_colours"]["hirescam:object"].abs().max() < found["no_colours"]["hirescam:on_named"].min()


def test_a_false_caption_without_a_gradient_has_an_empty_map_and_not_an_error() -> None:
    def nothing(caption: str) -> Tensor:
        return torch.zeros(7, by_hand.CELLS, by_hand.CELLS)

    subject = replace(by_hand.hand_clip("binds", by_hand.binds), embed_text=by_hand.TextTower(nothing))
    bindings = side_by_side_scenes(1, seed=0, size=by_hand.SIDE)
    asked = of_sides(subject, bindings, batch(bindings, subject))
    maps = asked.alone(asked.false, HIRESCAM, chunk=8)
    assert not maps["hirescam"].any()
    assert maps["hirescam"].shape == asked.named.shape


def bag_of_letters() -> TwoTowers:
    """Towers that bind, with captions whose letters are sorted before they are read."""
    subject = by_hand.hand_clip("bag", by_hand.binds)
    read_sorted = by_hand.TextTower(by_hand.binds)
    return replace(
        subject, embed_text=lambda tokens: read_sorted({"letters": tokens["letters"].sort(1, descending=True).values})
    )


def test_captions_that_are_one_to_the_model_have_no_map_whatever_the_method(groups: Bindings) -> None:
    subject = bag_of_letters()
    cams = {name: METHODS[name] for name in ("gradcam", "hirescam", "scorecam", "eigencam")}
    found = audit.pairs(subject, batch(groups, subject, 0, 1), cams=cams, bindings=groups)

    assert not found["right"].any()
    for name in cams:
        assert found[f"{name}:degenerate"].tolist() == [Degeneracy.ZERO_GRADIENT] * 2
        assert found[f"{name}:over_area"].isnan().all()


@pytest.mark.slow
def test_a_bag_of_words_is_an_error_for_the_true_reason_and_not_told_to_choose_another_layer() -> None:
    subject, bindings = bag_of_letters(), binding_scenes(16, seed=3, size=by_hand.SIDE)
    shown = {"name": "hirescam", "cam": METHODS["hirescam"], "asked": of_groups, "single": False}
    for column in ("hirescam:over_area", "hirescam:over_centre"):
        verdict = evaluate(
            replace(CLAIM, bounds=(-1.0, 1.0)),
            partial(audit.pairs, cams=HIRESCAM, bindings=bindings),
            subject,
            bindings.first,
            column=column,
            terms=Terms(level=0.95, budget=16, seed=0, batch_size=8),
            journal={},
            show=partial(audit.show, cams=HIRESCAM, column=column, bindings=bindings, **shown),
        )
        assert verdict.outcome is Outcome.ERROR
        assert verdict.reason == (
            "degenerate: 16 of 16 images gave nothing to judge: 16 zero gradient at the target layer"
        )
        assert verdict.estimate.point == -1
        assert any(isinstance(one, Table) for one in verdict.evidence)


def test_a_caption_of_more_letters_than_are_read_is_too_long() -> None:
    with pytest.raises(TooLong, match=r"has 130 letters, the model reads 120; shorten it"):
        by_hand.letters(["a" * 130])


def test_a_contrast_knows_which_caption_is_true_and_where_the_thing_is(groups: Bindings, beside: Bindings) -> None:
    subject = by_hand.hand_clip("binds", by_hand.binds)
    asked: Contrast = of_sides(subject, beside, batch(beside, subject, 1))
    group = beside.groups[1]
    left, right = sided_captions(group, group.colours[0])
    assert [asked.scorer.classes[one] for one in asked.true] == [left[0], right[0]]
    assert [asked.scorer.classes[one] for one in asked.false] == [right[0], left[0]]
    width = by_hand.SIDE
    assert asked.half[0, :, : width // 2].eq(1).all()
    torch.testing.assert_close(asked.half[0] + asked.half[1], torch.ones(width, width))
    assert ((asked.named * asked.half).sum((1, 2)) == asked.named.sum((1, 2))).all()  # the thing is wholly in its half
    assert (asked.other * asked.half).sum() == 0
    pair = of_groups(subject, groups, batch(groups, subject, 0))
    assert [pair.scorer.classes[one] for one in pair.true] == [one[0] for one in groups.groups[0].captions]
    assert [pair.scorer.classes[one] for one in pair.false] == [one[0] for one in groups.groups[0].captions[::-1]]


@pytest.mark.slow
def test_the_two_signs_of_a_contrast_are_shown_side_by_side_on_one_scale(beside: Bindings) -> None:
    subject = by_hand.hand_clip("random", at_random)
    some = batch(beside, subject)
    columns = audit.sides(subject, some, cams=HIRESCAM, bindings=beside)
    rows = {one: {key: float(column[at]) for key, column in columns.items()} for at, one in enumerate(some.ids)}
    make = partial(
        audit.show, subject, some, rows, name="hirescam", cam=METHODS["hirescam"], cams=HIRESCAM, asked=of_sides
    )
    shown = list(make(column="hirescam:side", single=False, bindings=beside))
    pictures = [one for one in shown if isinstance(one, Overlay)]
    assert len(pictures) == 2 * COUNT
    group = beside.groups[0]
    left, right = sided_captions(group, group.colours[0])
    assert pictures[0].caption.startswith(f"what speaks for '{left[0]}' (true, ")
    assert pictures[1].caption.startswith(f"what speaks for '{right[0]}' (false, ")
    assert pictures[1].caption.endswith("on the same scale")
    saliency = map_by_hand(subject, beside.draw(group)[0][0], left, right)
    for one, sign in zip(pictures[:2], (1, -1), strict=True):
        assert one.saliency is not None
        torch.testing.assert_close(one.saliency, (sign * saliency).relu() / saliency.abs().max(), atol=1e-4, rtol=1e-3)
    (table,) = (one for one in shown if isinstance(one, Table))
    assert [row[0] for row in table.rows] == ["hirescam"]
    assert dict(zip(table.columns, table.rows[0], strict=True))["side"] == pytest.approx(
        columns["hirescam:side"].mean().item(), abs=1e-3
    )
    alone = list(make(column="hirescam:false_caption", single=True, bindings=beside))
    assert isinstance(alone[1], Overlay)
    expected = map_by_hand(subject, beside.draw(group)[0][0], right).relu()
    other = map_by_hand(subject, beside.draw(group)[0][0], left).relu()
    assert alone[1].saliency is not None
    top = max(expected.max(), other.max())
    torch.testing.assert_close(alone[1].saliency, expected / top, atol=1e-4, rtol=1e-3)


def test_captions_of_one_thing_are_read_and_all_have_embeddings_of_their_own() -> None:
    for group in side_by_side_scenes(12, seed=1, size=48).groups:
        for colour in group.colours:
            for side, said in zip(("left", "right"), sided_captions(group, colour), strict=True):
                assert [by_hand.side_of(caption) for caption in said] == [(colour, side)] * len(SIDED)
                assert [read(caption) for caption in said] == [None] * len(SIDED)
        for said, (first, second) in zip(group.captions, (group.colours, group.colours[::-1]), strict=True):
            assert read(said[0]) == Said("left", first, second)
    subject = by_hand.hand_clip("binds", by_hand.binds)
    captions = [
        words.format(a=f"a {colour} mug", side=side)
        for words in SIDED
        for colour in COLOURS
        for side in ("left", "right")
    ]
    embedded = subject.embed_captions(captions)  # refuses captions with the same embedding
    assert embedded.shape == (len(captions), 7 * by_hand.CELLS**2 + 1 + by_hand.APART)


def test_a_thing_stands_wholly_on_the_side_that_is_said() -> None:
    bindings = side_by_side_scenes(8, seed=9, size=64)
    for group in bindings.groups:
        boxes = bindings.draw(group)[1]
        assert boxes[0, 0, 2] <= 32
        assert boxes[1, 0, 0] >= 32
        torch.testing.assert_close(boxes[0, 0], boxes[1, 1])  # the colours change places, and nothing else does
        torch.testing.assert_close(boxes[0, 1], boxes[1, 0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "siglip", "open_clip"])
def test_any_two_towers_are_asked_at_the_layer_that_is_read(kind: str, tmp_path: Path) -> None:
    if kind == "open_clip":
        pytest.importorskip("open_clip")
        spec = f"open_clip:{save_tiny_open_clip(tmp_path / 'resnet')}"
    else:
        pytest.importorskip("transformers")
        spec = f"hf:{save_tiny_clip(tmp_path / 'clip', kind=kind)}"
    subject = with_map(find_image_text(spec))
    bindings = side_by_side_scenes(2, seed=0, size=max(subject.geometry.crop))
    cams = {name: METHODS[name] for name in ("gradcam", "hirescam", "layercam")}
    for measure in (audit.pairs, audit.sides):
        found = measure(subject, batch(bindings, subject), cams=cams, bindings=bindings)
        assert all(column.isfinite().all() for name, column in found.items() if name.startswith("hirescam"))
        for name in ("hirescam:energy", "hirescam:on_named"):
            assert name not in found or ((found[name] > 0) & (found[name] < 1)).all()


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOGRAPHS.exists(), reason="the shared folder with photographs is not here")
def test_photographs_of_things_on_either_side_have_maps_whatever_their_size(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    subject = with_map(find_image_text(f"hf:{save_tiny_clip(tmp_path / 'clip')}"))
    files = [PHOTOGRAPHS / f"whatsup_b_mug_{side}_of_plate.jpg" for side in ("left", "right")]
    images = torch.stack([subject.geometry.fit(decode(file.read_bytes())) for file in files])
    scorer = as_scorer(
        subject, [[f"a mug to the {side} of a plate", f"a mug on a plate's {side}"] for side in ("left", "right")]
    )
    target = torch.tensor([0, 1])
    there, back = (record(scorer, images, one, against=1 - one) for one in (target, 1 - target))
    found = METHODS["hirescam"](there)
    assert found.flatten(1).abs().amax(1).min() > 0
    torch.testing.assert_close(found, -METHODS["hirescam"](back))
