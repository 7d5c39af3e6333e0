"""Sizes and steps of Winograd's convolution, from shapes alone, shared by the twins."""

import math
from typing import NamedTuple

import numpy as np

from fastcnn_kernels.conv2d.geometry import before_pooling, refuses
from fastcnn_kernels.conv2d.masked import geometry as masked_geometry
from fastcnn_kernels.conv2d.winograd import cost
from fastcnn_kernels.gemm.geometry import filled_panel_rows
from fastcnn_kernels.memory import planned

#: Taps a side at most: 9 parts.
LARGEST = 7


class Plan(NamedTuple):
    """One call."""

    table: np.ndarray  # rows: N, P, Q, groups, M, length of the sum; H, W, top, left, tiles per column and row of a
    #                    plane; weight steps of row, channel and group, 1 if the taps are reversed, 2 if windows are
    #                    pooled; R, S, parts of 3 x 3 side by side, channels, and the place each part takes in the sum;
    #                    the `Tile`, rows and columns of the first tiles that lie before the result; `register_tile`
    m: int


class Tile(NamedTuple):
    """Pixels of a patch, from one to the next, and of a result; products that this one comes from; along an axis."""

    patch: int
    step: int
    side: int
    sums: int


#: Layers of stride 2, where other m are those of stride 1: forward, and the input gradient. As in transforms.h.
DOWN, UP = 9, 5
TILES = {2: Tile(4, 2, 2, 4), 4: Tile(6, 4, 4, 6), DOWN: Tile(9, 8, 4, 5), UP: Tile(5, 4, 8, 9)}

#: Points of the planes of even and of odd pixels along an axis of stride 2: the latter have one tap, and no infinity.
_POINTS = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3])
_PAIRS = (5 * _POINTS[:, None] + _POINTS).ravel()
SPACING = 16  # elements between the matrices of a panel beyond their size, or their starts meet in few cache sets


class Matrices(NamedTuple):
    """How the matrices of a panel follow each other, in elements: all that lies between the transforms."""

    products: np.ndarray  # (E, 3): where the filters and the patches of a product begin, and the length of its sum
    filters: np.ndarray  # where each matrix of filters begins, in the order of the transform
    patches: np.ndarray
    u_size: int
    v_size: int


@planned
def matrices(m, C, mr, columns):
    """Order of the matrices of C channels: those of the planes that share a product are one sum, without a gap."""
    product = _PAIRS if m == DOWN else np.arange(TILES[m].sums ** 2)  # whose terms each matrix of filters has
    lengths = np.bincount(product)
    place = np.argsort(np.argsort(product, kind="stable"))

    def beginnings(place, product, width):
        return place * C * width + product * SPACING

    filters, patches = (beginnings(place, product, width) for width in (mr, columns))
    products = np.arange(len(lengths))
    starts = [beginnings(np.cumsum(lengths) - lengths, products, width) for width in (mr, columns)]
    if m == UP:
        patches = beginnings(products[:25], products[:25], columns)
        starts[1] = patches[_PAIRS]
    table = np.stack([*starts, lengths * C], axis=1).astype(np.intp)
    sizes = (np.max(order) + C * width + SPACING for order, width in ((filters, mr), (patches, columns)))
    return Matrices(table, filters.astype(np.intp), patches.astype(np.intp), *map(int, sizes))


@planned
def gradient_of(m):
    """Which matrix of dy each matrix of the image's patches meets in the weight gradient."""
    return _PAIRS.astype(np.intp) if m == DOWN else np.arange((m + 2) ** 2, dtype=np.intp)


