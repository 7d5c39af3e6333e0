"""Rows of a product of unpacked operands; its twin is ``rows.pxd``, which describes them."""

from fastcnn_kernels.gemm.numba_llvm import VECTOR_BYTES
from fastcnn_kernels.gemm.numba_micro import OUTER_ROWS, OUTER_VECTORS, outer
from fastcnn_kernels.numba_support import compiled


@compiled
def multiply_tile(
    columns, L, block, a, a_start, row_step, a_step, b, b_start, N, bias, bias_start, has_bias, c, c_start
):  # fmt: skip
    """One tile of C, in blocks of the sum."""
    if has_bias:
        for i in range(OUTER_ROWS):
            for j in range(columns):
                c[c_start + i * N + j] = bias[bias_start + i]
    for l0 in range(0, L, block):
        outer(
            columns, min(block, L - l0), a, a_start + l0 * a_step, row_step, a_step, b, b_start + l0 * N, N, c, c_start,
            N, l0 > 0 or has_bias,
        )  # fmt: skip


@compiled
def multiply_strip(
    a, a_start, row_step, a_step, b, b_start, bias, bias_start, has_bias, c, c_start, first, last, columns, N, L, block
):  # fmt: skip
    """Some columns of the rows `first` to `last` of C, which are at least a tile."""
    for tile in range(first, last, OUTER_ROWS):
        i = min(tile, last - OUTER_ROWS)
        multiply_tile(
            columns, L, block, a, a_start + i * row_step, row_step, a_step, b, b_start, N, bias, bias_start + i,
            has_bias, c, c_start + i * N,
        )  # fmt: skip


@compiled
def strip_columns(left, N, VL):
    """Columns of the next strip, of N of which so many are left."""
    if left >= OUTER_VECTORS * VL:
        return OUTER_VECTORS * VL
    if VECTOR_BYTES == 64 or N < VL:
        return left
    return min((left + VL - 1) // VL, N // VL) * VL


@compiled
def row_of(tile, M):
    """First row of a tile of M rows; rows that fill no tile belong to the last one."""
    return M if tile == M // OUTER_ROWS else tile * OUTER_ROWS
