"""The wall theorem, and the network that it is about as an audit that needs no weights."""

from math import pi, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn

from audits.roles import undefined_methods
from audits.test_toy_wall import toy_leakage
from camcore import with_target_layer
from camcore.cam import METHODS, RECORDED, gradcam
from camcore.cost import metered
from camcore.images import Batch, Geometry
from camcore.maps import rectify
from camcore.recording import record
from camcore.seeds import generator
from camcore.statistics import confidence_sequence
from camcore.subject import Classifier
from camcore.toy_wall import (
    CELLS,
    CLASSES,
    FILTERS,
    SIDE,
    TOY_WALL,
    SimpleCnn,
    certify_toy,
    toy_images,
    toy_subject,
)
from camcore.wall import WallLeaks, build_wall
from camcore.wall_theorem import draw_gradcam, gradcam_at, gradcam_bound, gradcam_mean, half_chi_mean
from fixtures.controls.clean import clean_net
from tests.oracles import wall_theorem as oracle
from tests.tiny import some_images

SIZES = st.tuples(st.integers(1, 20).map(lambda half: 2 * half), st.integers(1, 40))


def weights(networks: int, filters: int, kernel: int, pooled: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    draws = generator(3, "theorem weights")
    conv = torch.randn(networks, filters, kernel, kernel, generator=draws)
    dense = torch.randn(networks, filters, *pooled, generator=draws)
    dense[:, :, pooled[0] // 2 :] = 0
    return conv, dense


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_gradcam_of_many_networks_equals_loops_over_one_after_another(kernel: int) -> None:
    image = torch.rand(4 + kernel - 1, 6 + kernel - 1, generator=generator(0, "image"))
    conv, dense = weights(5, 3, kernel, (2, 3))
    places = [(i, j) for i in range(4) for j in range(6)]
    found = gradcam_at(image, places, conv, dense)

    for network in range(5):
        slow = oracle.gradcam(image.tolist(), conv[network].tolist(), dense[network].tolist())
        torch.testing.assert_close(found[network].view(4, 6), torch.tensor(slow), rtol=1e-4, atol=1e-5)
    assert found.gt(0).any()
    assert found.eq(0).any()


def test_the_theorems_gradcam_is_the_librarys_on_the_same_network() -> None:
    module = SimpleCnn(filters=7, pooled=(4, 4), seed=1, classes=1).eval()
    subject = Classifier(
        name="simple",
        spec="simple",
        module=module,
        geometry=Geometry(crop=(9, 9)),
        preprocess=lambda images: images,
        classes=("only",),
        target_layer="relu",
    )
    image = torch.rand(9, 9, generator=generator(0, "image"))
    rec = record(subject, image.expand(1, 3, -1, -1))
    places = [(i, j) for i in range(8) for j in range(8)]
    state = module.state_dict()
    found = gradcam_at(image, places, state["conv.weight"][None, :, 0], state["dense.weight"].view(1, 7, 4, 4))

    torch.testing.assert_close(found.view(1, 8, 8), rectify(gradcam(rec)), rtol=1e-4, atol=1e-5)


@given(filters=st.integers(1, 300), pooled=SIZES, std=st.floats(0.01, 10), scale=st.floats(0.01, 5))
def test_the_bound_is_the_one_written_out(filters: int, pooled: tuple[int, int], std: float, scale: float) -> None:
    patch = [[scale, 0.5 * scale], [0.0, 2 * scale]]
    length = torch.tensor(patch, dtype=torch.float64).norm().item()
    found = gradcam_bound(filters=filters, pooled=pooled, std=std, patch_norm=length)

    assert found == pytest.approx(oracle.bound(filters, *pooled, std, patch), rel=1e-9)


@given(filters=st.integers(21, 3000), pooled=SIZES, std=st.floats(0.01, 10), length=st.floats(0.01, 5))
def test_the_exact_mean_is_over_the_root_of_two_times_the_bound(
    filters: int, pooled: tuple[int, int], std: float, length: float
) -> None:
    about = {"filters": filters, "pooled": pooled, "std": std, "patch_norm": length}
    ratio = gradcam_mean(**about) / gradcam_bound(**about)

    assert sqrt(2) < ratio < sqrt(2) * filters / (filters - 20)


def test_the_mean_norm_of_positive_parts_has_its_closed_forms() -> None:
    # of one Gaussian; of two, by integration over the quarter where both are positive and twice that where one is
    both = quad(lambda radius: radius**2 * norm.pdf(radius) * sqrt(2 * pi), 0, 40)[0] / 4
    assert half_chi_mean(1) == pytest.approx(1 / sqrt(2 * pi))
    assert half_chi_mean(2) == pytest.approx(both + 0.5 * sqrt(2 / pi))
    for count in (1, 5, 50, 1000):
        assert half_chi_mean(count) < sqrt(count / 2)  # Jensen
    assert half_chi_mean(4000) == pytest.approx(sqrt(2000), rel=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("filters", "std"), [(24, 1.0), (48, 0.1)])
def test_simulation_lies_above_the_bound_and_covers_the_exact_mean_before_the_wall_and_behind(
    filters: int, std: float
) -> None:
    image = torch.rand(9, 13, generator=generator(1, "image"))
    places = [(1, 2), (6, 3)]
    drawn = draw_gradcam(image, places, filters=filters, std=std, draws=1500, seed=5).double()
    for index, (row, column) in enumerate(places):
        length = image[row : row + 2, column : column + 2].norm().item()
        about = {"filters": filters, "pooled": (4, 6), "std": std, "patch_norm": length}
        exact = gradcam_mean(**about)
        values = drawn[:, index].clamp(max=10 * exact).tolist()
        found = confidence_sequence(values, level=0.999, bounds=(0.0, 10 * exact))

        assert gradcam_bound(**about) < found.low < exact < found.high


def test_draws_scale_with_the_variance_of_the_weights_and_with_the_image() -> None:
    image = torch.rand(9, 9, generator=generator(1, "image"))
    about = {"filters": 5, "draws": 6, "seed": 2}
    plain = draw_gradcam(image, [(0, 0), (7, 7)], std=1.0, **about)

    torch.testing.assert_close(draw_gradcam(image, [(0, 0), (7, 7)], std=3.0, **about), 9 * plain)
    torch.testing.assert_close(draw_gradcam(image / 4, [(0, 0), (7, 7)], std=1.0, **about), plain / 4)


@pytest.mark.parametrize("shape", [(7, 9), (11, 9), (9, 8), (2, 2)])
def test_maps_that_the_theorem_is_not_about_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="the theorem needs rows divisible by 4 and columns by 2"):
        draw_gradcam(torch.rand(shape, generator=generator(0, "x")), [(0, 0)], filters=2, std=1.0, draws=1, seed=0)


def test_the_toy_is_gaussian_and_blind_to_its_lower_half_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    module = toy_subject(3).module
    dense = module.dense.weight.view(CLASSES, FILTERS, CELLS // 2, CELLS // 2)

    assert torch.equal(torch.random.get_rng_state(), before)
    assert dense[:, :, 7:].eq(0).all()
    assert dense[:, :, :7].std().item() == pytest.approx(1, abs=0.01)
    assert dense[:, :, :7].mean().item() == pytest.approx(0, abs=0.01)
    assert module.conv.weight.std().item() == pytest.approx(1, abs=0.1)
    assert torch.equal(toy_subject(3).module.conv.weight, module.conv.weight)
    assert not torch.equal(toy_subject(4).module.conv.weight, module.conv.weight)


def test_the_toys_layer_cells_and_wall_are_where_probing_finds_them() -> None:
    toy = toy_subject(0)
    bare = Classifier(**{**vars(toy), "target_layer": None, "grid": None, "placement": None})
    probed = with_target_layer(bare)
    wall = build_wall(toy, toy_images(some_images(2)), seed=0, band=0.5)

    assert (probed.target_layer, probed.grid, probed.placement) == (toy.target_layer, toy.grid, toy.placement)
    assert {name: getattr(wall, name) for name in vars(TOY_WALL)} == vars(TOY_WALL)
    assert TOY_WALL.judged_from == 15
    assert TOY_WALL.constant_line == pytest.approx(sqrt(14 / 29))


def test_the_certificate_refuses_a_toy_that_sees_below_the_wall() -> None:
    toy, images = toy_subject(0), toy_images(some_images(2))
    certify_toy(toy, images, seed=0)
    with torch.no_grad():
        toy.module.dense.weight.view(CLASSES, FILTERS, 14, 14)[:, :, 7, 0] = 1e-2

    with pytest.raises(WallLeaks, match="noise in the dead pixels moves the logits of toy"):
        certify_toy(toy, images, seed=0)


def test_the_toy_is_shown_the_images_in_grey_at_its_own_size() -> None:
    shown = toy_images(some_images(3, size=64))

    assert shown.shape == (3, 3, SIDE, SIDE)
    assert torch.equal(shown[:, 0], shown[:, 1])
    torch.testing.assert_close(toy_images(torch.full((1, 3, 80, 60), 0.3)), torch.full((1, 3, SIDE, SIDE), 0.3))


class NeverAsked(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the audited model was asked")


def audited() -> Classifier:
    return Classifier(**{**vars(clean_net()), "module": NeverAsked()})


def some_batch(count: int = 3) -> Batch:
    ids = tuple(f"image {index}" for index in range(count))
    return Batch(images=some_images(count, size=40), labels=torch.zeros(count, dtype=torch.long), ids=ids, seed=7)


def test_local_weights_leak_exactly_nothing_on_the_toy_and_global_ones_much() -> None:
    columns = toy_leakage(audited(), some_batch(), cams=RECORDED)

    for name in ("hirescam", "layercam", "eigengradcam"):
        assert columns[f"{name}:leakage"].eq(0).all(), name
    for name in ("gradcam", "gradcam_plus_plus", "xgradcam", "eigencam"):
        assert columns[f"{name}:leakage"].mean() > 0.3, name
    assert columns["hirescam:blank"].min() >= 0.5


def test_one_network_per_image_serves_all_methods_and_is_certified_before_it_is_recorded() -> None:
    with metered() as cost:
        columns = toy_leakage(audited(), some_batch(), cams=RECORDED)

    # the certificate: the image, the image with noise, and a gradient to the pixels; then the recording
    assert (cost.forwards, cost.backwards) == (3 * (3 + 1), 3 * (1 + 1))
    assert all(column.shape == (3,) for column in columns.values())


def test_what_the_toy_gives_for_an_image_does_not_depend_on_its_company() -> None:
    batch = some_batch()
    cams = {"gradcam": METHODS["gradcam"]}
    alone = Batch(images=batch.images[1:2], labels=batch.labels[1:2], ids=batch.ids[1:2], seed=batch.seed)
    together, single = toy_leakage(audited(), batch, cams=cams), toy_leakage(audited(), alone, cams=cams)

    for name, column in single.items():
        assert torch.equal(column[0], together[name][1]), name


def test_maps_in_pixels_are_judged_too_and_constant_ones_leak_as_much_as_their_line() -> None:
    cams = {"gradient": METHODS["gradient"], "constant": lambda rec: torch.ones(1, CELLS, CELLS)}
    columns = toy_leakage(audited(), some_batch(1), cams=cams)

    assert columns["gradient:leakage"].eq(0).all()
    assert columns["constant:leakage"].item() == pytest.approx(TOY_WALL.constant_line)


def test_an_empty_map_has_no_leakage_and_says_why() -> None:
    columns = toy_leakage(audited(), some_batch(1), cams={"nothing": lambda rec: -rec.activations.sum(1)})

    assert columns["nothing:leakage"].isnan().all()
    assert columns["nothing:degenerate"].item() == 3


def test_methods_that_the_toy_has_no_map_of_do_not_apply() -> None:
    cams = {name: METHODS[name] for name in ("cam", "attention_rollout", "hirescam")}

    assert set(undefined_methods(toy_subject(0), cams)) == {"cam", "attention_rollout"}
