"""1x1 convolution in Cython, weights and pixels unpacked. Contract in ``conv2d``; tiles in ``gemm/small/rows.pxd``.

Each worker takes a share of the tiles of rows of all images and groups, as in ``gemm.small``. With a stride, the pixels
that count are copied side by side before, or spread over the result afterwards.
"""

from cython.parallel cimport prange
from numpy cimport ndarray

from fastcnn_kernels.address cimport address
from fastcnn_kernels.conv2d.epilogue cimport activate
from fastcnn_kernels.gemm.micro cimport OUTER_ROWS, panel_width, put_steps, real, take_steps, zero_run
from fastcnn_kernels.gemm.panels cimport even_tile
from fastcnn_kernels.gemm.small.rows cimport multiply_strip, row_of, strip_columns

from fastcnn_kernels.conv2d.geometry import ACTIVATIONS
from fastcnn_kernels.gemm.blocking import L_BLOCK
from fastcnn_kernels.memory import empty


cdef void take_pixels(
    const real* image, real* taken, const Py_ssize_t* sizes, Py_ssize_t worker, Py_ssize_t workers
) noexcept nogil:
    """Copy this worker's share of the rows of every plane; `sizes` are planes, H, W, P, Q and the strides."""
    cdef Py_ssize_t H = sizes[1], W = sizes[2], P = sizes[3], Q = sizes[4], rows = sizes[0] * P, row
    for row in range(rows * worker // workers, rows * (worker + 1) // workers):
        take_steps(taken + row * Q, image + (row // P * H + row % P * sizes[5]) * W, sizes[6], Q)


cdef void spread_pixels(
    const real* sums, real* out, const Py_ssize_t* sizes, Py_ssize_t worker, Py_ssize_t workers
) noexcept nogil:
    """Store this worker's share of the rows of every plane: sums where `take_pixels` takes them, zeros elsewhere."""
    cdef Py_ssize_t H = sizes[1], W = sizes[2], P = sizes[3], Q = sizes[4], rows = sizes[0] * H, row
    for row in range(rows * worker // workers, rows * (worker + 1) // workers):
        zero_run(out + row * W, W)
        if row % H % sizes[5] == 0:
            put_steps(out + row * W, sums + (row // H * P + row % H // sizes[5]) * Q, sizes[6], Q)


cdef void multiply_share(
    const real* weight, const real* image, const real* bias, real* out, Py_ssize_t N, Py_ssize_t groups, Py_ssize_t M,
    Py_ssize_t L, Py_ssize_t pixels, Py_ssize_t row_step, Py_ssize_t a_step, Py_ssize_t block, int activation,
    Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the tiles of rows: out[n, g] = bias[g] + weight[g] . image[n, g]."""
    cdef Py_ssize_t tiles = M // OUTER_ROWS, tasks = N * groups * tiles
    cdef Py_ssize_t task = (tasks * worker + workers - 1) // workers, z, g, tile, end, first, stop, j, columns
    cdef Py_ssize_t last = (tasks * (worker + 1) + workers - 1) // workers
    while task < last:
        z = task // tiles
        g = z % groups
        tile = task % tiles
        end = min(tiles, tile + last - task)
        first = row_of(tile, M)
        stop = row_of(end, M)
        j = 0
        while j < pixels:
            columns = strip_columns(pixels - j, pixels, panel_width(image) // 2)
            j = min(j, pixels - columns)
            multiply_strip(
                weight + g * M * L, row_step, a_step, image + z * L * pixels + j,
                bias + g * M if bias != NULL else NULL, out + z * M * pixels + j, first, stop, columns, pixels, L,
                block,
            )
            activate(out + (z * M + first) * pixels + j, stop - first, pixels, columns, activation)
            j += columns
        task += end - tile


cdef int run_product(
    weight, image, bias, out, real* out_start, bint transposed, stride, Py_ssize_t groups, int activation, int workers
) except -1:
    """Multiply on as many threads as there are tiles of rows for."""
    cdef ndarray filters = weight, large = out if transposed else image, small = image if transposed else out
    cdef const real* weight_start = <const real*>address(weight)
    cdef const real* image_start = <const real*>address(image)
    cdef const real* bias_start = <const real*>address(bias)
    cdef const real* source = image_start
    cdef real* sums = out_start
    cdef real* dense
    cdef Py_ssize_t K = filters.shape[0] // groups, C = filters.shape[1], M = C if transposed else K
    cdef Py_ssize_t L = K if transposed else C, row_step = 1 if transposed else L, a_step = M if transposed else 1
    cdef Py_ssize_t N = small.shape[0], pixels = small.shape[2] * small.shape[3], block = even_tile(L, L_BLOCK), worker
    cdef Py_ssize_t[7] sizes
    cdef bint strided = stride != (1, 1)
    workers = <int>min(workers, N * groups * (M // OUTER_ROWS))
    if strided:
        sizes[:] = [
            N * groups * C, large.shape[2], large.shape[3], small.shape[2], small.shape[3], stride[0], stride[1]
        ]
        scratch = empty(N * groups * C * pixels, out.dtype)
        dense = <real*>address(scratch)
        if transposed:
            sums = dense
        else:
            source = dense
            if workers == 1:  # a parallel region of one thread takes a microsecond
                take_pixels(image_start, dense, sizes, 0, 1)
            else:
                for worker in prange(workers, nogil=True, num_threads=workers, schedule="static", chunksize=1):
                    take_pixels(image_start, dense, sizes, worker, workers)
    if workers == 1:
        with nogil:
            multiply_share(
                weight_start, source, bias_start, sums, N, groups, M, L, pixels, row_step, a_step, block,
                activation, 0, 1,
            )
    else:
        for worker in prange(workers, nogil=True, num_threads=workers, schedule="static", chunksize=1):
            multiply_share(
                weight_start, source, bias_start, sums, N, groups, M, L, pixels, row_step, a_step, block,
                activation, worker, workers,
            )
    if strided and transposed and workers == 1:
        spread_pixels(sums, out_start, sizes, 0, 1)
    elif strided and transposed:
        for worker in prange(workers, nogil=True, num_threads=workers, schedule="static", chunksize=1):
            spread_pixels(sums, out_start, sizes, worker, workers)


def conv2d(
    *, x, weight, bias, out, stride, padding, dilation, Py_ssize_t groups, activation, max_pool, packed,
    int num_threads
):
    """Forward convolution."""
    cdef int clamp = ACTIVATIONS[activation]
    if out.itemsize == 4:
        run_product(weight, x, bias, out, <float*>address(out), False, stride, groups, clamp, num_threads)
    else:
        run_product(weight, x, bias, out, <double*>address(out), False, stride, groups, clamp, num_threads)


def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, Py_ssize_t groups, int num_threads):
    """Gradient of the input."""
    if out.itemsize == 4:
        run_product(weight, dy, None, out, <float*>address(out), True, stride, groups, 0, num_threads)
    else:
        run_product(weight, dy, None, out, <double*>address(out), True, stride, groups, 0, num_threads)
