import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from camcore import cam, record
from camcore.cam.scoring import effective_channels, scorecam_weights
from camcore.cost import metered
from camcore.errors import BadInput
from camcore.explain import explain
from camcore.explain.explanation import describe, explanation, percent
from camcore.maps import upsample
from tests.tiny import GapNet, some_images, tiny_subject


@pytest.fixture
def subject():
    return tiny_subject(GapNet(), "relu")


def test_maps_are_the_methods_own_signed_and_all_from_one_recording(subject):
    images = some_images(3)

    with metered() as cost:
        explained = explain(subject, images, cams=("hirescam", "gradcam", "layercam"))

    recording = record(subject, images)
    assert (cost.forwards, cost.backwards) == (3, 3)
    assert list(explained.cells) == ["hirescam", "gradcam", "layercam"]
    for name, cells in explained.cells.items():
        assert torch.equal(cells, getattr(cam, name)(recording))
        assert torch.equal(explained.maps[name], upsample(cells, (16, 16), recording.placement))
    assert min(cells.min() for cells in explained.cells.values()) < 0


def test_scorecam_says_how_many_channels_it_rests_on_and_is_asked_once(subject):
    images = some_images(2)
    recording = record(subject, images)
    expected = cam.scorecam(recording)  # measures the batch size as well
    with metered() as cost:
        cam.scorecam(recording)
    rests_on = effective_channels(scorecam_weights(recording)).tolist()

    with metered() as explaining:
        explained = explain(subject, images, cams=("scorecam", "hirescam"))

    assert torch.equal(explained.cells["scorecam"], expected)
    assert explaining.forwards == cost.forwards + 2
    for index, number in enumerate(rests_on):
        assert explained.says_of_map(index, "scorecam")[-1] == f"rests on {number:.3g} of 6 channels"
        assert len(explained.says_of_map(index, "hirescam")) == 1


def test_a_map_at_the_images_own_resolution_is_not_moved(subject):
    recording = record(subject, some_images(2))
    pixels = recording.images.sum(1) - 1

    explained = explanation(recording, {"gradient": (pixels, ())}, subject)

    assert torch.equal(explained.maps["gradient"], pixels)


def test_a_class_is_chosen_by_name_by_index_or_for_each_image(subject):
    images = some_images(2)

    by_name = explain(subject, images, target="Class_3")
    by_index = explain(subject, images, target=3)
    each = explain(subject, images, target=torch.tensor([3, 1]))

    assert by_name.target.tolist() == by_index.target.tolist() == [3, 3]
    assert torch.equal(by_name.cells["hirescam"], by_index.cells["hirescam"])
    assert torch.equal(each.cells["hirescam"][0], by_index.cells["hirescam"][0])
    assert not torch.equal(each.cells["hirescam"][1], by_index.cells["hirescam"][1])


@pytest.mark.parametrize("target", ["class 9", 9, -1, torch.tensor([0, 9])])
def test_a_class_that_the_model_does_not_have_is_refused(subject, target):
    with pytest.raises(ValueError, match=r"'class 9'|out of range"):
        explain(subject, some_images(2), target=target)


def test_a_contrast_is_the_difference_of_two_maps_and_names_both_classes(subject):
    images = some_images(2)

    contrast = explain(subject, images, target=1, against="class 2")

    one, other = (explain(subject, images, target=index).cells["hirescam"] for index in (1, 2))
    assert torch.allclose(contrast.cells["hirescam"], one - other, atol=1e-6)
    assert contrast.says(0)[-1].startswith("rather than: class 2, ")


def test_a_long_name_of_a_class_does_not_push_its_probability_off_the_sheet(subject):
    explained = explain(replace(subject, classes=("name " * 40,) + ("other",) * 4), some_images(1), target=0)

    told = explained.says(0)[-1]
    assert len(told) < 80
    assert told.endswith(percent(float(explained.probabilities[0, 0])))


def test_a_class_contrasted_with_itself_is_refused_also_where_it_is_the_predicted_one(subject):
    images = some_images(2)
    predicted = int(record(subject, images).target[1])

    with pytest.raises(BadInput, match="explained as 'class 1' rather than as 'class 1'"):
        explain(subject, images, target=1, against=1)
    with pytest.raises(BadInput, match="name two classes"):
        explain(subject, images, against=predicted)


def test_what_is_predicted_is_told_and_what_is_explained_if_it_is_something_else(subject):
    images = some_images(1)
    predicted = explain(subject, images)
    other = (int(predicted.target[0]) + 1) % 5

    assert len(predicted.says(0)) == 1
    assert predicted.says(0)[0] == f"predicted: class {int(predicted.target[0])}, " + percent(
        float(predicted.logits.softmax(1).max())
    )
    assert explain(subject, images, target=other).says(0)[1].startswith(f"explained: class {other}, ")


