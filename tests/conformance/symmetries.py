"""Properties: what may not change a map, or only as it changes the image."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor

from tests.conformance import compare, nets
from tests.conformance.adapter import METHODS, Adapter
from tests.conformance.suite import few, holds_for, seeds

LEAST_RANK_CORRELATION = 0.9  # of a bf16 map with the fp32 one, each image by itself; fixed before measuring


@holds_for("hirescam", "layercam")
def nothing_lies_behind_a_wall_in_the_head(adapter: Adapter, method: str) -> None:
    """Where the head's weights are 0, so that no score depends on the place, the map is exactly 0."""

    @few
    @given(seed=seeds)
    def stays_dark(seed: int) -> None:
        net = nets.drawn(nets.Net("dense"), seed)
        wall = nets.HEIGHT // 2
        with torch.no_grad():
            net.head.weight.unflatten(1, (nets.CHANNELS, nets.HEIGHT, nets.WIDTH))[:, :, wall:] = 0
        found = compare.map_of(adapter, method, net, "relu", nets.some_images(seed), nets.some_classes(seed))
        if not found[:, :wall].any():
            raise AssertionError("expected a map that is not empty before the wall, observed zeros everywhere")
        if found[:, wall:].any():
            share = found[:, wall:].abs().max() / found.abs().max()
            raise AssertionError(f"expected 0 behind the wall, observed {float(share):.2g} of the map's largest value")

    stays_dark()


@holds_for()
def the_map_flips_with_the_image(adapter: Adapter, method: str) -> None:
    """With filters that are symmetric left to right, the map of the mirrored image is the mirrored map."""

    @few
    @given(seed=seeds)
    def flips(seed: int) -> None:
        net = nets.with_symmetric_filters(nets.net_for(method, seed))
        images, target = nets.some_images(seed), nets.some_classes(seed)
        still = compare.map_of(adapter, method, net, "relu", images, target)
        flipped = compare.map_of(adapter, method, net, "relu", images.flip(3), target)
        compare.assert_same(flipped, still.flip(2))

    flips()


@holds_for()
def the_map_moves_with_the_image(adapter: Adapter, method: str) -> None:
    """With circular padding, the map of the shifted image is the shifted map."""

    @few
    @given(seed=seeds, down=st.integers(1, nets.HEIGHT - 1), across=st.integers(1, nets.WIDTH - 1))
    def moves(seed: int, down: int, across: int) -> None:
        net = nets.net_for(method, seed, padding_mode="circular")
        images, target = nets.some_images(seed), nets.some_classes(seed)
        still = compare.map_of(adapter, method, net, "relu", images, target)
        moved = compare.map_of(adapter, method, net, "relu", images.roll((down, across), (2, 3)), target)
        compare.assert_same(moved, still.roll((down, across), (1, 2)))

    moves()


@holds_for()
def the_order_of_the_batch_does_not_matter(adapter: Adapter, method: str) -> None:
    """Images in another order, with their classes, have the same maps in that order."""

    @few
    @given(seed=seeds, order=st.permutations(range(4)))
    def follows(seed: int, order: list[int]) -> None:
        net, images, target = nets.net_for(method, seed), nets.some_images(seed, 4), nets.some_classes(seed, 4)
        expected = compare.map_of(adapter, method, net, "relu", images, target)[order]
        compare.assert_same(compare.map_of(adapter, method, net, "relu", images[order], target[order]), expected)

    follows()


@holds_for()
def the_rest_of_the_batch_does_not_matter(adapter: Adapter, method: str) -> None:
    """An image alone has the map that it has in a batch."""

    @few
    @given(seed=seeds)
    def stands_alone(seed: int) -> None:
        net, images, target = nets.net_for(method, seed), nets.some_images(seed), nets.some_classes(seed)
        images[1] *= 0.1  # batch-mates of another size, which a scaling across the batch would take over
        together = compare.map_of(adapter, method, net, "relu", images, target)
        for index in range(len(images)):
            one = slice(index, index + 1)
            alone = compare.map_of(adapter, method, net, "relu", images[one], target[one])
            compare.assert_same(alone, together[one])

    stands_alone()


