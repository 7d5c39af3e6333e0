"""Convolution as NumPy users write it: every window a column, then one BLAS matrix product per image and group.

    columns (N, G, C/G R S, P Q)    y = weight (G, K/G, C/G R S) @ columns

The windows are gathered for a few images at a time, so that the columns stay below `BLOCK` bytes.
"""

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fastcnn_kernels.conv2d.cases import Layer

BLOCK = 1 << 26


def blocks(layer: Layer, itemsize: int) -> Iterator[slice]:
    """Images whose columns fit a block."""
    P, Q = layer.output
    step = max(1, BLOCK // (layer.C * layer.R * layer.S * P * Q * itemsize))
    for start in range(0, layer.N, step):
        yield slice(start, start + step)


def columns(layer: Layer, x: np.ndarray) -> np.ndarray:
    """Gather windows of images (N, C, H, W) into columns; a view where there is nothing to gather."""
    top, bottom, left, right = layer.padding
    if any(layer.padding):
        x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (P, Q), (sh, sw), (dh, dw) = layer.output, layer.stride, layer.dilation
    windows = sliding_window_view(x, (dh * (layer.R - 1) + 1, dw * (layer.S - 1) + 1), axis=(2, 3))
    taps = windows[:, :, : sh * P : sh, : sw * Q : sw, ::dh, ::dw].transpose(0, 1, 4, 5, 2, 3)
    return np.ascontiguousarray(taps).reshape(len(x), layer.groups, -1, P * Q)


def forward(layer: Layer, x: np.ndarray, weight: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """y; `dy` only gives its shape."""
    y = np.empty_like(dy)
    filters = weight.reshape(layer.groups, layer.K // layer.groups, -1)
    for part in blocks(layer, x.itemsize):
        cols = columns(layer, x[part])
        np.matmul(filters, cols, out=y[part].reshape(len(cols), *filters.shape[:2], -1))
    return y


def grad_input(layer: Layer, x: np.ndarray, weight: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """dx: the columns' gradients, added where their windows were; `x` only gives its shape."""
    top, bottom, left, right = layer.padding
    (P, Q), (sh, sw), (dh, dw) = layer.output, layer.stride, layer.dilation
    dx = np.zeros((layer.N, layer.C, layer.H + top + bottom, layer.W + left + right), x.dtype)
    filters = weight.reshape(layer.groups, layer.K // layer.groups, -1)
    for part in blocks(layer, x.itemsize):
        grads = dy[part].reshape(-1, *filters.shape[:2], P * Q)
        taps = (filters.swapaxes(1, 2) @ grads).reshape(-1, layer.C, layer.R, layer.S, P, Q)
        for r in range(layer.R):
            for s in range(layer.S):
                rows, cols = slice(r * dh, r * dh + sh * P, sh), slice(s * dw, s * dw + sw * Q, sw)
                dx[part, :, rows, cols] += taps[:, :, r, s]
    return dx[:, :, top : top + layer.H, left : left + layer.W]


def grad_weight(layer: Layer, x: np.ndarray, weight: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """dw; `weight` only gives its shape."""
    dw = np.zeros((layer.groups, layer.K // layer.groups, weight[0].size), x.dtype)
    for part in blocks(layer, x.itemsize):
        cols = columns(layer, x[part])
        grads = dy[part].reshape(len(cols), *dw.shape[:2], -1)
        dw += (grads @ cols.swapaxes(2, 3)).sum(axis=0)
    return dw.reshape(weight.shape)


DIRECTIONS = {"fwd": forward, "dx": grad_input, "dw": grad_weight}
