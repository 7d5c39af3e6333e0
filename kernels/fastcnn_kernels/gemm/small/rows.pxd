"""Rows of a product of unpacked operands; its twin is ``numba_rows.py``.

    for each strip of up to OUTER_VECTORS vectors of columns, whose rows of B stay in L1 or L2:
        for each tile of OUTER_ROWS rows of A:   C[rows, columns] = bias[rows] + A[rows, L] . B[L, columns]

A tile of rows that would stick out of C begins early enough to be whole, and computes some results again; so does the
last strip where loads have no masks.
"""

from fastcnn_kernels.gemm.micro cimport OUTER_ROWS, OUTER_VECTORS, VECTOR_BYTES, outer, real


cdef inline void multiply_tile(
    int columns, Py_ssize_t L, Py_ssize_t block, const real* a, Py_ssize_t row_step, Py_ssize_t a_step, const real* b,
    Py_ssize_t N, const real* bias, real* c,
) noexcept nogil:
    """One tile of C, in blocks of the sum."""
    cdef Py_ssize_t step, l0
    cdef int i, j
    if bias != NULL:
        for i in range(OUTER_ROWS):
            for j in range(columns):
                c[i * N + j] = bias[i]
    for step in range((L + block - 1) // block):
        l0 = step * block
        outer(
            columns, min(block, L - l0), a + l0 * a_step, row_step, a_step, b + l0 * N, N, c, N,
            l0 > 0 or bias != NULL,
        )


cdef inline void multiply_strip(
    const real* a, Py_ssize_t row_step, Py_ssize_t a_step, const real* b, const real* bias, real* c,
    Py_ssize_t first, Py_ssize_t last, Py_ssize_t columns, Py_ssize_t N, Py_ssize_t L, Py_ssize_t block,
) noexcept nogil:
    """Some columns of the rows `first` to `last` of C, which are at least a tile."""
    cdef Py_ssize_t i, tile
    for tile in range((last - first + OUTER_ROWS - 1) // OUTER_ROWS):
        i = min(first + tile * OUTER_ROWS, last - OUTER_ROWS)
        multiply_tile(
            <int>columns, L, block, a + i * row_step, row_step, a_step, b, N, bias + i if bias != NULL else NULL,
            c + i * N,
        )


cdef inline Py_ssize_t strip_columns(Py_ssize_t left, Py_ssize_t N, Py_ssize_t VL) noexcept nogil:
    """Columns of the next strip, of N of which so many are left."""
    if left >= OUTER_VECTORS * VL:
        return OUTER_VECTORS * VL
    if VECTOR_BYTES == 64 or N < VL:
        return left
    return min((left + VL - 1) // VL, N // VL) * VL


cdef inline Py_ssize_t row_of(Py_ssize_t tile, Py_ssize_t M) noexcept nogil:
    """First row of a tile of M rows; rows that fill no tile belong to the last one."""
    return M if tile == M // OUTER_ROWS else tile * OUTER_ROWS
