"""Copies from and to the images of remainders, in Cython. Layouts in the family's ``__init__``."""

from cython.parallel cimport prange
from numpy cimport ndarray

from fastcnn_kernels.address cimport address
from fastcnn_kernels.gemm.micro cimport put_steps, real, take_steps, zero_run


cdef void gather_planes(
    const real* source, real* images, Py_ssize_t planes, Py_ssize_t H, Py_ssize_t W, Py_ssize_t rows,
    Py_ssize_t columns, const Py_ssize_t* down, Py_ssize_t down_count, const Py_ssize_t* across,
    Py_ssize_t across_count, Py_ssize_t dh, Py_ssize_t dw, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Fill this worker's share of the planes of all images; `down` and `across` are those of `geometry.axis`."""
    cdef Py_ssize_t plane, a, b, i, above, count, left, right
    cdef const real* row
    cdef real* target
    for plane in range(planes * worker // workers, planes * (worker + 1) // workers):
        for a in range(down_count):
            above = down[3 * a]
            count = down[3 * a + 1]
            for b in range(across_count):
                target = images + ((a * across_count + b) * planes + plane) * rows * columns
                row = source + (plane * H + down[3 * a + 2]) * W + across[3 * b + 2]
                left = across[3 * b]
                right = left + across[3 * b + 1]
                zero_run(target, above * columns)
                target += above * columns
                for i in range(count):
                    zero_run(target, left)
                    take_steps(target + left, row + i * dh * W, dw, right - left)
                    zero_run(target + right, columns - right)
                    target += columns
                zero_run(target, (rows - above - count) * columns)


cdef void scatter_planes(
    const real* images, real* out, Py_ssize_t planes, Py_ssize_t P, Py_ssize_t Q, Py_ssize_t rows, Py_ssize_t columns,
    Py_ssize_t dh, Py_ssize_t dw, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Fill this worker's share of the planes of the result."""
    cdef Py_ssize_t plane, p, b, across_count = min(dw, Q)
    cdef const real* row
    for plane in range(planes * worker // workers, planes * (worker + 1) // workers):
        for p in range(P):
            for b in range(across_count):
                row = images + (((p % dh * across_count + b) * planes + plane) * rows + p // dh) * columns
                put_steps(out + (plane * P + p) * Q + b, row, dw, (Q - b + dw - 1) // dw)


cdef int share_gather(
    const real* source, real* images, Py_ssize_t planes, ndarray of, ndarray to, ndarray down, ndarray across,
    Py_ssize_t dh, Py_ssize_t dw, int num_threads,
) except -1:
    """Fill the planes of all images on some threads."""
    cdef const Py_ssize_t* down_start = <const Py_ssize_t*>address(down)
    cdef const Py_ssize_t* across_start = <const Py_ssize_t*>address(across)
    cdef Py_ssize_t H = of.shape[2], W = of.shape[3], rows = to.shape[2], columns = to.shape[3], worker
    cdef Py_ssize_t down_count = down.shape[0], across_count = across.shape[0]
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        gather_planes(
            source, images, planes, H, W, rows, columns, down_start, down_count, across_start, across_count, dh, dw,
            worker, num_threads,
        )


cdef int share_scatter(
    const real* images, real* out, ndarray of, ndarray to, Py_ssize_t dh, Py_ssize_t dw, int num_threads
) except -1:
    """Fill the planes of the result on some threads."""
    cdef Py_ssize_t planes = to.shape[0] * to.shape[1], P = to.shape[2], Q = to.shape[3], rows = of.shape[2]
    cdef Py_ssize_t columns = of.shape[3], worker
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        scatter_planes(images, out, planes, P, Q, rows, columns, dh, dw, worker, num_threads)


def gather(ndarray source, ndarray images, ndarray down, ndarray across, dilation, int num_threads):
    """Fill the images of all remainders from a source."""
    cdef Py_ssize_t planes = source.shape[0] * source.shape[1]
    cdef Py_ssize_t dh, dw
    dh, dw = dilation
    if source.itemsize == 4:
        share_gather(
            <float*>address(source), <float*>address(images), planes, source, images, down, across, dh, dw, num_threads
        )
    else:
        share_gather(
            <double*>address(source), <double*>address(images), planes, source, images, down, across, dh, dw,
            num_threads,
        )


def scatter(ndarray images, ndarray out, dilation, int num_threads):
    """Put the pixels of the images where they belong."""
    cdef Py_ssize_t dh, dw
    dh, dw = dilation
    if out.itemsize == 4:
        share_scatter(<float*>address(images), <float*>address(out), images, out, dh, dw, num_threads)
    else:
        share_scatter(<double*>address(images), <double*>address(out), images, out, dh, dw, num_threads)
