"""The transformer of DETR as MDETR has it: image cells and caption tokens in one sequence, read by learned queries.

Carion et al. 2020 (arXiv:2005.12872), appendix A.4 and figure 10; Kamath et al. 2021 (arXiv:2104.12763), figure 2.
Layers are normalised after each residual sum. There is no dropout: this is for inference. Names of modules are those
of the published weights.
"""

from math import pi

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from camcore.models.mdetr.config import Config

Sequence = Float[Tensor, "b s d"]
Queries = Float[Tensor, "b q d"]
Padding = Bool[Tensor, "b s"]  # True where there is nothing


def sine_positions(
    padding: Bool[Tensor, "b i j"], width: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "b i j {width}"]:
    """Where each cell lies within its image, as sines and cosines: the first half by row, the second by column.

    Cells are numbered from 1 along the part that is no padding, and divided by how many there are, so that positions
    run to 2π whatever the size; wavelengths grow geometrically to 10000 · 2π.
    Carion et al. 2020, appendix A.4, after Vaswani et al. 2017 (arXiv:1706.03762), section 3.5.

    Args:
        padding: True where a cell is no part of its image.
        width: Of the encoding; a multiple of 4.
        dtype: Of the encoding.
    """
    inside = (~padding).to(dtype)
    half = torch.arange(width // 2, device=padding.device)
    wavelengths = 10000 ** (2 * (half // 2) / (width // 2)).to(dtype)
    encoded = []
    for axis in (1, 2):
        number = inside.cumsum(axis)
        last = number.narrow(axis, number.shape[axis] - 1, 1)
        angles = (number / (last + 1e-6) * 2 * pi)[..., None] / wavelengths
        encoded.append(torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1).flatten(-2))
    return torch.cat(encoded, dim=-1)


def _attention(config: Config) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(config.hidden, config.heads, batch_first=True)


class EncoderLayer(nn.Module):
    """Self-attention in which positions are added to queries and keys, then two linear layers."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attn = _attention(config)
        self.linear1 = nn.Linear(config.hidden, config.feedforward)
        self.linear2 = nn.Linear(config.feedforward, config.hidden)
        self.norm1 = nn.LayerNorm(config.hidden)
        self.norm2 = nn.LayerNorm(config.hidden)

    def forward(self, x: Sequence, positions: Sequence, padding: Padding) -> Sequence:
        """One layer."""
        placed = x + positions
        x = self.norm1(x + self.self_attn(placed, placed, x, key_padding_mask=padding, need_weights=False)[0])
        return self.norm2(x + self.linear2(self.linear1(x).relu()))


class DecoderLayer(nn.Module):
    """The queries attend to each other, then to the whole sequence: cells and tokens at once."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attn = _attention(config)
        self.cross_attn_image = _attention(config)
        self.linear1 = nn.Linear(config.hidden, config.feedforward)
        self.linear2 = nn.Linear(config.feedforward, config.hidden)
        self.norm1 = nn.LayerNorm(config.hidden)
        self.norm3 = nn.LayerNorm(config.hidden)  # there was a norm2 while the caption had an attention of its own
        self.norm4 = nn.LayerNorm(config.hidden)

    def forward(self, x: Queries, queries: Queries, memory: Sequence, positions: Sequence, padding: Padding) -> Queries:
        """One layer."""
        placed = x + queries
        x = self.norm1(x + self.self_attn(placed, placed, x, need_weights=False)[0])
        keys = memory + positions
        seen = self.cross_attn_image(x + queries, keys, memory, key_padding_mask=padding, need_weights=False)[0]
        x = self.norm3(x + seen)
        return self.norm4(x + self.linear2(self.linear1(x).relu()))


class Encoder(nn.Module):
    """Layers one after another; positions are given to each."""

    def __init__(self, config: Config, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(layers))

    def forward(self, x: Sequence, positions: Sequence, padding: Padding) -> Sequence:
        """The memory that the decoder reads."""
        for layer in self.layers:
            x = layer(x, positions, padding)
        return x


class Decoder(nn.Module):
    """Layers one after another, which begin with nothing but the queries, and one norm that all their outputs share."""

    def __init__(self, config: Config, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(layers))
        self.norm = nn.LayerNorm(config.hidden)

    def forward(
        self, queries: Queries, memory: Sequence, positions: Sequence, padding: Padding
    ) -> Float[Tensor, "layers b q d"]:
        """What each layer made of the queries, normalised."""
        x, made = torch.zeros_like(queries), []
        for layer in self.layers:
            x = layer(x, queries, memory, positions, padding)
            made.append(self.norm(x))
        return torch.stack(made)
