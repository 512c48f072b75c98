"""The suite's networks: small, random, and as large inside as the image, so that no resizing comes between.

All of them have a layer `conv`, whose features have both signs, and right after it a layer `relu`. What follows is
mostly of positive weight: a rectified map is then seldom empty, and an empty map shows nothing.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from camcore.seeds import generator

HEIGHT, WIDTH = 8, 12  # not square: a transposed map does not fit
CLASSES = 5
CHANNELS = 6

Head = Literal["mean", "dense", "deep"]


def nothing() -> None:
    """Let the forward pass."""


class Net(nn.Module):
    """Two convolutions and a ReLU, then one of three heads.

    mean: a mean over places and a linear layer. dense: a linear layer that reads every place by itself. deep: another
    convolution, a ReLU, a mean and a linear layer, so that the gradient differs from place to place.
    """

    def __init__(
        self,
        head: Head = "deep",
        *,
        channels: int = CHANNELS,
        stride: int = 1,
        padding_mode: str = "zeros",
        inplace: bool = False,
        signed: bool = False,
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, padding_mode=padding_mode)
        self.conv = nn.Conv2d(4, channels, 3, stride=stride, padding=1, padding_mode=padding_mode)
        # signed: nothing is rectified between the layer and what reads it, as behind a layer norm
        self.relu = nn.Identity() if signed else nn.ReLU(inplace=inplace)
        self.mix = nn.Conv2d(channels, 5, 3, padding=1, padding_mode=padding_mode) if head == "deep" else nn.Identity()
        places = (HEIGHT // stride) * (WIDTH // stride)
        self.head = nn.Linear({"mean": channels, "dense": channels * places, "deep": 5}[head], CLASSES)
        self.reads_places = head == "dense"
        self.interrupt: Callable[[], None] = nothing  # called behind the layer; a deep copy calls the same one

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.conv(self.first(images).relu()))
        self.interrupt()
        mixed = features if isinstance(self.mix, nn.Identity) else self.mix(features).relu()
        return self.head(mixed.flatten(1) if self.reads_places else mixed.mean((2, 3)))


def drawn(net: Net, seed: int, *, lowest: float = -0.25) -> Net:
    """The net in eval mode with weights drawn from `seed`, those behind the layer evenly from `lowest` to 1."""
    draws = generator(seed, "conformance weights")
    with torch.no_grad():
        for layer in (net.first, net.conv):
            deviation = (2 / layer.weight[0].numel()) ** 0.5
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=draws) * deviation)
            layer.bias.copy_(torch.rand(layer.bias.shape, generator=draws) * 0.4 - 0.1)
        for layer in (net.mix, net.head):
            for parameter in layer.parameters():
                numbers = torch.rand(parameter.shape, generator=draws) * (1 - lowest) + lowest
                parameter.copy_(numbers / max(1, parameter[0].numel()) ** 0.5)
    return net.eval()


def net_for(method: str, seed: int, **options: object) -> Net:
    """The deep head, or the mean and the linear layer for CAM, which is defined for no other."""
    return drawn(Net("mean" if method == "cam" else "deep", **options), seed)


def some_images(seed: int, count: int = 3) -> Tensor:
    """Uniform noise in [0, 1]; the nets take it as it is."""
    return torch.rand(count, 3, HEIGHT, WIDTH, generator=generator(seed, "conformance images"))


def some_classes(seed: int, count: int = 3) -> Tensor:
    """A class for each image, no two alike."""
    return torch.randperm(CLASSES, generator=generator(seed, "conformance classes"))[:count]


@torch.no_grad()
def with_symmetric_filters(net: Net) -> Net:
    """Each filter averaged with its mirror image, left to right."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.copy_((layer.weight + layer.weight.flip(3)) / 2)
    return net


@torch.no_grad()
def with_scaled_scores(net: Net, factor: float) -> Net:
    """All class scores times `factor`."""
    for parameter in net.head.parameters():
        parameter.mul_(factor)
    return net


@torch.no_grad()
def with_channels_in_order(net: Net, order: Tensor) -> Net:
    """The same function, the channels of `conv` and `relu` in another order."""
    reader = net.head if isinstance(net.mix, nn.Identity) else net.mix
    net.conv.weight.copy_(net.conv.weight[order])
    net.conv.bias.copy_(net.conv.bias[order])
    reader.weight.copy_(reader.weight[:, order])
    return net


@torch.no_grad()
def with_dead_channels(net: Net, count: int) -> Net:
    """The same function, with `count` channels before the others that are 0 everywhere and that nothing reads."""
    wider = Net("deep", channels=net.conv.out_channels + count, signed=isinstance(net.relu, nn.Identity)).eval()
    wider.first.load_state_dict(net.first.state_dict())
    wider.head.load_state_dict(net.head.state_dict())
    wider.mix.bias.copy_(net.mix.bias)
    for ours, theirs in ((wider.conv.weight, net.conv.weight), (wider.conv.bias, net.conv.bias)):
        ours.zero_()[count:] = theirs
    wider.mix.weight.zero_()[:, count:] = net.mix.weight
    return wider
