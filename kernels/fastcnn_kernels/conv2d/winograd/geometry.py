"""Sizes and steps of Winograd's convolution, from shapes alone, shared by the twins."""

from typing import NamedTuple

import numpy as np

from fastcnn_kernels.conv2d.geometry import before_pooling
from fastcnn_kernels.conv2d.winograd import cost
from fastcnn_kernels.memory import planned


class Plan(NamedTuple):
    """One call."""

    table: np.ndarray  # rows: N, P, Q, groups, M, channels; H, W, top, left, tiles per column and per row of a plane;
    #                    weight steps of row, channel and group, 1 if the taps are reversed, 2 if windows are pooled
    m: int


def _plan(m, N, groups, M, channels, source, result, padding, weight_steps, reversed_taps, pool=1):
    table = np.zeros((3, 6), np.intp)
    table[0] = N, *result, groups, M, channels
    table[1] = *source, -padding[0], -padding[1], -(-result[0] // m), -(-result[1] // m)
    table[2, :5] = *weight_steps, reversed_taps, pool
    return Plan(table, m)


@planned
def forward(m, x_shape, weight_shape, out_shape, padding, groups, pool=1):
    """Plan of ``conv2d``, and of ``conv2d_grad_weight``."""
    (N, _, *source), (K, C, _, _), (_, _, *result) = x_shape, weight_shape, before_pooling(out_shape, pool)
    M = K // groups
    return _plan(m, N, groups, M, C, source, result, (padding[0], padding[2]), (C * 9, 9, M * C * 9), False, pool)


@planned
def grad_input(m, dy_shape, weight_shape, out_shape, padding, groups):
    """Plan of ``conv2d_grad_input``: the forward product over dy, taps reversed and channels exchanged."""
    (N, K, *source), (_, C, _, _), (_, _, *result) = dy_shape, weight_shape, out_shape
    before = (2 - padding[0], 2 - padding[2])
    return _plan(m, N, groups, C, K // groups, source, result, before, (9, C * 9, K // groups * C * 9), True)


def cannot(*, out, stride, dilation, x=None, weight=None, dy=None, **_):
    """Say why the layer is not one of 3 x 3 taps, each step and distance 1, or ""."""
    taps = (out if weight is None else weight).shape[2:]
    if taps != (3, 3) or stride != (1, 1) or dilation != (1, 1):
        return f"takes 3 x 3 taps, stride 1 and dilation 1, not {taps[0]} x {taps[1]}, {stride} and {dilation}"
    return ""


def refuses4(**call):
    """Decline what the kernels cannot do, and layers on which others are faster than tiles of 4 x 4."""
    return cannot(**call) or _slower(4, **call)


def refuses2(**call):
    """Decline what the kernels cannot do, and layers on which others are faster than tiles of 2 x 2."""
    return cannot(**call) or _slower(2, **call)


def _slower(m, *, out, x=None, weight=None, dy=None, groups, max_pool=1, packed=None, **_):
    K, C = (out if weight is None else weight).shape[:2]
    N, _, *result = (dy if weight is None else out).shape if max_pool == 1 else before_pooling(out.shape, max_pool)
    M, C = (C, K // groups) if x is None else (K // groups, C)
    return cost.declines(
        m, cost.costs(weight is None, groups, N, M, C, tuple(result), out.itemsize, packed is not None)
    )
