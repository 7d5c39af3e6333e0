"""Copies from and to the images of remainders, in Cython. Layouts in the family's ``__init__``."""

from cython.parallel cimport prange

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


def gather(
    const real[:, :, :, ::1] source not None, real[:, :, :, ::1] images not None,
    const Py_ssize_t[:, ::1] down not None, const Py_ssize_t[:, ::1] across not None, dilation, int num_threads,
):
    """Fill the images of all remainders from a source."""
    cdef Py_ssize_t planes = source.shape[0] * source.shape[1], dh, dw, worker
    dh, dw = dilation
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        gather_planes(
            &source[0, 0, 0, 0], &images[0, 0, 0, 0], planes, source.shape[2], source.shape[3], images.shape[2],
            images.shape[3], &down[0, 0], down.shape[0], &across[0, 0], across.shape[0], dh, dw, worker, num_threads,
        )


def scatter(
    const real[:, :, :, ::1] images not None, real[:, :, :, ::1] out not None, dilation, int num_threads
):
    """Put the pixels of the images where they belong."""
    cdef Py_ssize_t planes = out.shape[0] * out.shape[1], dh, dw, worker
    dh, dw = dilation
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        scatter_planes(
            &images[0, 0, 0, 0], &out[0, 0, 0, 0], planes, out.shape[2], out.shape[3], images.shape[2],
            images.shape[3], dh, dw, worker, num_threads,
        )