@holds_for(
    exceptions={
        "gradcam_plus_plus": "alpha depends on the size of the gradient (eq. 19)",
        "scorecam": "a softmax over channels of class scores depends on their scale (eq. 8)",
    }
)
def the_scale_of_the_scores_does_not_matter(adapter: Adapter, method: str) -> None:
    """All class scores times a positive number give the same map, up to a positive factor."""

    @few
    @given(seed=seeds, factor=st.sampled_from([1e-3, 0.1, 30.0]))
    def keeps(seed: int, factor: float) -> None:
        images, target = nets.some_images(seed), nets.some_classes(seed)
        plain = compare.map_of(adapter, method, nets.net_for(method, seed), "relu", images, target)
        scaled = nets.with_scaled_scores(nets.net_for(method, seed), factor)
        found = compare.map_of(adapter, method, scaled, "relu", images, target)
        compare.assert_same_up_to_scale(found, plain)

    keeps()


@holds_for()
def the_order_of_the_channels_does_not_matter(adapter: Adapter, method: str) -> None:
    """The layer's channels in another order, read in that order, give the same map."""

    @few
    @given(seed=seeds, order=st.permutations(range(nets.CHANNELS)))
    def keeps(seed: int, order: list[int]) -> None:
        images, target = nets.some_images(seed), nets.some_classes(seed)
        net = nets.net_for(method, seed)
        expected = compare.map_of(adapter, method, net, "relu", images, target)
        permuted = nets.with_channels_in_order(net, torch.tensor(order))
        compare.assert_same(compare.map_of(adapter, method, permuted, "relu", images, target), expected)

    keeps()


@holds_for()
def bf16_ranks_places_as_fp32_does(adapter: Adapter, method: str) -> None:
    """The model and the images in bf16 give a map whose Spearman correlation with the fp32 map is at least 0.9."""
    for seed in range(3):
        images, target = nets.some_images(seed), nets.some_classes(seed)
        whole = compare.map_of(adapter, method, nets.net_for(method, seed), "relu", images, target)
        half = nets.net_for(method, seed).bfloat16()
        found = compare.map_of(adapter, method, half, "relu", images.bfloat16(), target)
        for index in range(len(images)):
            correlation = _rank_correlation(found[index], whole[index])
            if correlation < LEAST_RANK_CORRELATION:
                raise AssertionError(
                    f"expected a rank correlation of at least {LEAST_RANK_CORRELATION}, observed {correlation:.3f} "
                    f"(seed {seed}, image {index})"
                )


def _rank_correlation(found: Tensor, expected: Tensor) -> float:
    """Spearman's, ties at their mean rank; two constant maps agree, a constant and another do not."""
    constant = [bool((one == one.flatten()[0]).all()) for one in (found, expected)]
    if any(constant):
        return float(all(constant))
    return float(spearmanr(found.flatten().numpy(), expected.flatten().numpy()).statistic)


# Not CAM: with a ReLU between the layer and the head it is not defined.
@holds_for(*(method for method in METHODS if method != "cam"))
def an_in_place_relu_behind_the_layer_does_not_change_the_map(adapter: Adapter, method: str) -> None:
    """A ReLU that overwrites the layer's output gives the map of one that does not: the features are the layer's."""

    @few
    @given(seed=seeds)
    def keeps(seed: int) -> None:
        images, target = nets.some_images(seed), nets.some_classes(seed)
        expected = compare.map_of(adapter, method, nets.net_for(method, seed), "conv", images, target)
        overwriting = nets.net_for(method, seed, inplace=True)
        compare.assert_same(compare.map_of(adapter, method, overwriting, "conv", images, target), expected)

    keeps()


@holds_for()
def frozen_parameters_do_not_change_the_map(adapter: Adapter, method: str) -> None:
    """A model none of whose parameters asks for a gradient is explained, and has the same map."""
    net, images, target = nets.net_for(method, 0), nets.some_images(0), nets.some_classes(0)
    expected = compare.map_of(adapter, method, net, "relu", images, target)
    compare.assert_same(compare.map_of(adapter, method, net.requires_grad_(False), "relu", images, target), expected)
