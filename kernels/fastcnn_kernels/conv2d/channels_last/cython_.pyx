"""Channels-last weight gradient in Cython. Contract and picture in the family's ``__init__``; tasks in ``geometry``.

A task (group, block of panels, block of slabs, chunk of the sum) takes a part of an output row, a few rows, or a few
images at a time:

    for each such block:   transpose dy;   for each slab:   transpose it;   for each tile of vectors, each panel: sum

With a single tap at stride 1 the rows of tiles are not transposed but read where they lie, and are channels of x where
these are more: dy is then the image, and its sums are turned when they go to dw.

The zeros of the padding take part in these sums, which is wrong only where they meet Inf or NaN. Then the NumPy row,
which clips every tap to the image, computes the call (``handover``).
"""

from cython.parallel cimport prange

from fastcnn_kernels.address cimport address
from fastcnn_kernels.gemm.micro cimport (
    TILE_VECTORS, VECTOR_BYTES, has_nonfinite, panel_width, pixel_sums, plane_sums, put_steps, real, transpose,
    transpose_far, zero_run
)
from fastcnn_kernels.gemm.panels cimport panel_pitch, panel_rows

from fastcnn_kernels.conv2d.channels_last import geometry
from fastcnn_kernels.conv2d.handover import to_numpy_row
from fastcnn_kernels.gemm.blocking import packing_threads
from fastcnn_kernels.memory import empty


cdef void fill_slab(
    const real* image, real* slab, const Py_ssize_t* table, Py_ssize_t channels, Py_ssize_t p, Py_ssize_t q,
    Py_ssize_t rows,
) noexcept nogil:
    """Transpose `rows` stored rows of `channels` channels, from those of output (p, q) on, padded by zeros."""
    cdef Py_ssize_t H = table[4], W = table[5], top = table[8], left = table[9] - q * table[12], row_step = table[10]
    cdef Py_ssize_t width = table[13], row = width * channels, i = 0, h, count
    cdef Py_ssize_t begin = min(width, max(0, left)), end = max(begin, min(width, W + left))
    while i < rows:
        h = (p * table[11] + i) * row_step - top
        if h < 0 or h >= H:
            zero_run(slab + i * row, row)
            i += 1
            continue
        count = 1
        if end - begin == width == W and row_step == 1:  # rows that follow each other
            count = min(rows - i, H - h)
        zero_run(slab + i * row, begin * channels)
        transpose_far(
            image + h * W + begin - left, H * W, channels, count * (end - begin), slab + i * row + begin * channels,
            channels, channels,
        )
        zero_run(slab + i * row + end * channels, (width - end) * channels)
        i += count


