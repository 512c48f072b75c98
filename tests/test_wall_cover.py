"""Walls before the target layer: certified, refused where they leak, and judged by what changes with the picture."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from audits.test_wall import behind_cover
from camcore.cam import METHODS
from camcore.cost import metered
from camcore.errors import Undefined
from camcore.images import Batch
from camcore.maps import rectify
from camcore.prompted import as_classifier
from camcore.recording import features, record
from camcore.subject import Classifier
from camcore.wall import WallLeaks
from camcore.wall_cover import Cover, cover_input, cover_layer
from camcore.wall_zone import SIDES, Side, before
from fixtures.subjects.spec import find_any
from fixtures.vision_language.tiny_clip import save_tiny_clip
from tests.tiny import CLASSES, GapNet, TokenNet, some_images, tiny_subject


class DeepNet(nn.Module):
    """Two halvings and a head that is not linear; each convolution has a bias, so that grey has features too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.mix = nn.Conv2d(6, 8, 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.conv2(self.conv1(images).relu()))
        return self.head(self.mix(features).relu().mean((2, 3)))


def deep() -> Classifier:
    return tiny_subject(DeepNet(), "relu", size=32)


def batch_of(images: Tensor) -> Batch:
    labels = torch.zeros(len(images), dtype=torch.long)
    return Batch(images=images, labels=labels, ids=tuple(map(str, range(len(images)))), seed=0, chunk=4)


