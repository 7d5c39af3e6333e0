"""What a convolution does to a tile of sums before the last store; its twin is ``epilogue.pxd``.

An activation is 0 (none), 1 (relu) or 2 (relu6), `geometry.ACTIVATIONS`. NaN stays.
"""

from fastcnn_kernels.gemm.numba_copies import clamp_run
from fastcnn_kernels.numba_support import compiled


@compiled
def activate(c, start, rows, ldc, columns, activation):
    """Clamp rows of `columns` sums, `ldc` apart."""
    if activation == 0:
        return
    for i in range(rows):
        clamp_run(c, start + i * ldc, columns, activation == 2)


@compiled
def larger(a, b):
    """Maximum; NaN if either is."""
    c = a if a > b else b
    return c if a == a else a


@compiled
def pool_rows(sums, top, bottom, pooled, start, n):
    """Maxima of `n` windows of 2 x 2 in two rows of sums."""
    for j in range(n):
        pooled[start + j] = larger(
            larger(sums[top + 2 * j], sums[top + 2 * j + 1]), larger(sums[bottom + 2 * j], sums[bottom + 2 * j + 1])
        )
