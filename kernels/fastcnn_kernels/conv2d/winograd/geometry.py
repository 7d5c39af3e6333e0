"""Sizes and steps of Winograd's convolution, from shapes alone, shared by the twins."""

from typing import NamedTuple

import numpy as np

from fastcnn_kernels.conv2d.geometry import before_pooling, refuses
from fastcnn_kernels.conv2d.masked import geometry as masked_geometry
from fastcnn_kernels.conv2d.winograd import cost
from fastcnn_kernels.memory import planned

#: Taps a side at most: 9 parts.
LARGEST = 7


class Plan(NamedTuple):
    """One call."""

    table: np.ndarray  # rows: N, P, Q, groups, M, length of the sum; H, W, top, left, tiles per column and row of a
    #                    plane; weight steps of row, channel and group, 1 if the taps are reversed, 2 if windows are
    #                    pooled; R, S, parts of 3 x 3 side by side, channels, and the place each part takes in the sum
    m: int


def parts(R, S):
    """Parts of 3 x 3 into which a filter is cut, one below the other and side by side; the last are filled up by 0."""
    return -(-R // 3), -(-S // 3)


def _plan(m, N, groups, M, channels, place, source, result, padding, taps, weight_steps, reversed_taps, pool=1):
    down, across = parts(*taps)
    table = np.zeros((4, 6), np.intp)
    table[0] = N, *result, groups, M, down * across * place
    table[1] = *source, -padding[0], -padding[1], -(-result[0] // m), -(-result[1] // m)
    table[2, :5] = *weight_steps, reversed_taps, pool
    table[3, :5] = *taps, across, channels, place
    return Plan(table, m)


@planned
def forward(m, x_shape, weight_shape, out_shape, padding, groups, pool=1):
    """Plan of ``conv2d``."""
    (N, _, *source), (K, C, R, S), (_, _, *result) = x_shape, weight_shape, before_pooling(out_shape, pool)
    M, taps = K // groups, R * S
    steps = (C * taps, taps, M * C * taps)
    return _plan(m, N, groups, M, C, C, source, result, (padding[0], padding[2]), (R, S), steps, False, pool)


@planned
def grad_weight(m, x_shape, out_shape, dy_shape, padding, groups, lanes):
    """Plan of ``conv2d_grad_weight``: several parts each begin at a multiple of `lanes`, those of a vector."""
    (N, _, *source), (K, C, R, S), (_, _, *result) = x_shape, out_shape, dy_shape
    place = C if parts(R, S) == (1, 1) else -(-C // lanes) * lanes
    before = (padding[0], padding[2])
    return _plan(m, N, groups, K // groups, C, place, source, result, before, (R, S), (0, 0, 0), False)


@planned
def grad_input(m, dy_shape, weight_shape, out_shape, padding, groups):
    """Plan of ``conv2d_grad_input``: the forward product over dy, taps reversed and channels exchanged."""
    (N, K, *source), (_, C, R, S), (_, _, *result) = dy_shape, weight_shape, out_shape
    before, taps, Kg = (R - 1 - padding[0], S - 1 - padding[2]), R * S, K // groups
    return _plan(m, N, groups, C, Kg, Kg, source, result, before, (R, S), (taps, C * taps, Kg * C * taps), True)


def cannot(*, out, stride, dilation, x=None, weight=None, dy=None, max_pool=1, **_):
    """Say why the layer is not one of 3 x 3 to 7 x 7 taps, each step 1, or ""."""
    R, S = (out if weight is None else weight).shape[2:]
    if not (3 <= min(R, S) and max(R, S) <= LARGEST) or stride != (1, 1):
        return f"takes 3 x 3 to 7 x 7 taps and stride 1, not {R} x {S} and {stride}"
    if dilation == (1, 1):
        return ""
    if max_pool != 1:
        return "pools layers of dilation 1 only: the pixels of a window are otherwise in several images"
    return refuses(out=out, stride=stride, dilation=dilation, x=x, weight=weight, dy=dy)


def refuses4(**call):
    """Decline what the kernels cannot do, and layers on which others are faster than tiles of 4 x 4."""
    return cannot(**call) or _slower(4, **call)


def refuses2(**call):
    """Decline what the kernels cannot do, and layers on which others are faster than tiles of 2 x 2."""
    return cannot(**call) or _slower(2, **call)


def _slower(m, **call):
    """Say why tiles of m x m are not the fastest, or ""; plain sums are masked on no other condition than shapes."""
    weights = call.get("weight") is None  # whose gradient's price knows no masks
    masked = not (weights or masked_geometry.cannot(**call) or masked_geometry.declines(**call))
    return _dearer(m, masked, **call)


def _dearer(m, masked, *, out, dilation, x=None, weight=None, dy=None, groups, max_pool=1, packed=None, **_):
    K, C, *taps = (out if weight is None else weight).shape
    N, _, *result = (dy if weight is None else out).shape if max_pool == 1 else before_pooling(out.shape, max_pool)
    M, C = (C, K // groups) if x is None else (K // groups, C)
    layer = (weight is None, groups, N, M, C, tuple(taps), tuple(result), out.itemsize)
    return cost.declines(m, cost.costs(*layer, packed is not None, dilation, masked))