cdef void sum_pixels(
    const real* dy, const real* x, real* partial, const Py_ssize_t* table, const Py_ssize_t* slabs,
    Py_ssize_t slab_count, const Py_ssize_t* offset, real* scratch, Py_ssize_t scratch_step, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the tasks: partial[chunk, g, panel, tile of vectors][mr, vectors]."""
    cdef Py_ssize_t N = table[0], groups = table[1], M = table[2], Cg = table[3], plane = table[4] * table[5]
    cdef Py_ssize_t P = table[6], Q = table[7], row_rows = table[11], stride_w = table[12], width = table[13]
    cdef Py_ssize_t PB = table[14], IB = table[15], V = table[17], chunks = table[18], panel_block = table[19]
    cdef Py_ssize_t slab_block = table[20], QB = table[23], in_place = table[24], VL = panel_width(dy) // 2
    cdef Py_ssize_t row_blocks = (P + PB - 1) // PB, column_blocks = (Q + QB - 1) // QB
    cdef Py_ssize_t blocks = (N + IB - 1) // IB * row_blocks * column_blocks
    cdef int mr = panel_rows(M)
    cdef Py_ssize_t pitch = panel_pitch(mr, VL), panels = (M + mr - 1) // mr
    cdef Py_ssize_t panel_blocks = (panels + panel_block - 1) // panel_block
    cdef Py_ssize_t slab_blocks = (slab_count + slab_block - 1) // slab_block
    cdef Py_ssize_t tasks = groups * panel_blocks * slab_blocks * chunks, task, chunk, g, first, last, first_slab
    cdef Py_ssize_t slab, last_slab, first_block, block, n, p, q, images, lines, columns, pixels, rows, row, channels
    cdef Py_ssize_t panel, v, vectors, i, stack, stacked = pitch // mr  # panels of 8 rows share a vector of rows of dy
    cdef real* dy_packed = scratch + worker * scratch_step
    cdef real* image = dy_packed + (0 if in_place else panel_block * pitch * IB * PB * QB)
    cdef real* sums
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        chunk = task % chunks
        first_block = blocks * chunk // chunks
        first_slab = task // chunks % slab_blocks * slab_block
        last_slab = min(slab_count, first_slab + slab_block)
        first = task // (chunks * slab_blocks) % panel_blocks * panel_block
        last = min(panels, first + panel_block)
        g = task // (chunks * slab_blocks * panel_blocks)
        sums = partial + (chunk * groups + g) * panels * mr * V * VL
        for block in range(first_block, blocks * (chunk + 1) // chunks):
            n = block // (row_blocks * column_blocks) * IB
            p = block // column_blocks % row_blocks * PB
            q = block % column_blocks * QB
            images = min(IB, N - n)
            lines = min(PB, P - p)
            columns = min(QB, Q - q)
            pixels = images * lines * columns
            for stack in range(first // stacked, 0 if in_place else (last + stacked - 1) // stacked):
                row = stack * stacked * mr
                for i in range(images):
                    transpose_far(
                        dy + (((n + i) * groups + g) * M + row) * P * Q + p * Q + q, P * Q, min(pitch, M - row),
                        lines * columns,
                        dy_packed + ((stack - first // stacked) * pixels + i * lines * columns) * pitch, pitch, pitch,
                    )
            rows = table[16] - (PB - lines) * row_rows
            for slab in range(first_slab, last_slab):
                channels = slabs[4 * slab + 1]
                row = width * channels
                for i in range(images):
                    fill_slab(
                        x + (((n + i) * groups + g) * Cg + slabs[4 * slab]) * plane, image + i * rows * row, table,
                        channels, p, q, rows,
                    )
                zero_run(image + images * rows * row, VL)  # lanes behind the last run are read: no denormals
                v = slabs[4 * slab + 2]
                while v < slabs[4 * slab + 6]:
                    vectors = min(slabs[4 * slab + 3], slabs[4 * slab + 6] - v)
                    for panel in range(first, last):
                        if in_place:
                            plane_sums(
                                <int>min(mr, M - panel * mr), <int>vectors, images, lines * columns,
                                dy + ((n * groups + g) * M + panel * mr) * P * Q + p * Q + q, P * Q, groups * M * P * Q,
                                image, rows * row, channels, offset + v, sums + (panel * V + v) * mr * VL,
                                block > first_block,
                            )
                            continue
                        pixel_sums(
                            <int>min(mr, M - panel * mr), <int>vectors, images, lines, columns,
                            dy_packed + (panel // stacked - first // stacked) * pixels * pitch + panel % stacked * mr,
                            pitch, image, rows * row, row_rows * row, stride_w * channels, offset + v,
                            sums + (panel * V + v) * mr * VL, block > first_block,
                        )
                    v += vectors


cdef void collect_turned(
    real* partial, real* out, const Py_ssize_t* table, const Py_ssize_t* pieces, Py_ssize_t piece_count,
    Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """out[g, l, m] = sum of the chunks, in their order, for this worker's share of the panels of rows."""
    cdef Py_ssize_t groups = table[1], M = table[2], chunks = table[18], VL = panel_width(partial) // 2
    cdef int mr = panel_rows(M)
    cdef Py_ssize_t panels = (M + mr - 1) // mr, panel_size = mr * table[17] * VL, panel, row, rows, piece, chunk, i
    cdef Py_ssize_t j, chunk_size = groups * panels * panel_size
    cdef real* sums
    cdef real* target
    for panel in range(groups * panels * worker // workers, groups * panels * (worker + 1) // workers):
        row = panel % panels * mr
        rows = min(mr, M - row)
        target = out + panel // panels * M * table[3] + row
        for piece in range(0, 4 * piece_count, 4):
            sums = partial + panel * panel_size + pieces[piece]
            for chunk in range(1, chunks):
                for i in range(rows):
                    for j in range(i * pieces[piece + 1], i * pieces[piece + 1] + pieces[piece + 2]):
                        sums[j] += sums[chunk * chunk_size + j]
            transpose(sums, pieces[piece + 1], rows, pieces[piece + 2], target + pieces[piece + 3], M, rows)


cdef void collect(
    real* partial, real* out, const Py_ssize_t* table, const Py_ssize_t* pieces, Py_ssize_t piece_count,
    Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """out[g, m, l] = sum of the chunks, in their order, for this worker's share of the rows (g, m)."""
    cdef Py_ssize_t groups = table[1], M = table[2], chunks = table[18], taps = table[22]
    cdef Py_ssize_t VL = panel_width(partial) // 2, row, i, j, piece, chunk
    cdef int mr = panel_rows(M)
    cdef Py_ssize_t panel_size = mr * table[17] * VL, group_size = (M + mr - 1) // mr * panel_size
    cdef Py_ssize_t chunk_size = groups * group_size
    cdef const real* sums
    cdef const real* values
    cdef real* target
    if table[25]:
        collect_turned(partial, out, table, pieces, piece_count, worker, workers)
        return
    for row in range(groups * M * worker // workers, groups * M * (worker + 1) // workers):
        i = row % M % mr
        sums = partial + row // M * group_size + row % M // mr * panel_size
        for piece in range(0, 4 * piece_count, 4):
            values = sums + pieces[piece] + i * pieces[piece + 1]
            target = out + row * table[3] * taps + pieces[piece + 3]
            put_steps(target, values, taps, pieces[piece + 2])
            for chunk in range(1, chunks):
                for j in range(pieces[piece + 2]):
                    target[j * taps] += values[chunk * chunk_size + j]


cdef bint run_plan(plan, dy, x, out, real* out_start, int num_threads) except -1:
    """Allocate the workspace of a `geometry.Plan` and run it; False if padding met what it must not."""
    cdef const Py_ssize_t* table = <const Py_ssize_t*>address(plan.table)
    cdef const Py_ssize_t* slabs = <const Py_ssize_t*>address(plan.slabs)
    cdef const Py_ssize_t* offset = <const Py_ssize_t*>address(plan.offset)
    cdef const Py_ssize_t* pieces = <const Py_ssize_t*>address(plan.pieces)
    cdef const real* dy_start = <const real*>address(dy)
    cdef const real* x_start = <const real*>address(x)
    cdef Py_ssize_t slab_count = len(plan.slabs) - 1, piece_count = len(plan.pieces), M = table[2], worker
    cdef Py_ssize_t VL = panel_width(out_start) // 2
    cdef int mr = panel_rows(M)
    cdef Py_ssize_t packed_rows = 0 if table[24] else table[19] * panel_pitch(mr, VL)
    cdef Py_ssize_t scratch_step = table[15] * (packed_rows * table[14] * table[23] + table[21]) + VL
    cdef Py_ssize_t sums = table[18] * table[1] * ((M + mr - 1) // mr) * mr * table[17] * VL
    cdef int collectors = packing_threads(sums, num_threads)
    workspace = empty(num_threads * scratch_step + sums, out.dtype)
    cdef real* partial = <real*>address(workspace)
    cdef real* scratch = partial + sums
    if num_threads == 1:
        with nogil:
            sum_pixels(dy_start, x_start, partial, table, slabs, slab_count, offset, scratch, scratch_step, 0, 1)
    else:
        for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
            sum_pixels(
                dy_start, x_start, partial, table, slabs, slab_count, offset, scratch, scratch_step, worker, num_threads
            )
    if collectors == 1:
        with nogil:
            collect(partial, out_start, table, pieces, piece_count, 0, 1)
    else:
        for worker in prange(collectors, nogil=True, num_threads=collectors, schedule="static", chunksize=1):
            collect(partial, out_start, table, pieces, piece_count, worker, collectors)
    return not (plan.pads and has_nonfinite(out_start, table[1] * M * table[3] * table[22]))


@to_numpy_row
def conv2d_grad_weight(*, dy, x, out, stride, padding, dilation, groups, int num_threads):
    """Gradient of the weights."""
    in_place, turned = geometry.roles(out.shape, dy.shape, stride, padding, groups, out.itemsize)
    cdef int mr = panel_rows(out.shape[1] if turned else out.shape[0] // groups)
    plan = geometry.plan(
        x.shape, out.shape, dy.shape, stride, padding, dilation, groups, in_place, turned, mr, TILE_VECTORS(mr),
        out.itemsize, VECTOR_BYTES // out.itemsize, num_threads,
    )
    if turned:
        dy, x = x, dy
    if out.itemsize == 4:
        return run_plan(plan, dy, x, out, <float*>address(out), num_threads)
    return run_plan(plan, dy, x, out, <double*>address(out), num_threads)
