"""Products of unpacked operands in Numba. Contract in ``gemm``; tiles in ``numba_rows.py``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithm is described there. An array and a
start index stand for a C pointer.
"""

from fastcnn_kernels.gemm.blocking import L_BLOCK, even
from fastcnn_kernels.gemm.numba_llvm import panel_width
from fastcnn_kernels.gemm.numba_micro import OUTER_ROWS
from fastcnn_kernels.gemm.small.numba_rows import multiply_strip, row_of, strip_columns
from fastcnn_kernels.numba_support import flat, threaded


@threaded
def multiply_share(a, b, c, Z, M, N, L, z_step_a, z_step_b, row_step, a_step, block, worker, workers):
    """Do this worker's share of the tiles of rows."""
    tiles = M // OUTER_ROWS
    task = (Z * tiles * worker + workers - 1) // workers
    last = (Z * tiles * (worker + 1) + workers - 1) // workers
    while task < last:
        z, tile = task // tiles, task % tiles
        end = min(tiles, tile + last - task)
        j = 0
        while j < N:
            columns = strip_columns(N - j, N, panel_width(a) // 2)
            j = min(j, N - columns)
            multiply_strip(
                a, z * z_step_a, row_step, a_step, b, z * z_step_b + j, c, 0, False, c, z * M * N + j, row_of(tile, M),
                row_of(end, M), columns, N, L, block,
            )  # fmt: skip
            j += columns
        task += end - tile


def run_product(a, b, out, transpose_a, workers):
    """Multiply on as many threads as there are tiles of rows for."""
    (Z, M, N), L = out.shape, b.shape[1]
    row_step, a_step = (1, M) if transpose_a else (L, 1)
    z_step_a, z_step_b = M * L if len(a) > 1 else 0, L * N if len(b) > 1 else 0
    multiply_share(
        min(workers, Z * (M // OUTER_ROWS)), flat(a), flat(b), flat(out), Z, M, N, L, z_step_a, z_step_b, row_step,
        a_step, even(L, L_BLOCK),
    )  # fmt: skip


def matmul(*, a, b, bias, out, transpose_a, transpose_b, num_threads):
    """``out = A @ B``."""
    run_product(a, b, out, transpose_a, num_threads)
