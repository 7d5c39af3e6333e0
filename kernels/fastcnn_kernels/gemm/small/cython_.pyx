"""Products of unpacked operands in Cython. Contract in ``gemm``; tiles in ``rows.pxd``.

Each worker takes a share of the whole tiles of rows, the last one, whose share is the smallest, the rows behind them
too: none writes into another's rows.
"""

from cython.parallel cimport prange
from numpy cimport ndarray

from fastcnn_kernels.address cimport address
from fastcnn_kernels.gemm.micro cimport OUTER_ROWS, panel_width, real
from fastcnn_kernels.gemm.panels cimport even_tile
from fastcnn_kernels.gemm.small.rows cimport multiply_strip, row_of, strip_columns

from fastcnn_kernels.gemm.blocking import L_BLOCK


cdef void multiply_share(
    const real* a, const real* b, real* c, Py_ssize_t Z, Py_ssize_t M, Py_ssize_t N, Py_ssize_t L, Py_ssize_t z_step_a,
    Py_ssize_t z_step_b, Py_ssize_t row_step, Py_ssize_t a_step, Py_ssize_t block, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the tiles of rows."""
    cdef Py_ssize_t tiles = M // OUTER_ROWS, task = (Z * tiles * worker + workers - 1) // workers
    cdef Py_ssize_t last = (Z * tiles * (worker + 1) + workers - 1) // workers, z, tile, end, j, columns
    while task < last:
        z = task // tiles
        tile = task % tiles
        end = min(tiles, tile + last - task)
        j = 0
        while j < N:
            columns = strip_columns(N - j, N, panel_width(a) // 2)
            j = min(j, N - columns)
            multiply_strip(
                a + z * z_step_a, row_step, a_step, b + z * z_step_b + j, NULL, c + z * M * N + j, row_of(tile, M),
                row_of(end, M), columns, N, L, block,
            )
            j += columns
        task += end - tile


cdef int run_product(
    ndarray a, ndarray b, real* out, Py_ssize_t Z, Py_ssize_t M, bint transpose_a, int workers
) except -1:
    """Multiply on as many threads as there are tiles of rows for."""
    cdef const real* a_start = <const real*>address(a)
    cdef const real* b_start = <const real*>address(b)
    cdef Py_ssize_t L = b.shape[1], N = b.shape[2], row_step = 1 if transpose_a else L, a_step = M if transpose_a else 1
    cdef Py_ssize_t z_step_a = M * L if a.shape[0] > 1 else 0, z_step_b = L * N if b.shape[0] > 1 else 0
    cdef Py_ssize_t block = even_tile(L, L_BLOCK), worker
    workers = <int>min(workers, Z * (M // OUTER_ROWS))
    if workers == 1:  # a parallel region of one thread takes a microsecond
        with nogil:
            multiply_share(
                a_start, b_start, out, Z, M, N, L, z_step_a, z_step_b, row_step, a_step, block, 0, 1
            )
        return 0
    for worker in prange(workers, nogil=True, num_threads=workers, schedule="static", chunksize=1):
        multiply_share(
            a_start, b_start, out, Z, M, N, L, z_step_a, z_step_b, row_step, a_step, block, worker, workers
        )


def matmul(*, ndarray a, ndarray b, bias, ndarray out, bint transpose_a, bint transpose_b, int num_threads):
    """``out = A @ B``."""
    if out.itemsize == 4:
        run_product(a, b, <float*>address(out), out.shape[0], out.shape[1], transpose_a, num_threads)
    else:
        run_product(a, b, <double*>address(out), out.shape[0], out.shape[1], transpose_a, num_threads)
