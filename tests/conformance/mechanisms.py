"""What other libraries compute where they differ from the paper's equation: their map, retold and recomputed here.

Each is the equation with one change. If the recomputed map is theirs to rounding, the change is the whole difference.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tests.conformance import compare, equations, formulas, nets
from tests.conformance.adapter import Adapter

# (net, images, target) -> the maps it may be, signed, fp64: several where something is left to chance
Retold = Callable[[nets.Net, Tensor, Tensor], list[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """Why a library's map is not the paper's."""

    peer: str  # the adapter's name
    method: str
    case: formulas.Case
    instead: str  # of the equation
    retold: Retold


def epsilon_beside_the_squared_gradient(net: nets.Net, images: Tensor, target: Tensor) -> list[Tensor]:
    features, g = equations.features_and_gradients(net, "relu", images, target)
    alpha = g**2 / (2 * g**2 + features.sum((2, 3), keepdim=True) * g**3 + 1e-6)
    return [_weigh((alpha * g.relu()).sum((2, 3)), features)]


def cubed_gradients(net: nets.Net, images: Tensor, target: Tensor) -> list[Tensor]:
    features, g = equations.features_and_gradients(net, "relu", images, target)
    return [_weigh(g.relu().pow(3).sum((2, 3)), features)]


def centred_features(net: nets.Net, images: Tensor, target: Tensor) -> list[Tensor]:
    return _centred(equations.features_and_gradients(net, "relu", images, target)[0])


def centred_products(net: nets.Net, images: Tensor, target: Tensor) -> list[Tensor]:
    features, gradients = equations.features_and_gradients(net, "relu", images, target)
    return _centred(features * gradients)


def _centred(channels: Tensor) -> list[Tensor]:
    places = channels.flatten(2).transpose(1, 2)
    places = places - places.mean(1, keepdim=True)
    direction = torch.linalg.svd(places, full_matrices=False)[2][:, 0]
    projection = (places @ direction[:, :, None]).squeeze(2).unflatten(1, channels.shape[2:])
    return [projection, -projection]


def aligned_corners(net: nets.Net, images: Tensor, target: Tensor) -> list[Tensor]:
    features, _ = equations.features_and_gradients(net, "relu", images, target)
    return [_score_cam(net, images, target, features, _stretched(_enlarged(features, images, align_corners=True)))]


def stretched_before_enlarging(net: nets.Net, images: Tensor, target: Tensor) -> list[Tensor]:
    features, _ = equations.features_and_gradients(net, "relu", images, target)
    return [_score_cam(net, images, target, features, _enlarged(_stretched(features), images, align_corners=False))]


def _enlarged(features: Tensor, images: Tensor, *, align_corners: bool) -> Tensor:
    return functional.interpolate(features, images.shape[2:], mode="bilinear", align_corners=align_corners)


def _stretched(masks: Tensor) -> Tensor:
    low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
    return torch.where(high > low, (masks - low) / (high - low), 0)


def _score_cam(net: nets.Net, images: Tensor, target: Tensor, features: Tensor, masks: Tensor) -> Tensor:
    scores = [equations.scores(net, images * masks[:, k : k + 1], target) for k in range(masks.shape[1])]
    return _weigh(torch.stack(scores, 1).softmax(1), features)


def ever_lower_values(net: nets.Net, images: Tensor, target: Tensor) -> list[Tensor]:
    features, _ = equations.features_and_gradients(net, "relu", images, target)
    lowest = features.amin((1, 2, 3))
    whole = equations.scores(net, images, target)
    drops = []
    for k in range(features.shape[1]):
        copy = deepcopy(net)

        def ablate(_module: object, _args: object, output: Tensor, k: int = k) -> Tensor:
            output = output.clone()
            output[:, k] = (lowest - 1e7 * (k % 32 + 1))[:, None, None]
            return output

        copy.relu.register_forward_hook(ablate)
        drops.append((whole - equations.scores(copy, images, target)) / whole)
    return [_weigh(torch.stack(drops, 1), features)]


def _weigh(weights: Tensor, features: Tensor) -> Tensor:
    return torch.einsum("bk,bkij->bij", weights, features)


_EPSILON = "adds 1e-6 to the denominator 2g² + ΣA g³, which is that small itself"
_CUBES = "divides a copy that is then dropped (indexing by a mask copies), so that the weights are Σ ReLU(g)³"
_CENTRED = "subtracts each channel's mean first, and leaves the sign as the decomposition happens to give it"

MECHANISMS = (
    Mechanism(
        peer="pytorch-grad-cam",
        method="gradcam_plus_plus",
        case=formulas.PLAIN,
        instead=_EPSILON,
        retold=epsilon_beside_the_squared_gradient,
    ),
    Mechanism(
        peer="pytorch-grad-cam",
        method="gradcam_plus_plus",
        case=formulas.SMALL_GRADIENTS,
        instead=_EPSILON,
        retold=epsilon_beside_the_squared_gradient,
    ),
    Mechanism(peer="torchcam", method="gradcam_plus_plus", case=formulas.PLAIN, instead=_CUBES, retold=cubed_gradients),
    Mechanism(
        peer="torchcam",
        method="gradcam_plus_plus",
        case=formulas.SMALL_GRADIENTS,
        instead=_CUBES,
        retold=cubed_gradients,
    ),
    Mechanism(
        peer="pytorch-grad-cam",
        method="eigencam",
        case=formulas.PLAIN,
        instead=_CENTRED,
        retold=centred_features,
    ),
    Mechanism(
        peer="pytorch-grad-cam",
        method="eigengradcam",
        case=formulas.PLAIN,
        instead=_CENTRED,
        retold=centred_products,
    ),
    Mechanism(
        peer="pytorch-grad-cam",
        method="scorecam",
        case=formulas.HALF_SIZE,
        instead="enlarges the masks with aligned corners, and the finished map without",
        retold=aligned_corners,
    ),
    Mechanism(
        peer="torchcam",
        method="scorecam",
        case=formulas.HALF_SIZE,
        instead="scales the masks to [0, 1] before it enlarges them, which lowers their peaks again",
        retold=stretched_before_enlarging,
    ),
    Mechanism(
        peer="pytorch-grad-cam",
        method="ablationcam",
        case=formulas.BOTH_SIGNS,
        instead="sets a channel to 1e7 below the lowest value in a chunk that holds the channels ablated so far: "
        "-1e7, -2e7, -3e7, ...",
        retold=ever_lower_values,
    ),
)


def left_unexplained(adapter: Adapter, mechanism: Mechanism, seed: int) -> float | None:
    """The largest difference between a library's map and the retold one, scaled alike; None for a draw without use."""
    drawn = formulas.draw(adapter, mechanism.method, mechanism.case, seed)
    if drawn is None:
        return None
    net, images, target, _ = drawn
    found = compare.at_one(compare.map_of(adapter, mechanism.method, net, "relu", images, target))
    maps = [
        compare.at_one(compare.finished(one, adapter.gives, (found.shape[1], found.shape[2])))
        for one in mechanism.retold(net, images, target)
    ]
    # image by image: chance decides for each anew
    distances = torch.stack([(found - one).abs().amax((1, 2)) for one in maps])
    return float(distances.amin(0).max())
