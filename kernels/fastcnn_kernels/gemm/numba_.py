"""Matrix product in Numba: packed panels and the micro-kernel of numba_micro. Contract in the family's ``__init__``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithm is described there. An array and a
start index stand for a C pointer.
"""

from fastcnn_kernels.gemm import geometry
from fastcnn_kernels.gemm.blocking import packing_threads
from fastcnn_kernels.gemm.numba_copies import (
    copy_run,
    prefetch,
    take_steps,
    transpose,
    zero_run,
)
from fastcnn_kernels.gemm.numba_llvm import (
    AHEAD,
    MR,
    VECTOR_BYTES,
    panel_width,
)
from fastcnn_kernels.gemm.numba_micro import (
    micro,
)
from fastcnn_kernels.memory import empty
from fastcnn_kernels.numba_support import compiled, flat, threaded


@compiled
def even_tile(size, largest):
    """Tile that splits `size` evenly over as few tiles of at most `largest` as hold it."""
    tiles = (size + largest - 1) // largest
    return (size + tiles - 1) // tiles


@compiled
def panel_rows(M, most=MR):
    """Rows per panel of A, up to `most`: those of least cost; a panel costs its rows, empty ones too, and one more."""
    mr = min(M, most)
    for rows in range(mr - 1, 0, -1):
        if (M + rows - 1) // rows * (rows + 1) < (M + mr - 1) // mr * (mr + 1):
            mr = rows
    return mr


@compiled
def panel_pitch(mr, VL):
    """Elements from a row of a transposed panel to the next: whole vectors, where transposing writes vectors."""
    return (mr + VL - 1) // VL * VL if VECTOR_BYTES == 64 else mr


@compiled
def pack_rows(a, a_start, packed, packed_start, rows, mr, L, row_step, l_offset, l_start):
    """Pack `rows` <= mr rows ``a[i * row_step + l_offset[l]]`` into one panel; missing rows are zeros.

    What is contiguous, along the rows or along runs of the sum, is read as such.
    """
    l = 0
    while l < L:
        first = l
        l += 1
        if row_step > 1:
            while l < L and l_offset[l_start + l] == l_offset[l_start + l - 1] + 1:
                l += 1
        elif first + AHEAD < L:
            ahead = a_start + l_offset[l_start + first + AHEAD]
            prefetch(a, ahead)
            prefetch(a, ahead + rows - 1)
        if l == first + 1:
            start = packed_start + first * mr
            take_steps(packed, start, a, a_start + l_offset[l_start + first], row_step, rows)
            zero_run(packed, start + rows, mr - rows)
            continue
        transpose(
            a, a_start + l_offset[l_start + first], row_step, rows, l - first, packed,
            packed_start + first * mr, mr, mr,
        )  # fmt: skip


@compiled
def multiply_tile(
    mr, rows, columns, L, a, a_start, b, b_start, c, c_start, ldc, bias, bias_start, has_bias, accumulate, tile,
    tile_start,
):  # fmt: skip
    """One micro-kernel call; a tile that sticks out of C, or has a bias to add, goes through `tile`."""
    NR = panel_width(a)
    if rows == mr and columns == NR and not has_bias:
        micro(mr, NR, L, a, a_start, b, b_start, NR, c, c_start, ldc, accumulate)
        return
    micro(mr, columns, L, a, a_start, b, b_start, NR, tile, tile_start, NR, False)
    for i in range(rows):
        if accumulate:
            for j in range(columns):
                c[c_start + i * ldc + j] += tile[tile_start + i * NR + j]
        elif has_bias:
            for j in range(columns):
                c[c_start + i * ldc + j] = bias[bias_start + j] + tile[tile_start + i * NR + j]
        else:
            copy_run(c, c_start + i * ldc, tile, tile_start + i * NR, columns)


@threaded
def pack_panels(matrix, packed, Z, rows, panel, L, row_step, along, worker, workers):
    """Pack this worker's share of the panels of A, or of B, whose columns are the rows here."""
    panels = (rows + panel - 1) // panel
    for task in range(Z * panels * worker // workers, Z * panels * (worker + 1) // workers):
        z = task // panels
        i = task % panels * panel
        pack_rows(
            matrix, z * rows * L + i * row_step, packed, (z * panels * panel + i) * L, min(panel, rows - i), panel, L,
            row_step, along, 0,
        )  # fmt: skip


@threaded
def multiply_blocks(a_packed, b_packed, bias, has_bias, c, tiles, table, blocks, worker, workers):
    """Multiply this worker's share of C's blocks."""
    Z, ZA, ZB, M, N, L, mr = table[0], table[1], table[2], table[3], table[4], table[5], table[8]
    NR = panel_width(a_packed)
    I, J, LB = blocks[0] * mr, blocks[1] * NR, blocks[2]
    a_size, b_size = (M + mr - 1) // mr * mr * L, (N + NR - 1) // NR * NR * L
    i_blocks, j_blocks = (M + I - 1) // I, (N + J - 1) // J
    tasks = Z * i_blocks * j_blocks
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        z = task // (i_blocks * j_blocks)
        i0 = task // j_blocks % i_blocks * I
        j0 = task % j_blocks * J
        a = (z if ZA > 1 else 0) * a_size
        b = (z if ZB > 1 else 0) * b_size
        for step in range((L + LB - 1) // LB):
            l0 = step * LB
            count = min(LB, L - l0)
            for row_panel in range((min(I, M - i0) + mr - 1) // mr):
                i = i0 + row_panel * mr
                for panel in range((min(J, N - j0) + NR - 1) // NR):
                    j = j0 + panel * NR
                    multiply_tile(
                        mr, min(mr, M - i), min(NR, N - j), count, a_packed, a + i * L + l0 * mr, b_packed,
                        b + j * L + l0 * NR, c, (z * M + i) * N + j, N, bias, j, has_bias and l0 == 0, l0 > 0, tiles,
                        worker * MR * NR,
                    )  # fmt: skip


def run_product(plan, a, b, bias, out, num_threads):
    """Pack both operands of a `geometry.Plan` and multiply them."""
    _, ZA, ZB, M, N, L, row_step, column_step, mr = plan.table.tolist()
    NR = 2 * VECTOR_BYTES // out.itemsize
    a_packed = empty(ZA * -(-M // mr) * mr * L, out.dtype)
    b_packed = empty(ZB * -(-N // NR) * NR * L, out.dtype)
    tiles = empty(num_threads * MR * NR, out.dtype)
    packers = packing_threads((ZA * M + ZB * N) * L, num_threads)
    pack_panels(packers, flat(a), a_packed, ZA, M, mr, L, row_step, plan.along_a)
    pack_panels(packers, flat(b), b_packed, ZB, N, NR, L, column_step, plan.along_b)
    multiply_blocks(
        num_threads, a_packed, b_packed, a_packed if bias is None else flat(bias), bias is not None, flat(out), tiles,
        plan.table, plan.blocks,
    )  # fmt: skip


def matmul(*, a, b, bias, out, transpose_a, transpose_b, num_threads):
    """``out = A @ B + bias``."""
    plan = geometry.plan(
        a.shape, b.shape, out.shape, transpose_a, transpose_b, MR, 2 * VECTOR_BYTES // out.itemsize, out.itemsize
    )  # fmt: skip
    run_product(plan, a, b, bias, out, num_threads)
