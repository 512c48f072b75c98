"""Networks of `tests.tiny` cut at a layer by hand, for oracles that ask the model one picture or map at a time."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from camcore import record
from camcore.subject import Normalise
from tests.tiny import ChannelsLastNet, FlatNet, GapNet, InPlaceNet, TokenNet, TupleNet, some_images, tiny_subject


@dataclass(frozen=True)
class Split:
    """A network cut at a layer by hand, module call by module call: what the oracles ask."""

    build: Callable[[], nn.Module]
    layer: str
    before: Callable[[Any, Tensor], Tensor]  # pixels -> features (b k i j)
    behind: Callable[[Any, Tensor, Tensor], Tensor]  # features, pixels -> class scores


def end_of_tokens(net: Any, features: Tensor, pixels: Tensor) -> Tensor:
    """The rest of a TokenNet, when the second block's first norm gives these patches."""
    tokens = stem_of_tokens(net, pixels)
    normed = torch.cat([net.block2.norm1(tokens)[:, :1], features.flatten(2).transpose(1, 2)], 1)
    tokens = tokens + net.block2.attention(normed, normed, normed, need_weights=False)[0]
    tokens = tokens + torch.relu(net.block2.dense(net.block2.norm2(tokens)))
    return net.head(net.norm(tokens)[:, 0])


def stem_of_tokens(net: Any, pixels: Tensor) -> Tensor:
    tokens = net.patches(pixels).flatten(2).transpose(1, 2)
    return net.block1(torch.cat([net.class_token.expand(len(pixels), -1, -1), tokens], 1))


SPLITS = {
    "gap": Split(GapNet, "relu", lambda n, x: n.conv2(n.conv1(x)).relu(), lambda n, a, _: n.head(a.mean((2, 3)))),
    "before a relu": Split(
        GapNet, "conv2", lambda n, x: n.conv2(n.conv1(x)), lambda n, a, _: n.head(a.relu().mean((2, 3)))
    ),
    "flat": Split(FlatNet, "relu", lambda n, x: n.conv(x).relu(), lambda n, a, _: n.dense(a.flatten(1))),
    "in place": Split(InPlaceNet, "conv", lambda n, x: n.conv(x), lambda n, a, _: n.head(a.clamp_min(0).mean((2, 3)))),
    "channels last": Split(
        ChannelsLastNet,
        "norm",
        lambda n, x: n.norm(n.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
        lambda n, a, _: n.head(n.mix(a.permute(0, 2, 3, 1)).relu().mean((1, 2))),
    ),
    "tokens": Split(
        TokenNet,
        "block2.norm1",
        lambda n, x: n.block2.norm1(stem_of_tokens(n, x))[:, 1:].transpose(1, 2).unflatten(2, (4, 4)),
        end_of_tokens,
    ),
    "tuple": Split(TupleNet, "body", lambda n, x: n.body.conv(x), lambda n, a, _: n.head(a.relu().mean((2, 3)))),
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}  # of the largest value; float32 is held against float64 weights


def recorded(name: str, dtype: torch.dtype, *, seed: int = 0, preprocess: Any = None, **options: Any) -> Any:
    split = SPLITS[name]
    subject = tiny_subject(split.build(), split.layer, seed=seed)
    subject = replace(subject, module=subject.module.to(dtype), preprocess=preprocess or subject.preprocess)
    return record(subject, some_images(2, seed=seed).to(dtype), torch.tensor([1, 3]), chunk=5, **options)


class Asked:
    """A recording's model in float64, cut by hand; answers for one picture or one map of features at a time."""

    def __init__(self, split: Split, rec: Any, index: int) -> None:
        self.split, self.net, self.subject = split, deepcopy(rec.subject.module).double(), rec.subject
        self.target = int(rec.target[index])
        self.against = None if rec.against is None else int(rec.against[index])
        self.edit = rec.behind if rec.behind is not None else lambda features: features
        self.image = rec.images[index : index + 1].double()
        self.pixels = self.image[0].tolist()
        with torch.no_grad():
            self.features = split.before(self.net, self.subject.preprocess(self.image))[0].tolist()

    @torch.no_grad()
    def scores_of_features(self, features: Any) -> list[float]:
        folded = self.edit(torch.tensor([features], dtype=torch.float64))
        return self.split.behind(self.net, folded, self.subject.preprocess(self.image))[0].tolist()

    @torch.no_grad()
    def scores_of_pixels(self, pixels: Any) -> list[float]:
        given = self.subject.preprocess(torch.tensor([pixels], dtype=torch.float64))
        return self.split.behind(self.net, self.edit(self.split.before(self.net, given)), given)[0].tolist()

    def explained(self, scores: list[float]) -> float:
        return scores[self.target] - (0.0 if self.against is None else scores[self.against])

    def score_of_features(self, features: Any) -> float:
        return self.explained(self.scores_of_features(features))

    def score_of_pixels(self, pixels: Any) -> float:
        return self.explained(self.scores_of_pixels(pixels))


def close(found: Tensor, expected: list[Any], dtype: torch.dtype) -> None:
    wanted = torch.tensor(expected, dtype=torch.float64)
    assert (found.double() - wanted).abs().max() <= TOLERANCE[dtype] * wanted.abs().max()


def top_rows(features: Tensor) -> Tensor:
    """A wall that hides the lower half of the map."""
    seen = torch.arange(features.shape[2]) < features.shape[2] // 2
    return torch.where(seen[:, None], features, 0)


CASES: dict[str, dict[str, Any]] = {
    "a class": {},
    "a contrast": {"against": torch.tensor([0, 4])},
    "a wall": {"behind": top_rows},
    "a normalised input": {"preprocess": Normalise()},
}


def with_dead_channels(dtype: torch.dtype, layer: str, *, value: float = 0.0) -> Any:
    """Of six channels, channels 1 and 4 hold the same value everywhere (0 behind a ReLU if the value is negative)."""
    subject = tiny_subject(GapNet(), layer)
    subject.module.to(dtype)
    with torch.no_grad():
        for dead in (1, 4):
            subject.module.conv2.weight[dead] = 0
            subject.module.conv2.bias[dead] = value
    return record(subject, some_images(2).to(dtype), torch.tensor([1, 3]), chunk=5)
