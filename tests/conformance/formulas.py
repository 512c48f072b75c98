"""Properties: the map is what the paper's equation says."""

from dataclasses import dataclass

import torch
from hypothesis import assume, given, settings
from torch import Tensor

from camcore.seeds import generator
from tests.conformance import compare, equations, nets
from tests.conformance.adapter import Adapter
from tests.conformance.suite import few, holds_for, seeds
from tests.oracles import cam as oracle


@dataclass(frozen=True, kw_only=True)
class Case:
    """Where an implementation is compared with a paper's equation."""

    signed: bool = False  # features of both signs, read as they are
    stride: int = 1  # 2: the map has half the image's rows and columns
    factor: float = 1.0  # of the class scores, so of the gradients


PLAIN = Case()
SMALL_GRADIENTS = Case(factor=1e-2)  # gradients of up to 1e-4, as behind a mean over 7 x 7 places; else up to 1e-2
BOTH_SIGNS = Case(signed=True)
HALF_SIZE = Case(stride=2)


def draw(adapter: Adapter, method: str, case: Case, seed: int) -> tuple[nets.Net, Tensor, Tensor, Tensor] | None:
    """(net, images, classes, the equation's map), or None if this draw shows nothing of such an adapter's maps."""
    net = nets.with_scaled_scores(nets.net_for(method, seed, stride=case.stride, signed=case.signed), case.factor)
    images, target = nets.some_images(seed), nets.some_classes(seed)
    expected = equations.expected(method, net, "relu", images, target)
    if not compare.is_telling(expected, adapter.gives) or not _is_defined(method, net, images, target):
        return None
    return net, images, target, expected


def pair(adapter: Adapter, method: str, case: Case, seed: int) -> tuple[Tensor, Tensor] | None:
    """(what the implementation gives, the equation's map in the same state), or None if this draw shows nothing."""
    drawn = draw(adapter, method, case, seed)
    if drawn is None:
        return None
    net, images, target, expected = drawn
    found = compare.map_of(adapter, method, net, "relu", images, target)
    return found, compare.finished(expected, adapter.gives, (found.shape[1], found.shape[2]))


def _is_defined(method: str, net: nets.Net, images: Tensor, target: Tensor) -> bool:
    """Whether the equation has one answer: a first direction of its own; a positive score to divide by."""
    if method == "ablationcam":
        return bool((equations.scores(net, images, target) > 0.01).all())
    if method in ("eigencam", "eigengradcam"):
        features, gradients = equations.features_and_gradients(net, "relu", images, target)
        products = features if method == "eigencam" else features * gradients
        return all(oracle.first_gap(oracle.channels(one)) < 0.9 for one in products)
    return True


def assert_equation(adapter: Adapter, method: str, case: Case) -> None:
    @few
    @given(seed=seeds)
    def agrees(seed: int) -> None:
        both = pair(adapter, method, case, seed)
        assume(both is not None)
        assert both is not None
        compare.assert_same_up_to_scale(*both, compare.EQUATION)

    agrees()


@holds_for()
def equals_the_papers_equation(adapter: Adapter, method: str) -> None:
    """The map is the paper's, up to a positive factor, each image for the class asked for."""
    assert_equation(adapter, method, PLAIN)


@holds_for("gradcam_plus_plus")
def small_gradients_weigh_as_the_equation_says(adapter: Adapter, method: str) -> None:
    """Gradients of the size trained models have (1e-4 and less) are not crushed by an epsilon."""
    assert_equation(adapter, method, SMALL_GRADIENTS)


@holds_for("scorecam")
def masks_lie_where_the_cells_lie(adapter: Adapter, method: str) -> None:
    """A map smaller than the image masks it cell by cell, each in its share, scaled to [0, 1] once it is enlarged."""
    assert_equation(adapter, method, HALF_SIZE)


@holds_for("ablationcam")
def ablated_channels_are_set_to_zero(adapter: Adapter, method: str) -> None:
    """An ablated channel is 0 for features of both signs too, as the equation has it."""
    assert_equation(adapter, method, BOTH_SIGNS)


@holds_for("ablationcam")
def ablation_depends_on_neither_chunk_nor_order(adapter: Adapter, method: str) -> None:
    """Channels that are 0 and unread, put before the others, shift the chunks and change no map; nor does the order."""

    @few
    @given(seed=seeds)
    def stays(seed: int) -> None:
        images, target = nets.some_images(seed), nets.some_classes(seed)
        net = nets.net_for(method, seed, signed=True)
        expected = compare.map_of(adapter, method, net, "relu", images, target)
        shifted = nets.with_dead_channels(net, 29)
        compare.assert_same(compare.map_of(adapter, method, shifted, "relu", images, target), expected)
        order = torch.randperm(nets.CHANNELS, generator=generator(seed, "order"))
        permuted = nets.with_channels_in_order(net, order)
        compare.assert_same(compare.map_of(adapter, method, permuted, "relu", images, target), expected)

    stays()


