"""What a convolution does to a tile of sums before the last store; its twin is ``numba_epilogue.py``.

An activation is 0 (none), 1 (relu) or 2 (relu6), `geometry.ACTIVATIONS`. NaN stays.
"""

from fastcnn_kernels.gemm.micro cimport clamp_run, real


cdef inline void activate(
    real* c, Py_ssize_t rows, Py_ssize_t ldc, Py_ssize_t columns, int activation
) noexcept nogil:
    """Clamp rows of `columns` sums, `ldc` apart."""
    cdef Py_ssize_t i
    if activation == 0:
        return
    for i in range(rows):
        clamp_run(c + i * ldc, columns, activation == 2)


cdef inline real larger(real a, real b) noexcept nogil:
    """Maximum; NaN if either is."""
    cdef real c = a if a > b else b
    return c if a == a else a


cdef inline void pool_rows(const real* top, const real* bottom, real* pooled, Py_ssize_t n) noexcept nogil:
    """Maxima of `n` windows of 2 x 2 in two rows of sums."""
    cdef Py_ssize_t j
    for j in range(n):
        pooled[j] = larger(larger(top[2 * j], top[2 * j + 1]), larger(bottom[2 * j], bottom[2 * j + 1]))
