"""What the papers' equations give for a module, by tests/oracles/cam.py and slow loops, in double precision.

Independent of any implementation: the features and gradients are taken here, from a copy of the module.
"""

from copy import deepcopy
from math import exp

import torch
from torch import Tensor, nn

from tests.conformance.adapter import METHODS, Adapter
from tests.conformance.nets import CLASSES
from tests.oracles import cam as oracle

Map = list[list[float]]


def features_and_gradients(module: nn.Module, layer: str, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """A and dy_c/dA at the layer, each (b, k, i, j), fp64."""
    copy = deepcopy(module).double()
    kept: list[Tensor] = []

    def hook(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        kept.append(output.detach().clone().requires_grad_())
        return kept[0].clone()  # an in-place operation behind the layer rewrites the second clone

    copy.get_submodule(layer).register_forward_hook(hook)
    with torch.enable_grad():
        score = copy(images.double()).gather(1, target[:, None]).sum()
        (gradients,) = torch.autograd.grad(score, kept[0])
    return kept[0].detach(), gradients


@torch.no_grad()
def scores(module: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """y_c of each image, fp64."""
    return deepcopy(module).double()(images.double()).gather(1, target[:, None])[:, 0]


def expected(method: str, module: nn.Module, layer: str, images: Tensor, target: Tensor) -> Tensor:
    """The paper's map, signed, at the layer's resolution: (b, i, j), fp64."""
    activations, gradients = features_and_gradients(module, layer, images, target)
    maps: list[Map] = []
    for index in range(len(images)):
        features, slopes = oracle.channels(activations[index]), oracle.channels(gradients[index])
        one, label = images[index : index + 1], target[index : index + 1]
        if method == "cam":
            maps.append(oracle.cam(module.get_submodule("head").weight[label.item()].tolist(), features))
        elif method == "eigencam":
            maps.append(oracle.eigencam(features))
        elif method == "scorecam":
            maps.append(_weighted(_score_weights(module, features, one, label), features))
        elif method == "ablationcam":
            maps.append(_weighted(_ablation_weights(module, layer, features, one, label), features))
        else:
            maps.append(getattr(oracle, method)(features, slopes))
    return torch.tensor(maps, dtype=torch.float64)


def _weighted(weights: list[float], features: oracle.Channels) -> Map:
    rows, columns = len(features[0]), len(features[0][0])
    return [
        [sum(weight * channel[i][j] for weight, channel in zip(weights, features, strict=True)) for j in range(columns)]
        for i in range(rows)
    ]


def _score_weights(module: nn.Module, features: oracle.Channels, image: Tensor, label: Tensor) -> list[float]:
    """Wang et al. 2020, arXiv:1910.01279, eq. 4 to 8: softmax over channels of f(X ∘ s(Up(A_k))) - f(X_b).

    The baseline is the same for every channel, so the softmax does not see it. A constant channel has no s(·); it is
    masked to nothing, which shares out the softmax differently and moves the map by a positive factor at most.
    """
    height, width = image.shape[2:]
    increases = []
    for channel in features:
        enlarged = _bilinear(channel, height, width)
        low, high = min(map(min, enlarged)), max(map(max, enlarged))
        mask = [[(value - low) / (high - low) if high > low else 0.0 for value in row] for row in enlarged]
        increases.append(float(scores(module, image.double() * torch.tensor(mask, dtype=torch.float64), label)))
    powers = [exp(increase - max(increases)) for increase in increases]
    return [power / sum(powers) for power in powers]


def _bilinear(channel: Map, height: int, width: int) -> Map:
    """Each cell in the middle of its even share of the image, weights by distance, the border continued outwards."""
    rows, columns = len(channel), len(channel[0])

    def neighbours(pixel: int, pixels: int, cells: int) -> tuple[int, int, float]:
        place = min(max((pixel + 0.5) * cells / pixels - 0.5, 0.0), cells - 1.0)
        before = min(int(place), cells - 1)
        return before, min(before + 1, cells - 1), place - before

    enlarged = []
    for y in range(height):
        up, down, v = neighbours(y, height, rows)
        row = []
        for x in range(width):
            left, right, h = neighbours(x, width, columns)
            above = (1 - h) * channel[up][left] + h * channel[up][right]
            below = (1 - h) * channel[down][left] + h * channel[down][right]
            row.append((1 - v) * above + v * below)
        enlarged.append(row)
    return enlarged


def _ablation_weights(
    module: nn.Module, layer: str, features: oracle.Channels, image: Tensor, label: Tensor
) -> list[float]:
    """Desai and Ramaswamy 2020, WACV, eq. 2: (y_c - y_c with channel k set to 0) / y_c, here by |y_c|.

    Dividing by a negative score turns the map over; the suite compares where the score is positive.
    """
    whole = float(scores(module, image, label))
    weights = []
    for k in range(len(features)):
        copy = deepcopy(module)

        def ablate(_module: nn.Module, _args: object, output: Tensor, k: int = k) -> Tensor:
            output = output.clone()
            output[:, k] = 0
            return output

        copy.get_submodule(layer).register_forward_hook(ablate)
        weights.append((whole - float(scores(copy, image, label))) / abs(whole))
    return weights


def explain(method: str, module: nn.Module, layer: str, images: Tensor, target: Tensor) -> Tensor:
    """The equations as an implementation: what passes the suite if anything does."""
    if not 0 <= int(target.min()) <= int(target.max()) < CLASSES:
        raise ValueError(f"a class out of range in {target.tolist()}: the suite's nets have {CLASSES}")
    return expected(method, module, layer, images, target)


PAPERS = Adapter(name="the papers", explain=explain, methods=METHODS)