@holds_for("cam", "gradcam", "hirescam", "xgradcam")
def a_mean_and_a_linear_head_make_four_methods_one(adapter: Adapter, method: str) -> None:
    """Under a mean and a linear layer, CAM, Grad-CAM, HiResCAM and XGrad-CAM agree up to a positive factor."""

    @few
    @given(seed=seeds)
    def agrees(seed: int) -> None:
        net = nets.drawn(nets.Net("mean"), seed)
        images, target = nets.some_images(seed), nets.some_classes(seed)
        expected = equations.expected("cam", net, "relu", images, target)
        assume(compare.is_telling(expected, adapter.gives))
        found = compare.map_of(adapter, method, net, "relu", images, target)
        compare.assert_same_up_to_scale(found, compare.finished(expected, adapter.gives), compare.EQUATION)

    agrees()


@holds_for("hirescam", unscaled=True)
def the_map_adds_up_to_the_score_less_bias(adapter: Adapter, method: str) -> None:
    """Completeness: for a linear head that reads every place, HiResCAM sums to the class score less its bias."""

    @few
    @given(seed=seeds)
    def adds_up(seed: int) -> None:
        # only a map that is nowhere negative keeps its sum when it is rectified
        net = nets.drawn(nets.Net("dense"), seed, lowest=-1 if adapter.gives == "signed" else 0)
        images, target = nets.some_images(seed), nets.some_classes(seed)
        expected = equations.scores(net, images, target) - net.head.bias[target].double()
        _assert_sums(adapter, method, net, images, target, expected.detach())

    adds_up()


@holds_for("xgradcam", unscaled=True)
def the_map_conserves_gradient_times_feature(adapter: Adapter, method: str) -> None:
    """Conservation: XGrad-CAM sums to Σ g·A over channels and places, whatever follows the layer."""

    @few
    @given(seed=seeds)
    def conserves(seed: int) -> None:
        net = nets.drawn(nets.Net("deep"), seed, lowest=-1 if adapter.gives == "signed" else 0)
        images, target = nets.some_images(seed), nets.some_classes(seed)
        features, gradients = equations.features_and_gradients(net, "relu", images, target)
        _assert_sums(adapter, method, net, images, target, (features * gradients).sum((1, 2, 3)))

    conserves()


def _assert_sums(
    adapter: Adapter, method: str, net: nets.Net, images: Tensor, target: Tensor, expected: Tensor
) -> None:
    found = compare.map_of(adapter, method, net, "relu", images, target)
    error = (found.sum((1, 2)) - expected).abs() / found.abs().sum((1, 2)).clamp_min(1e-12)
    if error.max() > compare.RELATION:
        worst = int(error.argmax())
        raise AssertionError(
            f"expected the map to sum to {float(expected[worst]):.6g}, observed {float(found[worst].sum()):.6g} "
            f"(image {worst}); difference {float(error.max()):.2g} of the map's Σ|·|, allowed {compare.RELATION:g}"
        )


@holds_for("eigencam", "eigengradcam")
def a_planted_object_is_positive(adapter: Adapter, method: str) -> None:
    """A bright square that the features show comes out positive, and above its surroundings."""

    @settings(few, max_examples=16)  # a sign left to chance is right as often as not
    @given(seed=seeds)
    def stands_out(seed: int) -> None:
        net = nets.drawn(nets.Net("deep"), seed, lowest=0)
        image, target = 0.2 * nets.some_images(seed, 1), nets.some_classes(seed, 1)
        image[:, :, 2:6, 3:8] += 0.7
        features, gradients = equations.features_and_gradients(net, "relu", image, target)
        on, off = _on_and_off((features if method == "eigencam" else features * gradients).sum(1))
        assume(on > 2 * off)  # some nets answer to the dark; the square is planted where the channels together show it
        on, off = _on_and_off(compare.map_of(adapter, method, net, "relu", image, target))
        if on <= max(0, off):
            raise AssertionError(
                f"expected a mean above 0 and above the surroundings on the square, observed {on:.3g} on it and "
                f"{off:.3g} away from it"
            )

    stands_out()


def _on_and_off(saliency: Tensor) -> tuple[float, float]:
    """The mean where the filters see nothing but the square, and where they see nothing of it."""
    return float(saliency[:, 3:5, 4:7].mean()), float(saliency[:, :, 10:].mean())
