"""Matrix product in Numba: packed panels and the micro-kernel of numba_micro. Contract in the family's ``__init__``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithm is described there. An array and a
start index stand for a C pointer.
"""

from fastcnn_kernels.gemm import blocking, geometry
from fastcnn_kernels.gemm.blocking import COLUMNS_IN_TASKS, ROWS_IN_TASKS
from fastcnn_kernels.gemm.numba_copies import copy_run
from fastcnn_kernels.gemm.numba_llvm import MR, PANELS_AHEAD, VECTOR_BYTES, panel_width
from fastcnn_kernels.gemm.numba_micro import micro, micro_packing
from fastcnn_kernels.gemm.numba_panels import pack_block, pack_panels
from fastcnn_kernels.memory import empty
from fastcnn_kernels.numba_support import compiled, flat, threaded


@compiled
def multiply_tile(
    rows, columns, L, a, a_start, mr, packed, packed_start, b, b_start, along_b, l0, packs, c, c_start, ldc, bias,
    bias_start, has_bias, accumulate, tile, tile_start,
):  # fmt: skip
    """One micro-kernel call; a tile that sticks out of C, or has a bias to add, goes through `tile`.

    The columns are packed; or, if it `packs`, they are packed here, from ``b[b_start + along_b[l0 + l]:]``.
    """
    NR = panel_width(a)
    far = PANELS_AHEAD * NR
    if columns == NR and not has_bias:
        if packs:
            micro_packing(
                rows, L, a, a_start, mr, b, b_start, along_b, l0, far, packed, packed_start, c, c_start, ldc, accumulate
            )
        else:
            micro(rows, columns, L, a, a_start, mr, packed, packed_start, NR, c, c_start, ldc, accumulate)
        return
    if packs:
        micro_packing(
            rows, L, a, a_start, mr, b, b_start, along_b, l0, far, packed, packed_start, tile, tile_start, NR, False
        )
    else:
        micro(rows, columns, L, a, a_start, mr, packed, packed_start, NR, tile, tile_start, NR, False)
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
def multiply_blocks(
    a, b, a_packed, b_packed, bias, has_bias, c, scratch, scratch_step, table, along_a, along_b, blocks, worker,
    workers,
):  # fmt: skip
    """Multiply this worker's share of C's blocks; the scratch has a tile, and a block that is packed here."""
    Z, ZA, ZB, M, N, L, mr = table[0], table[1], table[2], table[3], table[4], table[5], table[8]
    NR = panel_width(a_packed)
    I, J, LB = blocks[0], blocks[1], blocks[2]
    rows_here, columns_here = blocks[3] == ROWS_IN_TASKS, blocks[3] == COLUMNS_IN_TASKS
    row_panels, column_panels = (M + mr - 1) // mr, (N + NR - 1) // NR
    i_blocks, width = (row_panels + I - 1) // I, column_panels if rows_here else J
    j_blocks = (column_panels + width - 1) // width
    tasks = Z * i_blocks * j_blocks
    first_packed = 0
    tile = worker * scratch_step
    packed = tile + MR * NR
    rows_of, columns_of = scratch if rows_here else a_packed, scratch if columns_here else b_packed
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        z = task // (i_blocks * j_blocks)
        za, zb = z if ZA > 1 else 0, z if ZB > 1 else 0
        i, j = task // j_blocks % i_blocks, task % j_blocks
        # the last panel, which may be smaller, is in a block of more of them
        i0, i1 = row_panels * i // i_blocks, row_panels * (i + 1) // i_blocks
        j0, j1 = column_panels * j // j_blocks, column_panels * (j + 1) // j_blocks
        for l0 in range(0, L, LB):
            count = min(LB, L - l0)
            if rows_here:
                pack_block(a, za * M * L, scratch, packed, M, mr, i0, i1, count, table[6], along_a, l0)
            elif columns_here:
                first_packed = j0 if table[7] > 1 else max(j0, N // NR)  # whole ones that lie side by side wait
                pack_block(
                    b, zb * N * L, scratch, packed + (first_packed - j0) * NR * count, N, NR, first_packed, j1, count,
                    table[7], along_b, l0,
                )  # fmt: skip
            rows = packed if rows_here else ((za * row_panels + i0) * L + l0) * mr
            columns = packed if columns_here else ((zb * column_panels + j0) * L + l0) * NR
            rows_step, columns_step = (count if rows_here else L) * mr, (count if columns_here else L) * NR
            for first in range(j0, j1, J):
                for row_panel in range(i0, i1):
                    i = row_panel * mr
                    for panel in range(first, min(first + J, j1)):
                        j = panel * NR
                        packs = columns_here and row_panel == i0 and panel < first_packed
                        multiply_tile(
                            min(mr, M - i), min(NR, N - j), count, rows_of, rows + (row_panel - i0) * rows_step, mr,
                            columns_of, columns + (panel - j0) * columns_step, b, zb * N * L + j, along_b, l0, packs,
                            c, (z * M + i) * N + j, N, bias, j, has_bias and l0 == 0, l0 > 0, scratch, tile,
                        )  # fmt: skip


def run_product(plan, a, b, bias, out, num_threads):
    """Pack what a `geometry.Plan` has packed beforehand, and multiply."""
    _, ZA, ZB, M, N, L, row_step, column_step, mr = plan.table.tolist()
    I, J, LB, packer = plan.blocks.tolist()
    NR = 2 * VECTOR_BYTES // out.itemsize
    ZA, ZB = 0 if packer == ROWS_IN_TASKS else ZA, 0 if packer == COLUMNS_IN_TASKS else ZB  # packed beforehand
    own = (I * mr if ZA == 0 else J * NR if ZB == 0 else 0) * LB
    scratch_step = MR * NR + -(-own // NR) * NR
    scratch = empty(num_threads * scratch_step, out.dtype)
    a_packed = empty(max(1, ZA * -(-M // mr) * mr * L), out.dtype)
    b_packed = empty(max(1, ZB * -(-N // NR) * NR * L), out.dtype)
    packers = blocking.packing_threads((ZA * M + ZB * N) * L, num_threads)
    a, b = flat(a), flat(b)
    if ZA > 0:
        pack_panels(packers, a, a_packed, ZA, M * L, M, mr, L, row_step, plan.along_a)
    if ZB > 0:
        pack_panels(packers, b, b_packed, ZB, N * L, N, NR, L, column_step, plan.along_b)
    multiply_blocks(
        num_threads, a, b, a_packed, b_packed, a_packed if bias is None else flat(bias), bias is not None, flat(out),
        scratch, scratch_step, plan.table, plan.along_a, plan.along_b, plan.blocks,
    )  # fmt: skip


def matmul(*, a, b, bias, out, transpose_a, transpose_b, num_threads):
    """``out = A @ B + bias``."""
    plan = geometry.plan(
        a.shape, b.shape, out.shape, transpose_a, transpose_b, MR, 2 * VECTOR_BYTES // out.itemsize, out.itemsize,
        num_threads,
    )  # fmt: skip
    run_product(plan, a, b, bias, out, num_threads)
