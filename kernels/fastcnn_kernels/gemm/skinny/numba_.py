"""Skinny products in Numba. Contract in ``gemm``; which operand is the large one is decided in ``geometry``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithm is described there. An array and a
start index stand for a C pointer.
"""

import numpy as np

from fastcnn_kernels.gemm.blocking import L_BLOCK, even
from fastcnn_kernels.gemm.numba_copies import copy_run, zero_run
from fastcnn_kernels.gemm.numba_dots import (
    DOT_COLUMNS,
    DOT_COLUMNS_OF_ONE_ROW,
    DOT_ROWS,
    dot,
)
from fastcnn_kernels.gemm.numba_llvm import VECTOR_BYTES, panel_width
from fastcnn_kernels.gemm.numba_micro import OUTER_ROWS, OUTER_VECTORS, outer, stream
from fastcnn_kernels.gemm.numba_panels import even_tile, panel_rows
from fastcnn_kernels.gemm.numba_transposes import transpose
from fastcnn_kernels.gemm.skinny import geometry
from fastcnn_kernels.gemm.skinny.blocking import BYTES_OF_SUMS, STREAM_ROWS
from fastcnn_kernels.memory import empty
from fastcnn_kernels.numba_support import compiled, flat, threaded


@threaded
def dot_columns(few, many, bias, has_bias, out, table, offset, tiles, tile_size, worker, workers):
    """Do this worker's share of the tiles of columns: out[i, j] = bias + few[i] . many[j]."""
    Z, F, K, L = table[0], table[1], table[2], table[3]
    rows = even_tile(F, DOT_ROWS)
    columns = even_tile(K, table[10]) if rows == 1 else DOT_COLUMNS
    whole = L // (panel_width(few) // 2) * (panel_width(few) // 2)
    count = (K + columns - 1) // columns
    tile = worker * tile_size
    in_place = whole == L and not has_bias and table[7] == 1
    for task in range(Z * count * worker // workers, Z * count * (worker + 1) // workers):
        z = task // count
        first = task % count * columns
        width = min(columns, K - first)
        right = z * table[5] + first * L
        for row in range(0, F, rows):
            height = min(rows, F - row)
            left = z * table[4] + row * L
            target = z * F * K + row * table[6] + first * table[7]
            if in_place:
                for i in range(height):
                    zero_run(out, target + i * table[6], width)
                dot(height, width, 1, whole, few, left, L, 0, many, right, 0, offset, 0, out, target, table[6])
                continue
            zero_run(tiles, tile, rows * columns)
            if whole > 0:
                dot(height, width, 1, whole, few, left, L, 0, many, right, 0, offset, 0, tiles, tile, columns)
            for i in range(height):
                for j in range(width):
                    total = tiles[tile + i * columns + j]
                    for l in range(whole, L):
                        total += few[left + i * L + l] * many[right + j * L + l]
                    if has_bias:
                        total += bias[(row + i) * table[8] + (first + j) * table[9]]
                    out[target + i * table[6] + j * table[7]] = total


@compiled
def outer_width(F, VL):
    """Lanes of the vectors that the few rows are packed into side by side, in as few groups as hold them."""
    return even_tile((F + VL - 1) // VL, OUTER_VECTORS) * VL


@compiled
def pack_side_by_side(few, few_start, packed, packed_start, F, L, width):
    """Pack the few rows as columns, in groups of `width`."""
    for first in range(0, F, width):
        transpose(
            few, few_start + first * L, L, min(width, F - first), L, packed, packed_start + first * L, width, width
        )  # fmt: skip


@threaded
def outer_rows(few, many, bias, has_bias, out, table, block, scratch, scratch_step, worker, workers):
    """Do this worker's share of the tiles of rows of `many`: out[i, j] = bias + few[i] . many[j], in blocks of the sum.

    The last tile begins early enough to be whole, and stores what is its own. Each worker packs the few rows for
    itself, which takes less time than fetching them from another core.
    """
    Z, F, K, L, VL = table[0], table[1], table[2], table[3], panel_width(few) // 2
    width = outer_width(F, VL)
    groups, tiles = (F + width - 1) // width, (K + OUTER_ROWS - 1) // OUTER_ROWS
    packed_z = -1
    tile = worker * scratch_step
    packed = tile + OUTER_ROWS * OUTER_VECTORS * VL
    for task in range(Z * tiles * worker // workers, Z * tiles * (worker + 1) // workers):
        z = task // tiles
        if packed_z < 0 or (z > packed_z and table[4] > 0):
            pack_side_by_side(few, z * table[4], scratch, packed, F, L, width)
            packed_z = z
        first = task % tiles * OUTER_ROWS
        start = min(first, K - OUTER_ROWS)
        rows = min(OUTER_ROWS, K - first)
        for group in range(groups):
            count = min(width, F - group * width)
            for l0 in range(0, L, block):
                outer(
                    width, min(block, L - l0), many, z * table[5] + start * L + l0, L, 1, scratch,
                    packed + (group * L + l0) * width, width, scratch, tile, width, l0 > 0,
                )  # fmt: skip
            row = tile + (first - start) * width
            target = z * F * K + group * width * table[6] + first * table[7]
            if has_bias:
                for j in range(rows):
                    for i in range(count):
                        scratch[row + j * width + i] += bias[(group * width + i) * table[8] + (first + j) * table[9]]
            if table[6] == 1:
                for j in range(rows):
                    copy_run(out, target + j * table[7], scratch, row + j * width, count)
            else:
                transpose(scratch, row, width, rows, count, out, target, table[6], rows)


@compiled
def columns_before(many, table):
    """Columns by which rows of `many` begin behind whole vectors, if all do alike and it matters; else 0."""
    alike = table[11] == 1 and table[2] * many.itemsize % VECTOR_BYTES == 0
    return many.ctypes.data % VECTOR_BYTES // many.itemsize if alike else 0


@threaded
def stream_columns(few, many, bias, has_bias, out, table, block, scratch, scratch_step, worker, workers):
    """Do this worker's share of the panels of columns: out[i, j] = bias + sum_l few[i, l] many[l, j].

    The sums of a block of panels wait in the scratch: in out, the core next door would prefetch their lines away. The
    few rows are packed by each worker, as in `outer_rows`. Panels begin at whole vectors: the first one reads some
    columns of the second, the last one of the one before it, and only a matrix of less than one panel is copied.
    """
    Z, F, K, L = table[0], table[1], table[2], table[3]
    NR, mr = panel_width(few), panel_rows(F)
    row_panels, tile, before = (F + mr - 1) // mr, mr * NR, columns_before(many, table)
    panels = (before + K + NR - 1) // NR
    task, last = Z * panels * worker // workers, Z * panels * (worker + 1) // workers
    packed_z = -1
    packed = worker * scratch_step
    packed_few = packed + STREAM_ROWS * NR
    sums = packed_few + (row_panels * mr * L + NR - 1) // NR * NR
    while task < last:
        z = task // panels
        first = task % panels
        end = min(panels, first + min(block, last - task))
        if packed_z < 0 or (z > packed_z and table[4] > 0):
            pack_side_by_side(few, z * table[4], scratch, packed_few, F, L, mr)
            packed_z = z
        for l0 in range(0, L, STREAM_ROWS):
            count = min(STREAM_ROWS, L - l0)
            panel = first
            while panel < end:
                right = z * table[5] + l0 * K + max(0, min(panel * NR - before, K - NR))
                if K < NR:
                    for l in range(count):
                        copy_run(scratch, packed + l * NR, many, right + l * K, K)
                        zero_run(scratch, packed + l * NR + K, NR - K)
                neighbours = 1  # if panels of rows take turns, and where the first or last one begins elsewhere
                if row_panels == 1 and panel * NR >= before:
                    neighbours = max(1, min(end, (before + K) // NR) - panel)
                for i in range(row_panels):
                    rows, left = min(mr, F - i * mr), packed_few + (i * L + l0) * mr
                    c = sums + ((panel - first) * row_panels + i) * tile
                    if K < NR:
                        stream(rows, neighbours, count, scratch, left, mr, scratch, packed, NR, scratch, c, l0 > 0)
                    else:
                        stream(rows, neighbours, count, scratch, left, mr, many, right, K, scratch, c, l0 > 0)
                panel += neighbours
        for i in range(F):
            for panel in range(first, end):
                start = max(0, panel * NR - before)
                columns = min(K, (panel + 1) * NR - before) - start
                row = sums + (panel - first) * row_panels * tile + i * NR + start - max(0, min(start, K - NR))
                target = (z * F + i) * K + start
                copy_run(out, target, scratch, row, columns)
                if has_bias:
                    for j in range(columns):
                        out[target + j] += bias[start + j]
        task += end - first


def run_dots(plan, few, many, bias, out, num_threads):
    """Run a `geometry.Plan` of dot products."""
    tile_size = DOT_ROWS * DOT_COLUMNS_OF_ONE_ROW
    tiles = empty(num_threads * tile_size, out.dtype)
    dot_columns(
        num_threads, flat(few), flat(many), tiles if bias is None else flat(bias), bias is not None, flat(out),
        plan.table, plan.offset, tiles, tile_size,
    )  # fmt: skip


def run_outer(plan, few, many, bias, out, num_threads):
    """Run a `geometry.Plan` of outer products."""
    (_, F, K, L), VL = plan.table[:4].tolist(), VECTOR_BYTES // out.itemsize
    width = outer_width(F, VL)
    scratch_step = OUTER_ROWS * OUTER_VECTORS * VL + -(-F // width) * width * L
    num_threads = min(num_threads, len(out) * -(-K // OUTER_ROWS))  # each has its copy
    scratch = empty(num_threads * scratch_step, out.dtype)
    outer_rows(
        num_threads, flat(few), flat(many), scratch if bias is None else flat(bias), bias is not None, flat(out),
        plan.table, even(L, L_BLOCK), scratch, scratch_step,
    )  # fmt: skip


def run_stream(plan, few, many, bias, out, num_threads):
    """Run a `geometry.Plan` that streams the large matrix past the few rows."""
    (_, F, K, L), NR = plan.table[:4].tolist(), 2 * VECTOR_BYTES // out.itemsize
    panels = -(-K // NR) + 1  # at most: one more where they begin at whole vectors
    rows = -(-F // panel_rows(F)) * panel_rows(F)
    num_threads = min(num_threads, len(out) * panels)  # each has its copy
    block = min(panels, max(1, BYTES_OF_SUMS // (rows * NR * out.itemsize)))
    scratch_step = (STREAM_ROWS + -(-rows * L // NR) + block * rows) * NR
    scratch = empty(num_threads * scratch_step, out.dtype)
    stream_columns(
        num_threads, flat(few), flat(many), scratch if bias is None else flat(bias), bias is not None, flat(out),
        plan.table, block, scratch, scratch_step,
    )  # fmt: skip


def run_form(plan, few, many, bias, out, num_threads):
    """Run a `geometry.Plan`."""
    run = {"dots": run_dots, "outer": run_outer, "stream": run_stream}[plan.form]
    run(plan, few, many, bias, out, num_threads)


def multiply(form, a, b, bias, out, transpose_a, transpose_b, num_threads):
    """``out = A @ B + bias`` in a form, None for the best one."""
    plan = geometry.plan(a.shape, b.shape, out.shape, transpose_a, transpose_b, out.itemsize, form)
    few, many = (b, a) if plan.swapped else (a, b)
    if plan.turned:
        few = np.ascontiguousarray(few.swapaxes(1, 2))
    run_form(plan, few, many, bias, out, num_threads)


def matmul_by(form, *, a, b, bias, out, transpose_a, transpose_b, num_threads):
    """``out = A @ B + bias`` as "dots", of B transposed, or as "stream", of operands that both lie as they are."""
    multiply(form, a, b, bias, out, transpose_a, transpose_b, num_threads)


def matmul(*, a, b, bias, out, transpose_a, transpose_b, num_threads):
    """``out = A @ B + bias``."""
    multiply(None, a, b, bias, out, transpose_a, transpose_b, num_threads)
