"""Products of unpacked operands in Numba. Contract in ``gemm``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithm is described there. An array and a
start index stand for a C pointer.
"""

from fastcnn_kernels.gemm.blocking import L_BLOCK, even
from fastcnn_kernels.gemm.numba_llvm import panel_width
from fastcnn_kernels.gemm.numba_micro import OUTER_ROWS, OUTER_VECTORS, outer
from fastcnn_kernels.numba_support import compiled, flat, threaded


@compiled
def multiply_tile(vectors, L, block, a, a_start, row_step, a_step, b, b_start, N, c, c_start):
    """One tile of C, in blocks of the sum."""
    for l0 in range(0, L, block):
        outer(
            vectors, min(block, L - l0), a, a_start + l0 * a_step, row_step, a_step, b, b_start + l0 * N, N, c, c_start,
            N, l0 > 0,
        )  # fmt: skip


@threaded
def multiply_rows(a, b, c, Z, M, N, L, z_step_a, z_step_b, row_step, a_step, block, worker, workers):
    """Do this worker's share of the tiles of rows."""
    VL, tiles = panel_width(a) // 2, M // OUTER_ROWS
    task = (Z * tiles * worker + workers - 1) // workers
    last = (Z * tiles * (worker + 1) + workers - 1) // workers
    while task < last:
        z, tile = task // tiles, task % tiles
        end = min(tiles, tile + last - task)
        j = 0
        while j < N:
            vectors = min(min(OUTER_VECTORS, (N - j + VL - 1) // VL), N // VL)
            j = min(j, N - vectors * VL)
            left, right, target = z * z_step_a, z * z_step_b + j, z * M * N + j
            for first in range(tile * OUTER_ROWS, M if end == tiles else end * OUTER_ROWS, OUTER_ROWS):
                i = min(first, M - OUTER_ROWS)
                multiply_tile(
                    vectors, L, block, a, left + i * row_step, row_step, a_step, b, right, N, c, target + i * N
                )
            j += vectors * VL
        task += end - tile


def run_product(a, b, out, transpose_a, workers):
    """Multiply on as many threads as there are tiles of rows for."""
    (Z, M, N), L = out.shape, b.shape[1]
    row_step, a_step = (1, M) if transpose_a else (L, 1)
    z_step_a, z_step_b = M * L if len(a) > 1 else 0, L * N if len(b) > 1 else 0
    multiply_rows(
        min(workers, Z * (M // OUTER_ROWS)), flat(a), flat(b), flat(out), Z, M, N, L, z_step_a, z_step_b, row_step,
        a_step, even(L, L_BLOCK),
    )  # fmt: skip


def matmul(*, a, b, bias, out, transpose_a, transpose_b, num_threads):
    """``out = A @ B``."""
    run_product(a, b, out, transpose_a, num_threads)
