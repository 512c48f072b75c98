"""Networks small enough to reason about, each odd in one way that `record` and the rest must bear."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from camcore.grid import infer_grid
from camcore.images import Dataset, Geometry
from camcore.seeds import generator
from camcore.subject import Classifier

SIZE = 16  # pixels a side, where nothing else is said
CLASSES = 5


def as_they_are(images: Tensor) -> Tensor:
    """The preprocessing of a network that takes pixels in [0, 1]."""
    return images


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in eval mode with weights drawn from a generator of its own: the global one is not touched."""
    draws = generator(seed, "tiny weights")
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=draws) * (2 / fan_in) ** 0.5)
    return module.eval()


class GapNet(nn.Module):
    """Two convolutions, a mean over places, one linear layer: CAM, Grad-CAM, HiResCAM and XGrad-CAM agree."""

    def __init__(self, channels: int = 6, padding_mode: str = "zeros") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, padding_mode=padding_mode)
        self.conv2 = nn.Conv2d(4, channels, 3, stride=2, padding=1, padding_mode=padding_mode)
        self.relu = nn.ReLU()
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.conv2(self.conv1(images))).mean((2, 3)))


class FlatNet(nn.Module):
    """Convolutions, then one dense layer that reads every place by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.dense = nn.Linear(4 * (SIZE // 2) ** 2, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(self.relu(self.conv(images)).flatten(1))


class InPlaceNet(nn.Module):
    """The ReLU after the target rewrites the target's output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.conv(images)).mean((2, 3)))


class SharedReluNet(nn.Module):
    """One ReLU module in two places, so its output is not one map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.conv2(self.relu(self.conv1(images)))).mean((2, 3)))


class TokenNet(nn.Module):
    """A class token before the patches, two blocks of attention, and a head that reads the class token alone."""

    def __init__(self, patch: int = 4, width: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.block1 = TokenBlock(width)
        self.block2 = TokenBlock(width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), tokens], 1)
        return self.head(self.norm(self.block2(self.block1(tokens)))[:, 0])


class TokenBlock(nn.Module):
    """Pre-norm attention with one head, then a dense layer, both on a residual stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 1, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.dense = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm1(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return tokens + torch.relu(self.dense(self.norm2(tokens)))


class ChannelsLastNet(nn.Module):
    """Features as (b, h, w, channels), as in Swin and ConvNeXt blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, stride=4)
        self.norm = nn.LayerNorm(6)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.mix(self.norm(self.conv(images).permute(0, 2, 3, 1)))).mean((1, 2)))


class TupleLayer(nn.Module):
    """A layer that gives its features and something else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, str]:
        return self.conv(images), "something else"


class TupleNet(nn.Module):
    """Its target layer returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.body = TupleLayer()
        self.head = nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features, extra = self.body(images)
        assert extra == "something else"
        return self.head(features.relu().mean((2, 3)))


class DictNet(GapNet):
    """Its output is a dictionary, the logits not first."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = super().forward(images)
        return {"loss": logits.new_zeros(()), "logits": logits}


class NoGradNet(GapNet):
    """Its author decorated the forward for deployment."""

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


class RaisingNet(GapNet):
    """Breaks after the target layer has run."""

    def forward(self, images: Tensor) -> Tensor:
        super().forward(images)
        raise RuntimeError("the forward broke")


class DenseNet(nn.Module):
    """No map of features: two dense layers on the flattened pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.dense1 = nn.Linear(3 * SIZE * SIZE, 8)
        self.dense2 = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.dense2(self.dense1(images.flatten(1)).relu())


def frozen(module: nn.Module) -> nn.Module:
    """The same module; no parameter asks for a gradient."""
    return module.requires_grad_(False)


def tiny_subject(
    module: nn.Module,
    layer: str | None = None,
    *,
    size: int = SIZE,
    seed: int | None = 0,
    classes: int = CLASSES,
    preprocess: Callable[[Tensor], Tensor] = as_they_are,
) -> Classifier:
    """A classifier around a module, its weights drawn from `seed` (None: as they are).

    With a layer, the target's grid is worked out from one forward.
    """
    if seed is not None:
        randomised(module, seed)
    geometry = Geometry(crop=(size, size))
    names = tuple(f"class {index}" for index in range(classes))
    subject = Classifier(
        name="tiny", spec="tiny", module=module, geometry=geometry, preprocess=preprocess, classes=names
    )
    if layer is None:
        return subject
    seen: list[Any] = []
    handle = module.get_submodule(layer).register_forward_hook(lambda _module, _args, output: seen.append(output))
    with torch.no_grad():
        subject.logits(torch.zeros(1, 3, size, size, dtype=next(module.parameters()).dtype))
    handle.remove()
    raw = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    return Classifier(
        name="tiny",
        spec="tiny",
        module=module,
        geometry=geometry,
        preprocess=preprocess,
        classes=names,
        target_layer=layer,
        grid=infer_grid(tuple(raw.shape), geometry.crop),
    )


def some_images(count: int = 3, *, size: int = SIZE, seed: int = 0) -> Tensor:
    """Uniform noise in [0, 1]."""
    return torch.rand(count, 3, size, size, generator=generator(seed, "tiny images"))


def numbered_dataset(count: int, *, size: int = 2) -> Dataset:
    """Images that carry their number: image i is i / count everywhere, and its id is "img<i>"."""
    ids = tuple(f"img{index}" for index in range(count))
    return Dataset(
        spec=f"numbered:{count}",
        ids=ids,
        labels=tuple(index % CLASSES for index in range(count)),
        classes=tuple(f"class {index}" for index in range(CLASSES)),
        sha256=f"numbered {count}",
        read=lambda image_id: torch.full((3, size, size), int(image_id[3:]) / count),
    )
