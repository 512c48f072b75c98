"""Attention rollout and relevance from explicit matrices, and a small transformer that gives them, in numpy.

Gradients are taken by complex steps (Squire and Trapp 1998, doi:10.1137/S003614459631241X): but for terms of h²,
f(x + ih) is f(x) + ih f'(x), so Im f / h is the derivative to the last digit: no difference of close numbers, no graph.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import erf

STEP = 1e-30


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A layer norm: scale, shift, epsilon."""

    scale: np.ndarray
    shift: np.ndarray
    eps: float


@dataclass(frozen=True, kw_only=True)
class Block:
    """One pre-norm block; weights are (out, in), `qkv` holds queries, keys and values in this order."""

    norm1: Norm
    qkv: tuple[np.ndarray, np.ndarray]
    out: tuple[np.ndarray, np.ndarray]
    norm2: Norm
    dense1: tuple[np.ndarray, np.ndarray]
    dense2: tuple[np.ndarray, np.ndarray]
    heads: int


def rollout(matrices: list[np.ndarray]) -> np.ndarray:
    """Abnar and Zuidema 2020, arXiv:2005.00928, eq. 1: Ã(l_i) = A(l_i) Ã(l_{i-1}), A = 0.5 W + 0.5 I, rows sum to 1."""
    product = np.eye(matrices[0].shape[1])
    for matrix in matrices:
        heads, tokens, _ = matrix.shape
        mixed = np.zeros((tokens, tokens))
        for m in range(tokens):
            for n in range(tokens):
                mixed[m, n] = 0.5 * sum(matrix[h, m, n] for h in range(heads)) / heads + (0.5 if m == n else 0.0)
            mixed[m] /= mixed[m].sum()
        product = mixed @ product
    return product


def relevance(matrices: list[np.ndarray], gradients: list[np.ndarray]) -> np.ndarray:
    """Chefer, Gur and Wolf 2021, arXiv:2103.15679, eq. 5 and 6: Ā = E_h[(∇A ⊙ A)^+], R = R + Ā R from R = I."""
    total = np.eye(matrices[0].shape[1])
    for matrix, gradient in zip(matrices, gradients, strict=True):
        heads, tokens, _ = matrix.shape
        mixed = np.zeros((tokens, tokens))
        for h in range(heads):
            for m in range(tokens):
                for n in range(tokens):
                    mixed[m, n] += max(gradient[h, m, n] * matrix[h, m, n], 0.0) / heads
        total = total + mixed @ total
    return total


def run(
    tokens: np.ndarray, blocks: list[Block], replaced: dict[int, np.ndarray] | None = None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """(tokens, width) after the blocks, and each block's attention (heads, tokens, tokens).

    The attention of the blocks in `replaced` is what it says there; those after it are worked out anew.
    """
    matrices = []
    for number, block in enumerate(blocks):
        queries, keys, values = np.split(_dense(_normalise(tokens, block.norm1), block.qkv), 3, axis=1)
        width = queries.shape[1] // block.heads
        heads, seen = [], []
        for h in range(block.heads):
            own = slice(h * width, (h + 1) * width)
            scores = queries[:, own] @ keys[:, own].T / np.sqrt(width)
            weights = np.exp(scores - scores.real.max(axis=1, keepdims=True))
            weights = weights / weights.sum(axis=1, keepdims=True)
            if replaced and number in replaced:
                weights = replaced[number][h]
            heads.append(weights)
            seen.append(weights @ values[:, own])
        matrices.append(np.stack(heads))
        tokens = tokens + _dense(np.concatenate(seen, axis=1), block.out)
        hidden = _dense(_normalise(tokens, block.norm2), block.dense1)
        tokens = tokens + _dense(hidden * 0.5 * (1 + erf(hidden / np.sqrt(2))), block.dense2)
    return tokens, matrices


def score(tokens: np.ndarray, norm: Norm, weights: np.ndarray, bias: float, read: np.ndarray) -> complex:
    """The class score of a linear head that reads the normalised tokens weighted by `read`."""
    return weights @ (read @ _normalise(tokens, norm)) + bias


def attention_gradients(
    tokens: np.ndarray, blocks: list[Block], score_of: Callable[[np.ndarray], complex]
) -> list[np.ndarray]:
    """d score / d attention for each block, entry by entry; `score_of` takes the tokens after the last block."""
    _, matrices = run(tokens, blocks)
    return [
        gradient(lambda moved, number=number: score_of(run(tokens, blocks, {number: moved})[0]), matrix)
        for number, matrix in enumerate(matrices)
    ]


def gradient(function: Callable[[np.ndarray], complex], point: np.ndarray) -> np.ndarray:
    """The gradient of an analytic function, entry by entry, by complex steps."""
    found = np.zeros(point.shape)
    for place in np.ndindex(point.shape):
        moved = point.astype(np.complex128)
        moved[place] += 1j * STEP
        found[place] = function(moved).imag / STEP
    return found


def pool(
    tokens: np.ndarray, query: np.ndarray, keys: np.ndarray, heads: int, replaced: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Attention pooling of tokens by one query, values being tokens: (1, width), and its matrix (heads, 1, tokens)."""
    width = query.shape[1] // heads
    rows, seen = [], []
    for h in range(heads):
        own = slice(h * width, (h + 1) * width)
        scores = query[:, own] @ (tokens @ keys.T)[:, own].T / np.sqrt(width)
        weights = np.exp(scores - scores.real.max())
        weights = weights / weights.sum()
        if replaced is not None:
            weights = replaced[h]
        rows.append(weights)
        seen.append(weights @ tokens[:, own])
    return np.concatenate(seen, axis=1), np.stack(rows)


def _dense(x: np.ndarray, layer: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return x @ layer[0].T + layer[1]


def _normalise(x: np.ndarray, norm: Norm) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    variance = (centred**2).mean(axis=1, keepdims=True)
    return centred / np.sqrt(variance + norm.eps) * norm.scale + norm.shift