@pytest.mark.slow
@settings(max_examples=8)
@given(side=st.sampled_from(SIDES), rows=st.integers(8, 28), fill=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_covered_picture_shows_nothing_of_what_is_under_the_cover(side: Side, rows: int, fill: float) -> None:
    subject, images = deep(), some_images(2, size=32)
    cover = cover_input(subject, images, seed=0, band=rows / 32, side=side, fill=fill)
    seen = before((32, 32), 32 - rows, side)
    with cover.on(subject) as covered:
        shown = covered.logits(images)
        other = covered.logits(torch.where(seen, images, torch.rand(1, generator=torch.Generator().manual_seed(1))))

    assert cover.dead_from == 32 - rows
    assert torch.equal(shown, other)
    torch.testing.assert_close(shown, subject.logits(torch.where(seen, images, fill)))


@pytest.mark.slow
@settings(max_examples=6)
@given(side=st.sampled_from(SIDES), rows=st.integers(16, 28))
def test_cells_behind_a_sealed_cover_are_the_same_for_every_picture(side: Side, rows: int) -> None:
    subject, images = deep(), some_images(3, size=32)
    cover = cover_input(subject, images, seed=0, band=rows / 32, side=side)
    with cover.on(subject) as covered:
        cells = cover.turned(features(covered, images))

    assert cover.sealed
    assert torch.equal(cells[0, :, cover.kept_rows :], cells[1, :, cover.kept_rows :])
    assert not torch.equal(cells[0, :, : cover.kept_rows], cells[1, :, : cover.kept_rows])


def test_the_sealed_cells_of_a_small_network_are_those_worked_out_by_hand() -> None:
    """Cell i of conv2 sees pixels 4i - 3 to 4i + 3; row j of conv1 sees 2j - 1 to 2j + 1."""
    subject, images = deep(), some_images(2, size=32)
    on_picture = cover_input(subject, images, seed=0, band=0.5)
    at_layer = cover_layer(subject, images, seed=0, band=0.5)

    assert (on_picture.dead_from, on_picture.kept_rows, on_picture.sealed) == (16, 5, True)
    assert (at_layer.layer, at_layer.open_rows, at_layer.dead_from) == ("conv1", 8, 16)
    assert (at_layer.kept_rows, at_layer.sealed) == (5, True)
    assert at_layer.judged_from == 22  # the subject has no placement: cells are spread evenly, at 4i + 1.5


@pytest.mark.parametrize("build", [cover_input, cover_layer])
def test_a_map_with_local_weights_does_not_change_where_no_cell_sees_the_picture(
    build: Callable[..., Cover],
) -> None:
    subject, batch = deep(), batch_of(some_images(8, size=32))
    cover = build(subject, batch.images[:2], seed=0, band=0.5)
    columns = behind_cover(
        subject, batch, cams={name: METHODS[name] for name in ("hirescam", "layercam", "gradcam")}, cover=cover
    )

    # constant features carry constant weight: marked, without having been seen
    assert columns["hirescam:varies"].nan_to_num(0).max() < 1e-6
    assert columns["layercam:varies"].nan_to_num(0).max() < 1e-6
    assert columns["layercam:behind"].nanmean() > 0.01
    assert columns["gradcam:varies"].nanmean() > 0.01


def test_what_changes_is_never_more_than_what_is_marked() -> None:
    subject, batch = deep(), batch_of(some_images(8, size=32))
    cover = cover_input(subject, batch.images[:2], seed=0, band=0.5)
    columns = behind_cover(subject, batch, cams={"gradcam": METHODS["gradcam"]}, cover=cover)

    for marked, changed in (("behind", "varies"), ("dead", "dead_varies")):
        assert (columns[f"gradcam:{changed}"] <= columns[f"gradcam:{marked}"] + 1e-6).nan_to_num(True).all()


def test_behind_a_cover_an_image_does_not_depend_on_its_company() -> None:
    subject, images = deep(), some_images(6, size=32)
    cover = cover_input(subject, images[:2], seed=0, band=0.5)
    cams = {name: METHODS[name] for name in ("gradcam", "hirescam")}
    together = behind_cover(subject, batch_of(images), cams=cams, cover=cover)
    alone = behind_cover(subject, batch_of(images[3:4]), cams=cams, cover=cover)

    for name, column in alone.items():
        torch.testing.assert_close(column[0], together[name][3], atol=1e-5, rtol=1e-4, equal_nan=True)


def test_a_cover_costs_one_recording_and_one_of_the_empty_picture() -> None:
    subject, batch = deep(), batch_of(some_images(8, size=32))
    cover = cover_input(subject, batch.images[:2], seed=0, band=0.5)
    with metered() as cost:
        behind_cover(subject, batch, cams={"gradcam": METHODS["gradcam"]}, cover=cover)

    assert (cost.forwards, cost.backwards) == (16, 16)


@pytest.mark.parametrize("build", [cover_input, cover_layer])
def test_a_cover_leaves_the_model_as_it_was(build: Callable[..., Cover]) -> None:
    subject, images = deep(), some_images(2, size=32)
    before_it = subject.logits(images)
    cover = build(subject, images, seed=0, band=0.5)
    with cover.on(subject) as covered:
        assert not torch.equal(covered.logits(images), before_it)

    assert torch.equal(subject.logits(images), before_it)
    assert not any(module._forward_hooks for module in subject.module.modules())
    assert all(parameter.grad is None for parameter in subject.module.parameters())


def test_attention_is_covered_on_the_picture_and_nowhere_sealed() -> None:
    subject = tiny_subject(TokenNet(), "block1")
    cover = cover_input(subject, some_images(2), seed=0, band=0.5)

    assert (cover.sealed, cover.dead_from, cover.kept_rows) == (False, 8, 2)
    with pytest.raises(Undefined, match=r"no layer with a larger map than 'block1'.*use the wall in the picture"):
        cover_layer(subject, some_images(2), seed=0)


def test_a_model_of_captions_is_covered_on_the_picture_through_its_classes(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    towers = find_any(f"hf:{save_tiny_clip(tmp_path / 'clip')}", weights=None, device="cpu", layer=None)
    subject = as_classifier(towers, ("a red ball", "a green block", "a blue mug"))
    images = some_images(4, size=max(subject.geometry.crop))
    cover = cover_input(subject, images[:2], seed=0, band=0.5)
    found = behind_cover(subject, batch_of(images), cams={"hirescam": METHODS["hirescam"]}, cover=cover)

    # constant patches may carry weight, which is a contribution without information: both are told
    behind, varies = found["hirescam:behind"], found["hirescam:varies"]
    assert behind.isfinite().all()
    assert (varies <= behind + 1e-9).all()


class Detour(nn.Module):
    """The second convolution's input goes round the first one as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.round = nn.AvgPool2d(2)
        self.conv2 = nn.Conv2d(7, 6, 3, stride=2, padding=1)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        joined = torch.cat([self.conv1(images).relu(), self.round(images)], 1)
        return self.head(self.conv2(joined).relu().mean((2, 3)))


def test_a_layer_that_information_goes_round_is_no_place_for_a_wall() -> None:
    subject = tiny_subject(Detour(), "conv2", size=32)

    with pytest.raises(Undefined, match="no layer with a larger map than 'conv2' that all information passes"):
        cover_layer(subject, some_images(2, size=32), seed=0)
    with pytest.raises(Undefined, match="leaves pixels dead"):
        cover_layer(subject, some_images(2, size=32), seed=0, layer="conv1")


class Noisy(GapNet):
    def forward(self, images: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(images) + self.calls


def test_scores_that_move_by_themselves_take_the_cover_off() -> None:
    with pytest.raises(WallLeaks, match="noise in the dead pixels moves the logits"):
        cover_input(tiny_subject(Noisy(), "relu"), some_images(2), seed=0)


@pytest.mark.parametrize("band", [0.0, 1.0])
def test_a_cover_must_hide_some_rows_and_leave_some(band: float) -> None:
    with pytest.raises(WallLeaks, match="does not fit in an image of 32 pixel rows"):
        cover_input(deep(), some_images(1, size=32), seed=0, band=band)


def test_a_cover_that_no_cell_is_centred_behind_is_refused() -> None:
    subject = tiny_subject(TokenNet(), "block1")
    with pytest.raises(WallLeaks, match="no cell of tiny's map is centred behind the wall; cover more"):
        cover_input(subject, some_images(1), seed=0, band=1 / 16)


def test_an_empty_picture_without_a_gradient_counts_as_marking_nothing() -> None:
    subject = deep()
    with torch.no_grad():
        for layer in (subject.module.conv1, subject.module.conv2):
            layer.bias.zero_()
        subject.module.mix.bias.fill_(-0.1)
    batch = batch_of(some_images(4, size=32))
    cover = cover_input(subject, batch.images[:2], seed=0, band=0.5, fill=0.0)  # black, no biases: no features at all
    columns = behind_cover(subject, batch, cams={"gradcam": METHODS["gradcam"]}, cover=cover)
    with cover.on(subject) as covered:
        marks_something = rectify(METHODS["gradcam"](record(covered, batch.images))).flatten(1).any(1)

    assert torch.equal(columns["gradcam:behind"].isfinite(), marks_something)
    torch.testing.assert_close(columns["gradcam:dead_varies"], columns["gradcam:dead"], equal_nan=True)
