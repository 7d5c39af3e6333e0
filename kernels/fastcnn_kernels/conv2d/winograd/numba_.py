"""Winograd's convolution in Numba. Equations, sources and packed order in the family's ``__init__``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithms are described there. An array and a
start index stand for a C pointer; all of a call's workspace is one array.
"""

import numpy as np

from fastcnn_kernels.conv2d import numba_ as plain_sums
from fastcnn_kernels.conv2d.geometry import ACTIVATIONS
from fastcnn_kernels.conv2d.handover import handing_over_to
from fastcnn_kernels.conv2d.numba_epilogue import activate, pool_rows
from fastcnn_kernels.conv2d.winograd import blocking, geometry
from fastcnn_kernels.conv2d.winograd.geometry import SPACING
from fastcnn_kernels.conv2d.winograd.numba_transforms import (
    filters,
    image_rows,
    lanes_to_rows,
    rows_to_lanes,
)
from fastcnn_kernels.conv2d.winograd.remainders import numba_ as copies
from fastcnn_kernels.conv2d.winograd.remainders.dilation import taking_dilation
from fastcnn_kernels.gemm.numba_copies import copy_run, zero_run
from fastcnn_kernels.gemm.numba_llvm import MOST_ROWS, MR, VECTOR_BYTES, panel_width
from fastcnn_kernels.gemm.numba_micro import micro
from fastcnn_kernels.gemm.numba_transposes import transpose
from fastcnn_kernels.memory import empty
from fastcnn_kernels.numba_support import compiled, flat, threaded
from fastcnn_kernels.prepacked import keep, room

PACKED_CHANNELS = 64  # channels whose weights are packed at a time: 64 x 9 x 16 floats stay in L1
LINES = 9 * (8 + 2) + 2 * 9  # in units of NR: a panel's patches, two pixels more a row, and tails; or results


