"""Small transformers that call attention in the ways that libraries do, and recordings of them."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from camcore import record
from camcore.images import Geometry
from camcore.layers import with_target_layer
from camcore.seeds import generator
from tests.tiny import CLASSES, tiny_subject

PATCH, WIDTH = 4, 8
METHODS = ("attention_rollout", "attention_relevance")


class Attention(nn.Module):
    """One and the same attention, called in the ways that libraries call it."""

    def __init__(self, heads: int, call: str) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.heads, self.call = heads, call

    def forward(self, tokens: Tensor) -> Tensor:
        if self.call == "multi_head":
            across = tokens.transpose(0, 1)
            return functional.multi_head_attention_forward(
                *(across, across, across, WIDTH, self.heads, self.qkv.weight, self.qkv.bias, None, None, False, 0.0),
                *(self.out.weight, self.out.bias),
                training=False,
                need_weights=False,
            )[0].transpose(0, 1)
        split = self.qkv(tokens).unflatten(2, (3, self.heads, -1))  # (b, t, 3, heads, width)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        if self.call == "dot_product":
            seen = functional.scaled_dot_product_attention(q, k, v)
        elif self.call == "softmax":
            seen = functional.softmax(q @ k.transpose(2, 3) / q.shape[3] ** 0.5, dim=-1) @ v
        else:  # images and heads on one axis
            q, k, v = (each.flatten(0, 1) for each in (q, k, v))
            seen = torch.bmm((torch.bmm(q, k.mT) * q.shape[2] ** -0.5).softmax(2), v).unflatten(0, (-1, self.heads))
        return self.out(seen.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, heads: int, call: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention(heads, call)
        self.dense1, self.dense2 = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.dense2(functional.gelu(self.dense1(self.norm2(tokens))))


class AttentionNet(nn.Module):
    """A small transformer with any number of tokens before the patches, read in one of several ways."""

    def __init__(self, call: str = "dot_product", *, heads: int = 2, prefix: int = 1, read: str = "class") -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        self.before = nn.Parameter(torch.zeros(1, prefix, WIDTH))
        self.blocks = nn.ModuleList(Block(heads, call) for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        self.query = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.keys = nn.Linear(WIDTH, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.heads, self.read = heads, read

    def embed(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        return torch.cat([self.before.expand(len(images), -1, -1), patches], 1)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images)
        for block in self.blocks:
            tokens = block(tokens)
        if self.read == "pool":
            query, keys, values = (
                each.unflatten(2, (self.heads, -1)).transpose(1, 2)
                for each in (self.query.expand(len(tokens), -1, -1), self.keys(tokens), tokens)
            )
            tokens = functional.scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(2)
        weights = self.read_weights(tokens.shape[1]).to(tokens)
        return self.head(weights @ self.norm(tokens))

    def read_weights(self, tokens: int) -> Tensor:
        """How much of each token the head reads."""
        weights = torch.zeros(tokens)
        if self.read in ("class", "pool"):
            weights[0] = 1
        elif self.read == "two":  # class and distillation tokens
            weights[:2] = 0.5
        else:
            weights[self.before.shape[1] :] = 1 / (tokens - self.before.shape[1])
        return weights


def subject_for(net, *, size=(8, 12), seed=0):
    square = tiny_subject(net, size=max(size), seed=seed)
    return with_target_layer(replace(square, geometry=Geometry(crop=size)))


def images_for(count, size=(8, 12), seed=0):
    return torch.rand(count, 3, *size, generator=generator(seed, "attention images"))


def recorded(net, *, count=2, size=(8, 12), seed=0, **given):
    return record(subject_for(net, size=size, seed=seed), images_for(count, size), chunk=2, **given)