def test_a_notebook_shows_a_sheet_and_a_terminal_one_line(subject):
    explained = explain(subject, some_images(2), cams=("hirescam", "gradcam"))

    shown = Image.open(io.BytesIO(explained._repr_png_()))

    assert shown.format == "PNG"
    assert np.array_equal(np.asarray(shown), np.asarray(explained.sheet()))
    assert repr(explained) == "Explanation of 2 images, tiny, layer relu, by hirescam, gradcam"


def test_a_notebook_shows_the_first_images_of_many_and_a_sheet_shows_all(subject):
    explained = explain(subject, some_images(10))

    shown = Image.open(io.BytesIO(explained._repr_png_()))

    assert explained.sheet().height > shown.height >= 8 * 224


def test_an_overlay_marks_where_the_map_is_positive_and_nothing_else(subject):
    explained = explain(subject, some_images(1))
    cells = torch.full((1, 8, 8), -1.0)
    cells[0, :4, :4] = 5.0
    planted = replace(explained, cells={"planted": cells}, maps={"planted": upsample(cells, (16, 16))})

    picture = np.asarray(planted.overlay(0, "planted"))
    photo = np.asarray(planted.tiles(0)["as the model sees it"].picture)

    changed = (picture != photo).any(2)
    assert changed[:98, :98].all()  # 7 of 16 pixels, enlarged 14 times
    assert not changed[126:].any()
    assert not changed[:, 126:].any()


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (torch.tensor([[0.0, -0.0]]), "marks nothing: 0 everywhere"),
        (torch.tensor([[-1.0, -3.0]]), "marks nothing: max -1, min -3"),
        (torch.tensor([[0.2, 0.2]]), "marks no place: constant, 0.2 everywhere"),
        (torch.tensor([[float("nan"), 0.2]]), "marks nothing: holds values that are no numbers"),
    ],
)
def test_a_map_with_nothing_to_see_says_so_and_leaves_the_photograph_as_it_is(subject, cells, says):
    recording = record(subject, some_images(1))
    explained = explanation(recording, {"odd": (cells[None], ())}, subject)

    tiles = explained.tiles(0)

    assert tiles["odd"].lines == (says,)
    assert np.array_equal(np.asarray(tiles["odd"].picture), np.asarray(tiles["as the model sees it"].picture))


def test_a_map_with_something_to_see_says_its_largest_and_its_smallest_value():
    assert describe(torch.tensor([[-0.0, 1234.5]])) == "max 1.23e+03, min 0"
    assert describe(torch.tensor([[-0.25, 0.5]])) == "max 0.5, min -0.25"


def test_a_few_pixels_that_stand_out_do_not_hide_a_map_of_pixels_and_the_caption_says_so(subject):
    recording = record(subject, some_images(1))
    pixels = torch.full((1, 16, 16), 0.1)
    pixels[0, :8] = -1
    spiked = pixels.clone()
    spiked[0, 15, 15] = 50.0  # one of 128 marks

    drawn = {"even": pixels, "spiked": spiked, "cells": spiked[:, 8:, 8:]}
    explained = explanation(recording, {name: (cells, ()) for name, cells in drawn.items()}, subject)

    assert explained.full_colour(0, "even") == explained.full_colour(0, "spiked") == pytest.approx(0.1)
    assert explained.says_of_map(0, "even") == ("max 0.1, min -1",)
    assert explained.says_of_map(0, "spiked") == ("max 50, min -1", "full colour from 0.1 on (top 1 %)")
    assert explained.full_colour(0, "cells") == 50  # a map of cells is shown relative to its largest value, always


def test_a_probability_is_never_rounded_to_certainty():
    assert [percent(p) for p in (0.0, 0.0001, 0.5, 0.9999, 1.0)] == ["0.0 %", "<0.1 %", "50.0 %", ">99.9 %", "100.0 %"]


def test_names_are_one_per_image(subject):
    assert explain(subject, some_images(2), names=("a.png", "b.png")).tiles(1)["as the model sees it"].name == "b.png"
    with pytest.raises(BadInput, match="1 names for 2 images"):
        explain(subject, some_images(2), names=("a.png",))


def test_the_model_is_left_as_it_came(subject):
    module = subject.module
    before = {name: value.clone() for name, value in module.state_dict().items()}

    explain(subject, some_images(2), target=1, against=2)._repr_png_()

    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert not any(layer._forward_hooks for layer in module.modules())
    assert not module.training