def whole_lines(n):
    """Elements of the cache lines that n take: what lies behind them begins at a line as well."""
    return -(-n // 16) * 16


@compiled
def pack_part(weight, source, w, packed, table, c, rows, mr, tap_step):
    """Nine taps of channel c of the sum, which stands for a part of a larger filter: packed[tap][mr]."""
    row_step, R, S, across, channels = table[2, 0], table[3, 0], table[3, 1], table[3, 2], table[3, 3]
    part = c // channels
    source += c % channels * table[2, 1]
    for t in range(9):
        r, s = part // across * 3 + t // 3, part % across * 3 + t % 3
        if r >= R or s >= S:
            zero_run(w, packed + t * tap_step, mr)
            continue
        if table[2, 3] != 0:
            r, s = R - 1 - r, S - 1 - s
        transpose(weight, source + r * S + s, row_step, rows, 1, w, packed + t * tap_step, tap_step, mr)


@compiled
def transform_filters(weight, transformed, U, table, m, g, panel, mr, places, w, packed):
    """U of one panel of rows; `packed` is scratch for PACKED_CHANNELS.

    The rows of consecutive channels lie side by side in U, and tap by tap in `packed`: vectors of them are whole.
    """
    M, C = table[0, 4], table[0, 5]
    whole = table[3, 0] == 3 and table[3, 1] == 3
    backwards = table[2, 3] != 0 and whole
    VL, tap_step = panel_width(weight) // 2, PACKED_CHANNELS * mr
    rows, sign = min(mr, M - panel * mr), -1 if backwards else 1
    source, taps = g * table[2, 2] + panel * mr * table[2, 0], packed + (8 * tap_step if backwards else 0)
    for first in range(0, C, PACKED_CHANNELS):
        count = min(PACKED_CHANNELS, C - first)
        for c in range(count):
            if whole:
                transpose(
                    weight, source + (first + c) * table[2, 1], table[2, 0], rows, 9, w, packed + c * mr,
                    tap_step, mr,
                )  # fmt: skip
            else:
                pack_part(weight, source, w, packed + c * mr, table, first + c, rows, mr, tap_step)
        vectors = count * mr // VL
        row_step, column_step, target = sign * 3 * tap_step, sign * tap_step, U + first * mr
        filters(m, vectors, VL, w, taps, row_step, column_step, transformed, target, places, 0)
        if vectors * VL < count * mr:
            filters(
                m, 1, count * mr - vectors * VL, w, taps + vectors * VL, row_step, column_step, transformed,
                target + vectors * VL, places, 0,
            )  # fmt: skip


@compiled
def find_segments(table, first, end, longest, segments, start):
    """Split tiles [first, end) into runs inside one row of tiles and one panel of `longest`; returns their number.

    Each is (n, row, column, length, position counted from the first).
    """
    tiles_h, tiles_w = table[1, 4], table[1, 5]
    tile = first
    count = 0
    while tile < end:
        column = tile % tiles_w
        length = min(tiles_w - column, end - tile, longest - (tile - first) % longest)
        segments[start + count, 0] = tile // (tiles_w * tiles_h)
        segments[start + count, 1] = tile // tiles_w % tiles_h
        segments[start + count, 2] = column
        segments[start + count, 3] = length
        segments[start + count, 4] = tile - first
        tile += length
        count += 1
    return count


@compiled
def find_panels(table, first, count, columns, segments, counts, start):
    """Segments of `count` panels of tiles, a row of the table for each column; their numbers go to `counts`."""
    tiles = table[0, 0] * table[1, 4] * table[1, 5]
    for j in range(count):
        tile, end, place = (first + j) * columns, min(tiles, (first + j + 1) * columns), (start + j) * columns
        counts[start + j] = find_segments(table, tile, end, columns, segments, place)


@compiled
def transform_images(image, w, V, table, m, g, c_first, c_end, columns, segments, start, count, places, rows):
    """V of some channels of one panel of tiles; `rows` is scratch."""
    groups, H, W, across, channels = table[0, 3], table[1, 0], table[1, 1], table[3, 2], table[3, 3]
    NR, patch, step = panel_width(image), table[4, 0], table[4, 1]
    pitch = (step + 2) * NR
    tails = rows + patch * pitch
    ends = tiles = 0
    for i in range(start, start + count):
        tiles += segments[i, 3]
        ends |= 1 << (tiles - 1)
    for c in range(c_first, c_end):
        plane = c % channels
        top = table[1, 2] + c // channels // across * 3
        left = table[1, 3] + c // channels % across * 3
        for i in range(start, start + count):
            n, row, column, length, place = (
                segments[i, 0], segments[i, 1], segments[i, 2], segments[i, 3], segments[i, 4]
            )  # fmt: skip
            image_rows(
                m, image, ((n * groups + g) * channels + plane) * H * W, H, W, top + row * step, left + column * step,
                (length - 1) * step + patch, w, rows + place * step, pitch, w, tails + place + length - 1,
            )  # fmt: skip
        rows_to_lanes(m, w, rows, pitch, w, tails, ends, tiles, w, V + c * columns, places, 0)


@compiled
def multiply(filters, U, w, V, products, matrices, mr, rows, vectors, tiles, u_size, p_step):
    """The E products of some rows, by panels of mr of them, and one panel of tiles."""
    columns = vectors * (panel_width(w) // 2)
    for e in range(len(matrices)):
        for i in range((rows + mr - 1) // mr):
            micro(
                min(mr, rows - i * mr), min(columns, tiles), matrices[e, 2], filters, U + i * u_size + matrices[e, 0],
                mr, w, V + matrices[e, 1], columns, w, products + e * p_step + i * mr * columns, columns, False,
            )  # fmt: skip


@compiled
def transform_results(
    w, products, bias, has_bias, out, table, m, g, row_first, row_end, columns, segments, start, count, p_step,
    activation, rows, check,
):  # fmt: skip
    """Results of rows [row_first, row_end) in one panel of tiles of the products; `rows` is scratch."""
    groups, M, pool = table[0, 3], table[0, 4], table[2, 4]
    P, Q, side = table[0, 1] // pool, table[0, 2] // pool, table[4, 2]
    NR, step = panel_width(out), side // pool
    lines = rows + (side * side * NR if pool == 2 else 0)
    tiles = segments[start + count - 1, 4] + segments[start + count - 1, 3]
    for k in range(row_first, row_end):
        source = products + (k - row_first) * columns
        lanes_to_rows(m, w, source, p_step, tiles, bias, g * M + k, has_bias, w, rows, side * NR, w, check)
        if pool == 2:
            for h in range(step):
                top = rows + 2 * h * side * NR
                pool_rows(w, top, top + side * NR, w, lines + h * step * NR, tiles * step)
        activate(w, lines, step, step * NR, tiles * step, activation)
        for i in range(start, start + count):
            row, column = segments[i, 1] * step - table[4, 4], segments[i, 2] * step - table[4, 5]
            skipped = max(0, -column)
            target = (((segments[i, 0] * groups + g) * M + k) * P + row) * Q + column + skipped
            length = min(segments[i, 3] * step, Q - column) - skipped
            for h in range(max(0, -row), min(step, P - row)):
                copy_run(out, target + h * Q, w, lines + h * step * NR + segments[i, 4] * step + skipped, length)


@threaded
def winograd_tasks(
    image, weight, U, w, V, scratch, scratch_step, bias, has_bias, out, table, m, matrices, filters, patches, u_size,
    v_size, blocks, activation, segments, counts, worker, workers,
):  # fmt: skip
    """Do this worker's share of the tasks (g, block of tiles, block of rows)."""
    groups, M, C = table[0, 3], table[0, 4], table[0, 5]
    tiles = table[0, 0] * table[1, 4] * table[1, 5]
    IT, JT, IB = blocks[0], blocks[1], blocks[2]
    shared_filters, shared_patches = blocks[3] != 0, blocks[4] != 0
    NR, mr, vectors = panel_width(image), table[5, 0], table[5, 1]
    columns = vectors * (NR // 2)
    row_panels, tile_panels = (M + mr - 1) // mr, (tiles + columns - 1) // columns
    p_step = IB * mr * columns + SPACING
    row_blocks, tile_blocks = (row_panels + IT - 1) // IT, (tile_panels + JT - 1) // JT
    tasks = groups * tile_blocks * row_blocks
    check = scratch + worker * scratch_step
    line = check + NR
    packed = line + LINES * NR
    products = packed + (0 if shared_filters else PACKED_CHANNELS * 9 * mr)
    own_filters = products + len(matrices) * p_step
    own_patches = own_filters + (0 if shared_filters else IB * u_size)
    start = worker * JT
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        g = task // (tile_blocks * row_blocks)
        panel = task // row_blocks % tile_blocks * JT
        panels = min(JT, tile_panels - panel)
        row_panel = task % row_blocks * IT
        row_end = min(row_panels, row_panel + IT)
        find_panels(table, panel, panels, columns, segments, counts, start)
        if shared_patches:
            v = V + (g * tile_panels + panel) * v_size
        else:
            for j in range(panels):
                transform_images(
                    image, w, own_patches + j * v_size, table, m, g, 0, C, columns, segments, (start + j) * columns,
                    counts[start + j], patches, line,
                )  # fmt: skip
            v = own_patches
        i = row_panel
        while i < row_end:
            rows = min(IB, row_end - i)
            if shared_filters:
                transformed, u = U, (g * row_panels + i) * u_size
            else:
                for k in range(rows):
                    transform_filters(weight, w, own_filters + k * u_size, table, m, g, i + k, mr, filters, w, packed)
                transformed, u = w, own_filters
            for j in range(panels):
                multiply(
                    transformed, u, w, v + j * v_size, products, matrices, mr, min(rows * mr, M - i * mr), vectors,
                    tiles - (panel + j) * columns, u_size, p_step,
                )  # fmt: skip
                transform_results(
                    w, products, bias, has_bias, out, table, m, g, i * mr, min(M, (i + rows) * mr), columns,
                    segments, (start + j) * columns, counts[start + j], p_step, activation, line, check,
                )  # fmt: skip
            i += rows


@threaded
def share_filters(weight, U, table, m, filters, u_size, w, scratch, scratch_step, worker, workers):
    """U of this worker's share of all panels of rows."""
    mr = table[5, 0]
    row_panels = (table[0, 4] + mr - 1) // mr
    tasks = table[0, 3] * row_panels
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        transform_filters(
            weight, U, task * u_size, table, m, task // row_panels, task % row_panels, mr, filters, w,
            scratch + worker * scratch_step,
        )  # fmt: skip


@threaded
def share_patches(
    image, w, V, table, m, patches, v_size, scratch, scratch_step, segments, counts, worker, workers
):  # fmt: skip
    """V of this worker's share of the channels of every panel of tiles."""
    columns = table[5, 1] * (panel_width(image) // 2)
    C, tiles = table[0, 5], table[0, 0] * table[1, 4] * table[1, 5]
    tile_panels = (tiles + columns - 1) // columns
    for task in range(table[0, 3] * tile_panels):
        find_panels(table, task % tile_panels, 1, columns, segments, counts, worker)
        transform_images(
            image, w, V + task * v_size, table, m, task // tile_panels, C * worker // workers,
            C * (worker + 1) // workers, columns, segments, worker * columns, counts[worker], patches,
            scratch + worker * scratch_step,
        )  # fmt: skip


def run_plan(plan, image, weight, bias, out, activation, packed, num_threads):
    """Allocate the workspace of a `geometry.Plan` and run it; False if a result may not be finite."""
    (N, _, _, groups, M, C), (_, _, _, _, tiles_h, tiles_w), *_, (mr, vectors, *_) = plan.table.tolist()
    m, NR, tiles = plan.m, 2 * VECTOR_BYTES // out.itemsize, N * tiles_h * tiles_w
    columns = vectors * (NR // 2)
    matrices, filters, patches, u_size, v_size = geometry.matrices(m, C, mr, columns)
    blocks = blocking.product_blocks(v_size * out.itemsize, groups, M, tiles, mr, columns, packed is not None)
    _, panels, step_rows, shared_filters, shared_patches = blocks.tolist()
    order = ("winograd", m, mr, M)
    U, filled = room(packed, order, groups * -(-M // mr) * u_size if shared_filters else 1, out.dtype)
    scratch = groups * -(-tiles // columns) * v_size if shared_patches else 0
    scratch_step = (1 + LINES) * NR + PACKED_CHANNELS * 9 * mr + len(matrices) * (step_rows * mr * columns + SPACING)
    scratch_step += (0 if shared_filters else step_rows * u_size) + (0 if shared_patches else panels * v_size)
    scratch_step = whole_lines(scratch_step)
    w = empty(scratch + num_threads * scratch_step, out.dtype)
    segments, counts = np.empty((num_threads * panels * columns, 5), np.intp), np.empty(num_threads * panels, np.intp)
    check = w[scratch:].reshape(num_threads, -1)[:, :NR]
    check[...] = 0
    image, weight = flat(image), flat(weight)
    if shared_filters and not filled:
        share_filters(num_threads, weight, U, plan.table, m, filters, u_size, w, scratch + NR, scratch_step)
        keep(packed, order, U)
    if shared_patches:
        share_patches(
            num_threads, image, w, 0, plan.table, m, patches, v_size, scratch + NR, scratch_step, segments, counts,
        )  # fmt: skip
    winograd_tasks(
        num_threads, image, weight, U, w, 0, scratch, scratch_step, w if bias is None else flat(bias), bias is not None,
        flat(out), plan.table, m, matrices, filters, patches, u_size, v_size, blocks, activation, segments, counts,
    )  # fmt: skip
    return not np.isnan(check).any()


@handing_over_to(plain_sums)
@taking_dilation(copies)
def conv2d(
    m, /, *, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, num_threads
):  # fmt: skip
    """Forward convolution with tiles of m x m."""
    registers = (MR, MOST_ROWS, VECTOR_BYTES // out.itemsize)
    plan = geometry.forward(m, x.shape, weight.shape, out.shape, stride, padding, groups, max_pool, registers)
    return run_plan(plan, x, weight, bias, out, ACTIVATIONS[activation], packed, num_threads)


@handing_over_to(plain_sums)
@taking_dilation(copies)
def conv2d_grad_input(m, /, *, dy, weight, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the input with tiles of m x m."""
    registers = (MR, MOST_ROWS, VECTOR_BYTES // out.itemsize)
    plan = geometry.grad_input(m, dy.shape, weight.shape, out.shape, stride, padding, groups, registers)
    return run_plan(plan, dy, weight, None, out, 0, None, num_threads)
