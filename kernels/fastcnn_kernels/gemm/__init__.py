"""Op family ``gemm``: batched dense matrix products.

``matmul(a, b, bias, out, transpose_a, transpose_b, num_threads)``

    out[z, i, j] = bias[j] + sum_l A[z, i, l] B[z, l, j]        i < M, j < N, l < L

===========  ======================================================================================
a            (Z or 1, M, L), or (Z or 1, L, M) if `transpose_a`; C-contiguous; 1: shared by the batch
b            (Z or 1, L, N), or (Z or 1, N, L) if `transpose_b`; C-contiguous
bias         (N,) or None
out          (Z, M, N), C-contiguous, overwritten
===========  ======================================================================================

All arrays have one dtype, float32 or float64. Every dimension is at least 1.
"""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