def parts(R, S):
    """Parts of 3 x 3 into which a filter is cut, one below the other and side by side; the last are filled up by 0."""
    return -(-R // 3), -(-S // 3)


def _tiles(m, result, before=(0, 0)):
    """Tiles per column and row of a result, the first of which begin so many pixels before it."""
    return [-(-(size + skip) // TILES[m].side) for size, skip in zip(result, before, strict=True)]


def _before(pads):
    """Pixels of the first tiles UP that lie before the result: they begin with an odd row of the padded image."""
    return tuple((pad - 1) % 2 for pad in pads)


def register_tile(rows, columns, MR, MOST_ROWS, lanes):
    """Rows and vectors of a register tile: two vectors, or one that holds all columns and leaves room for more rows."""
    vectors = 1 if columns <= lanes else 2
    return filled_panel_rows(rows, MOST_ROWS if vectors == 1 else MR, overhead=1), vectors


def _plan(
    registers, m, N, groups, M, channels, place, source, result, top_left, taps, weight_steps, reversed_taps, pool=1,
    before=(0, 0), lanes_are_channels=False,
):  # fmt: skip
    down, across = parts(*taps)
    table = np.zeros((6, 6), np.intp)
    table[0] = N, *result, groups, M, down * across * place
    table[1] = *source, *top_left, *_tiles(m, result, before)
    table[2, :5] = *weight_steps, reversed_taps, pool
    table[3, :5] = *taps, across, channels, place
    table[4] = *TILES[m], *before
    table[5, :2] = register_tile(M, table[0, 5] if lanes_are_channels else N * table[1, 4] * table[1, 5], *registers)
    return Plan(table, m)


@planned
def forward(m, x_shape, weight_shape, out_shape, stride, padding, groups, pool, registers):
    """Plan of ``conv2d``; `registers` is MR, MOST_ROWS and the lanes of a vector."""
    (N, _, *source), (K, C, R, S), (_, _, *result) = x_shape, weight_shape, before_pooling(out_shape, pool)
    M, taps, top_left = K // groups, R * S, (-padding[0], -padding[2])
    steps = (C * taps, taps, M * C * taps)
    m = m if stride == (1, 1) else DOWN
    return _plan(registers, m, N, groups, M, C, C, source, result, top_left, (R, S), steps, False, pool)


@planned
def grad_weight(m, x_shape, out_shape, dy_shape, stride, padding, groups, registers):
    """Plan of ``conv2d_grad_weight``, whose lanes are channels: several parts each begin at a whole vector of them."""
    (N, _, *source), (K, C, R, S), (_, _, *result), (*_, lanes) = x_shape, out_shape, dy_shape, registers
    place = C if parts(R, S) == (1, 1) else -(-C // lanes) * lanes
    m, top_left = m if stride == (1, 1) else DOWN, (-padding[0], -padding[2])
    return _plan(
        registers, m, N, groups, K // groups, C, place, source, result, top_left, (R, S), (0, 0, 0), False,
        lanes_are_channels=True,
    )  # fmt: skip


@planned
def grad_input(m, dy_shape, weight_shape, out_shape, stride, padding, groups, registers):
    """Plan of ``conv2d_grad_input``: the forward product over dy, taps reversed and channels exchanged."""
    (N, K, *source), (_, C, R, S), (_, _, *result) = dy_shape, weight_shape, out_shape
    pads, taps, Kg = (padding[0], padding[2]), R * S, K // groups
    steps = (taps, C * taps, Kg * C * taps)
    if stride == (1, 1):
        top_left, before = (pads[0] - R + 1, pads[1] - S + 1), (0, 0)
    else:
        m, top_left, before = UP, tuple((pad - 1) // 2 for pad in pads), _before(pads)
    return _plan(registers, m, N, groups, C, Kg, Kg, source, result, top_left, (R, S), steps, True, before=before)


def cannot(*, out, stride, dilation, x=None, weight=None, dy=None, max_pool=1, **_):
    """Say why tiles of stride 1 cannot compute the layer, or ""."""
    R, S = (out if weight is None else weight).shape[2:]
    if not (3 <= min(R, S) and max(R, S) <= LARGEST) or stride != (1, 1):
        return f"takes 3 x 3 to 7 x 7 taps and stride 1, not {R} x {S} and {stride}"
    if dilation == (1, 1):
        return ""
    if max_pool != 1:
        return "pools layers of dilation 1 only: the pixels of a window are otherwise in several images"
    return refuses(out=out, stride=stride, dilation=dilation, x=x, weight=weight, dy=dy)


def cannot4(*, out, stride, dilation, weight=None, **call):
    """As `cannot`; layers of 3 x 3 taps, stride 2 and dilation 1 pass as well."""
    if stride == (1, 1):
        return cannot(out=out, stride=stride, dilation=dilation, weight=weight, **call)
    R, S = (out if weight is None else weight).shape[2:]
    if ((R, S), stride, dilation) == ((3, 3), (2, 2), (1, 1)):
        return ""
    layer = f"not {R} x {S}, {stride} and {dilation}"
    return f"takes 3 x 3 to 7 x 7 taps and stride 1, or 3 x 3 taps, stride (2, 2) and dilation 1, {layer}"


def refuses4(**call):
    """Decline what the kernels cannot do, and layers on which others are faster than tiles of 4 x 4."""
    return cannot4(**call) or _slower(4, **call)


def refuses2(**call):
    """Decline what the kernels cannot do, and layers on which others are faster than tiles of 2 x 2."""
    return cannot(**call) or _slower(2, **call)


def _slower(m, **call):
    """Say why tiles of m x m are not the fastest, or ""; plain sums are masked on no other condition than shapes."""
    weights = call.get("weight") is None  # whose gradient's price knows no masks
    masked = not (weights or masked_geometry.cannot(**call) or masked_geometry.declines(**call))
    return _dearer(m, masked, **call)


def _dearer(
    m, masked, *, out, stride, padding, dilation, x=None, weight=None, dy=None, groups, max_pool=1, packed=None, **_
):  # fmt: skip
    K, C, *taps = (out if weight is None else weight).shape
    strided, direction = stride != (1, 1), "weights" if weight is None else "up" if x is None else "down"
    N, _, *result = dy.shape if weight is None or (strided and x is None) else before_pooling(out.shape, max_pool)
    M, C = (C, K // groups) if x is None else (K // groups, C)
    if strided:
        tiles = _tiles(UP, out.shape[2:], _before(padding[::2])) if direction == "up" else _tiles(DOWN, result)
        call = (groups, N * math.prod(result), N * math.prod(tiles), M, C, out.itemsize, packed is not None)
        return cost.declines(m, cost.strided(direction, *call))
    layer = (weight is None, groups, N, M, C, tuple(taps), tuple(result), out.itemsize)
    return cost.declines(m, cost.costs(*layer, packed is not None, dilation, masked))
