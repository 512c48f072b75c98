"""Guided backpropagation through a stack of explicit layers, one product at a time, in float64.

A stack is a list of layers: ("conv", weights, bias, stride, padding), ("dense", weights, bias), ("relu",), ("relu6",).
"""

from typing import Any

import numpy as np

Layer = tuple[Any, ...]


def forward(stack: list[Layer], image: np.ndarray) -> list[np.ndarray]:
    """The input of every layer, then the scores."""
    values = [image.astype(np.float64)]
    for layer in stack:
        kind, x = layer[0], values[-1]
        if kind == "conv":
            values.append(_convolve(x, *layer[1:]))
        elif kind == "dense":
            values.append(layer[1] @ x.ravel() + layer[2])
        elif kind == "relu":
            values.append(np.maximum(x, 0))
        else:
            values.append(np.minimum(np.maximum(x, 0), 6))
    return values


def guided_gradient(stack: list[Layer], image: np.ndarray, target: int) -> np.ndarray:
    """Springenberg et al. 2014, arXiv:1412.6806, section 3.4: R_i^l = (f_i^l > 0) (R_i^{l+1} > 0) R_i^{l+1} at a ReLU.

    Everywhere else the gradient goes back as it does. Shape of the image.
    """
    values = forward(stack, image)
    signal = np.zeros_like(values[-1])
    signal[target] = 1
    for layer, x in zip(reversed(stack), reversed(values[:-1]), strict=True):
        kind = layer[0]
        if kind == "conv":
            signal = _convolve_back(signal, x.shape, *layer[1:])
        elif kind == "dense":
            signal = (layer[1].T @ signal).reshape(x.shape)
        else:
            top = 6 if kind == "relu6" else np.inf
            for place in np.ndindex(x.shape):
                if not (0 < x[place] < top and signal[place] > 0):
                    signal[place] = 0
    return signal


def _convolve(x: np.ndarray, weights: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> np.ndarray:
    channels, _, rows, columns = weights.shape
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    height, width = (padded.shape[1] - rows) // stride + 1, (padded.shape[2] - columns) // stride + 1
    out = np.zeros((channels, height, width))
    for k, i, j in np.ndindex(out.shape):
        top, left = i * stride, j * stride
        out[k, i, j] = bias[k] + np.sum(weights[k] * padded[:, top : top + rows, left : left + columns])
    return out


def _convolve_back(
    signal: np.ndarray, shape: tuple[int, ...], weights: np.ndarray, _bias: np.ndarray, stride: int, padding: int
) -> np.ndarray:
    rows, columns = weights.shape[2:]
    padded = np.zeros((shape[0], shape[1] + 2 * padding, shape[2] + 2 * padding))
    for k, i, j in np.ndindex(signal.shape):
        top, left = i * stride, j * stride
        padded[:, top : top + rows, left : left + columns] += signal[k, i, j] * weights[k]
    return padded[:, padding : padding + shape[1], padding : padding + shape[2]]
