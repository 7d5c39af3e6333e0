"""Direct convolution in Cython. Contract in ``conv2d``; planes and offsets in ``geometry``.

Forward and input gradient. A task copies its block of rows into padded planes, which stay in cache, and runs the
flattened output rows in tiles of mr rows by up to four vectors:

    tile[m, j] = bias[m] + sum_l weight[m, l] planes[ offset[l] + pixel + j ]

The image is never packed: row l of the right-hand side lies in the planes as it is. Columns past Q in each row are
computed and dropped; rows of four or more whole vectors are tiled one by one instead, and go out from the registers if
they need no epilogue. Elsewhere many output channels are the lanes of a tile, and its rows up to MR pixels of one
output row, broadcast where they lie; it is turned when it is stored. "High Performance Zero-Memory Overhead Direct
Convolutions" (arXiv 1809.10170) argues for reading images in place.

Weight gradient. Each entry is one long dot product. Rows of dy that are whole vectors are read where they lie; others
are copied into rows of the planes' width, zeros past Q:

    dw[m, l] = sum_pixel dy[m, pixel] planes[ offset[l] + pixel ]

A tile of rows by columns of them is summed lane by lane. The sum over images and blocks is split into chunks fixed by
the shape.
"""

from cython.parallel cimport prange

from fastcnn_kernels.address cimport address
from fastcnn_kernels.conv2d.epilogue cimport activate, pool_rows
from fastcnn_kernels.gemm.micro cimport (
    DOT_COLUMNS, DOT_COLUMNS_OF_ONE_ROW, DOT_ROWS, MR, TILE_VECTORS, VECTOR_BYTES, add_chunks, copy_run, direct, dot,
    panel_width, put_steps, real, split_row, spread, steps_to, store_tile, take_steps, transpose, zero_run
)
from fastcnn_kernels.gemm.panels cimport even_tile, pack_block

from fastcnn_kernels.conv2d.cython_ import any_nonfinite, set_zero
from fastcnn_kernels.conv2d.direct import blocking, geometry
from fastcnn_kernels.conv2d.geometry import ACTIVATIONS, padded_bias
from fastcnn_kernels.conv2d.handover import to_numpy_row
from fastcnn_kernels.gemm.blocking import packing_threads
from fastcnn_kernels.prepacked import keep, remembered, room
from fastcnn_kernels.memory import empty


cdef void pad_block(
    const real* image, real* planes, Py_ssize_t channels, const Py_ssize_t* table, const Py_ssize_t* phases,
    Py_ssize_t F, Py_ssize_t p, bint clear,
) noexcept nogil:
    """Copy the image rows behind output rows [p, p + PB) into the planes of `channels` channels.

    The padding is written if `clear`: blocks at the same rows of their images have it at the same places.
    """
    cdef Py_ssize_t H = table[4], W = table[5], top = table[6], left = table[7], sh = table[8], sw = table[9]
    cdef Py_ssize_t rows = table[10], width = table[11], c, f, i, h, b, first, last
    cdef real* target = planes
    if clear:
        zero_run(planes, channels * F * rows * width)
    if sw == 2 and F > 1 and phases[1] != phases[3]:  # both remainders of a row at once
        for c in range(channels):
            for i in range(rows):
                for f in range(0, F, 2):
                    h = (p + i) * sh + phases[2 * f] - top
                    if 0 <= h < H:
                        split_row(
                            image + (c * H + h) * W - left, left, left + W, target + (f * rows + i) * width,
                            target + ((f + 1) * rows + i) * width, width,
                        )
            target += F * rows * width
        return
    for c in range(channels):
        for f in range(F):
            b = phases[2 * f + 1]
            # column j of this plane is image column j * sw + b - left
            first = min(width, steps_to(left - b, sw))
            last = min(width, max(first, steps_to(W + left - b, sw)))
            for i in range(rows):
                h = (p + i) * sh + phases[2 * f] - top
                if 0 <= h < H:
                    take_steps(target + first, image + (c * H + h) * W + first * sw + b - left, sw, last - first)
                target += width


cdef void clear_slack(real* planes, const Py_ssize_t* table, Py_ssize_t F) noexcept nogil:
    """Zeros behind the planes, where the last tile reads: they may meet zeros of dy, and denormals would be slow."""
    cdef Py_ssize_t size = table[3] * F * table[10] * table[11]
    zero_run(planes + size, table[14] - size)


cdef void pool_block(
    const real* sums, real* out, const Py_ssize_t* product, Py_ssize_t M, Py_ssize_t rows, Py_ssize_t p
) noexcept nogil:
    """Store the maxima over windows of the sums of output rows [p, p + rows)."""
    cdef Py_ssize_t Q = product[1], i, h
    for i in range(M):
        for h in range(rows // 2):
            pool_rows(
                sums + (i * rows + 2 * h) * Q, sums + (i * rows + 2 * h + 1) * Q,
                out + i * product[6] + (p // 2 + h) * product[4], Q // 2,
            )


cdef void finish_tile(
    real* tile, Py_ssize_t tile_width, Py_ssize_t i, Py_ssize_t channels, Py_ssize_t p, Py_ssize_t rows,
    Py_ssize_t pixel, Py_ssize_t width, real* out, const Py_ssize_t* product, int activation, int pool, real* sums,
) noexcept nogil:
    """Activate a tile of channels from i on and flattened pixels, and store it; in `sums` if it is to be pooled."""
    cdef Py_ssize_t Q = product[1], pixels = (rows - 1) * width + Q
    activate(tile, channels, tile_width, tile_width, activation)
    if pool == 2:
        store_tile(tile, tile_width, channels, pixel, pixels, Q, width, sums + i * rows * Q, Q, 1, rows * Q)
        return
    store_tile(
        tile, tile_width, channels, pixel, pixels, Q, width, out + i * product[6] + p * product[4], product[4],
        product[5], product[6],
    )


cdef void direct_product(
    const real* planes, const real* a_packed, const real* bias, real* out, const Py_ssize_t* product,
    const Py_ssize_t* offset, Py_ssize_t L, Py_ssize_t M, int mr, bint by_row, Py_ssize_t width, Py_ssize_t p,
    Py_ssize_t PB, real* tile, int activation, int pool, real* sums,
) noexcept nogil:
    """One block of output rows of one product, for all M output channels of a group; `sums` wait to be pooled."""
    cdef int VL = panel_width(planes) // 2, vectors
    cdef Py_ssize_t P = product[0], Q = product[1], rows = min(PB, P - p)
    cdef Py_ssize_t count = ((Q if by_row else (rows - 1) * width + Q) + VL - 1) // VL, most = TILE_VECTORS(mr)
    cdef Py_ssize_t tiles = (count + most - 1) // most, fewest = count // tiles
    cdef Py_ssize_t pixel, tile_width, i, panel, run, index
    cdef bint in_place = by_row and product[5] == 1 and pool == 1 and activation == 0, whole
    cdef const real* start = NULL
    cdef real* c
    for panel in range((M + mr - 1) // mr):
        i = panel * mr
        whole = in_place and M - i >= mr
        if bias != NULL:
            start = bias + i
        for run in range(rows if by_row else 1):
            pixel = run * width
            c = out + i * product[6] + (p + run) * product[4] if whole else tile
            for index in range(tiles):
                vectors = <int>(fewest + (index < count - tiles * fewest))
                tile_width = vectors * VL
                direct(
                    mr, vectors, L, a_packed + i * L, planes + pixel, offset, start, c,
                    product[6] if whole else tile_width,
                )
                if whole:
                    c += tile_width
                else:
                    finish_tile(
                        tile, tile_width, i, min(mr, M - i), p, rows, pixel, width, out, product, activation, pool, sums
                    )
                pixel += tile_width
    if pool == 2:
        pool_block(sums, out, product, M, rows, p)


cdef void store_channels(
    const real* tile, Py_ssize_t pitch, Py_ssize_t pixels, Py_ssize_t channels, real* out, Py_ssize_t column_step,
    Py_ssize_t m_step, real* turned,
) noexcept nogil:
    """Store a row of pixels of up to a vector of channels, from a tile with channels side by side."""
    cdef Py_ssize_t j
    if column_step == 1:
        transpose(tile, pitch, pixels, channels, out, m_step, pixels)
        return
    transpose(tile, pitch, pixels, channels, turned, MR, pixels)
    for j in range(channels):
        put_steps(out + j * m_step, turned + j * MR, column_step, pixels)


cdef void channel_product(
    const real* planes, const real* b_packed, const real* bias, real* out, const Py_ssize_t* product,
    const Py_ssize_t* offset, Py_ssize_t L, Py_ssize_t M, Py_ssize_t width, Py_ssize_t p, Py_ssize_t PB, real* tile,
    int activation, int pool, real* sums,
) noexcept nogil:
    """As `direct_product`, with output channels in the lanes and rows of a tile that are pixels of one row."""
    cdef Py_ssize_t P = product[0], Q = product[1], rows = min(PB, P - p), VL = panel_width(planes) // 2
    cdef Py_ssize_t most = even_tile(Q, MR), tiles = (Q + most - 1) // most, panel, m, h, tile_index, q, i, j
    cdef Py_ssize_t pixels, channels
    cdef int vectors
    cdef real* turned = tile + MR * 2 * VL
    for panel in range((M + 2 * VL - 1) // (2 * VL)):
        m = panel * 2 * VL
        vectors = 1 if M - m <= VL else 2
        for h in range(rows):
            for tile_index in range(tiles):
                q = tile_index * most
                pixels = min(most, Q - q)
                spread(
                    <int>pixels, vectors, L, planes + h * width + q, offset, b_packed + m * L,
                    bias + m if bias != NULL else NULL, tile,
                )
                activate(tile, pixels, vectors * VL, vectors * VL, activation)
                for j in range(vectors):
                    i = m + j * VL
                    channels = min(VL, M - i)
                    if pool == 2:
                        store_channels(
                            tile + j * VL, vectors * VL, pixels, channels, sums + (i * rows + h) * Q + q, 1, rows * Q,
                            turned,
                        )
                    else:
                        store_channels(
                            tile + j * VL, vectors * VL, pixels, channels,
                            out + i * product[6] + (p + h) * product[4] + q * product[5], product[5], product[6],
                            turned,
                        )
    if pool == 2:
        pool_block(sums, out, product, M, rows, p)


cdef void pack_filters(
    const real* weight, real* a_packed, const Py_ssize_t* table, const Py_ssize_t* products, Py_ssize_t product_count,
    const Py_ssize_t* weight_steps, const Py_ssize_t* weight_offset, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Pack this worker's share of the weights of all products and groups, [product][group][panel][L][mr].

    With channels in the lanes, a panel has as many rows as a vector or two have lanes.
    """
    cdef Py_ssize_t groups = table[1], M = table[2]
    cdef bint channels = table[16]
    cdef int mr = <int>table[17], height
    cdef Py_ssize_t k, g, panel, L, panels = (M + mr - 1) // mr, task
    for k in range(product_count):
        L = products[10 * k + 7]
        for task in range(groups * panels * worker // workers, groups * panels * (worker + 1) // workers):
            g = task // panels
            panel = task % panels
            height = mr
            if channels and M - panel * mr <= mr // 2:
                height = mr // 2
            pack_block(
                weight + g * weight_steps[1] + panel * mr * weight_steps[0],
                a_packed + products[10 * k + 8] + (g * panels + panel) * mr * L, min(height, M - panel * mr), height, 0,
                1, L, weight_steps[0], weight_offset + products[10 * k + 9],
            )


cdef void direct_blocks(
    const real* image, const real* a_packed, const real* bias, real* out, const Py_ssize_t* table,
    const Py_ssize_t* phases, Py_ssize_t F, const Py_ssize_t* products, const Py_ssize_t* offset,
    Py_ssize_t product_count, int activation, real* scratch, Py_ssize_t scratch_step, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the blocks (rows, g, n), which are padded alike for all g, n: pad, then every product.

    A row of `products` is a product's table, its L, and the start of its weights in `a_packed` and of its offsets.
    """
    cdef Py_ssize_t N = table[0], groups = table[1], M = table[2], channels = table[3], H = table[4], W = table[5]
    cdef Py_ssize_t width = table[11], PB = table[12], blocks = table[13], task, n, g, p, k, L, cleared = -1
    cdef bint channels_in_lanes = table[16]
    cdef int mr = <int>table[17]
    cdef Py_ssize_t rows_packed = (M + mr - 1) // mr * mr
    cdef const Py_ssize_t* product
    cdef const real* filters
    cdef const real* start
    cdef real* target
    cdef real* tile = scratch + worker * scratch_step
    cdef real* planes = tile + MR * 4 * panel_width(image)
    cdef real* sums = planes + table[14]
    clear_slack(planes, table, F)
    for task in range(N * groups * blocks * worker // workers, N * groups * blocks * (worker + 1) // workers):
        p = task // (N * groups) * PB
        g = task // N % groups
        n = task % N
        pad_block(image + (n * groups + g) * channels * H * W, planes, channels, table, phases, F, p, p != cleared)
        cleared = p
        for k in range(product_count):
            product = products + 10 * k
            if p >= product[0]:
                continue
            L = product[7]
            filters = a_packed + product[8] + g * rows_packed * L
            start = bias + g * rows_packed if bias != NULL else NULL
            target = out + product[2] + n * product[3] + g * M * product[6]
            if channels_in_lanes:
                channel_product(
                    planes, filters, start, target, product, offset + product[9], L, M, width, p, PB, tile, activation,
                    <int>table[15], sums,
                )
            else:
                direct_product(
                    planes, filters, start, target, product, offset + product[9], L, M, mr, table[18], width, p, PB,
                    tile, activation, <int>table[15], sums,
                )


cdef bint run_plan(
    plan, image, weight, bias, out, real* out_start, int activation, packed, int num_threads
) except -1:
    """Allocate the workspace of a `geometry.Plan` and run it, unless a weight is not finite where it pads."""
    cdef const Py_ssize_t* table = <const Py_ssize_t*>address(plan.table)
    cdef const Py_ssize_t* phases = <const Py_ssize_t*>address(plan.phases)
    cdef const Py_ssize_t* products = <const Py_ssize_t*>address(plan.products)
    cdef const Py_ssize_t* offset = <const Py_ssize_t*>address(plan.offset)
    cdef const Py_ssize_t* weight_steps = <const Py_ssize_t*>address(plan.weight_steps)
    cdef const Py_ssize_t* weight_offset = <const Py_ssize_t*>address(plan.weight_offset)
    cdef const real* image_start = <const real*>address(image)
    cdef const real* weight_start = <const real*>address(weight)
    cdef Py_ssize_t product_count = len(plan.products), F = len(plan.phases), packed_size = plan.packed_size, worker
    cdef Py_ssize_t scratch_step = MR * 4 * panel_width(out_start) + <Py_ssize_t>plan.scratch_size
    cdef bint channels = table[16]
    cdef int mr = <int>table[17], packers = packing_threads(packed_size, num_threads)
    if plan.pads and remembered(packed, "nonfinite", any_nonfinite, weight, num_threads):
        return False
    if not plan.covers_out:
        set_zero(out, num_threads)
    if product_count == 0:
        return True
    order = ("channels" if channels else "plain", mr, table[2])
    filters, filled = room(packed, order, packed_size, out.dtype)
    workspace = empty(num_threads * scratch_step, out.dtype)
    bias = padded_bias(bias, table[1], table[2], mr)
    cdef real* a_packed = <real*>address(filters)
    cdef real* scratch = <real*>address(workspace)
    cdef const real* bias_start = <const real*>address(bias)
    if not filled:
        if packers == 1:  # a parallel region of one thread takes a microsecond
            pack_filters(
                weight_start, a_packed, table, products, product_count, weight_steps, weight_offset, 0, 1
            )
        else:
            for worker in prange(packers, nogil=True, num_threads=packers, schedule="static", chunksize=1):
                pack_filters(
                    weight_start, a_packed, table, products, product_count, weight_steps, weight_offset, worker,
                    packers,
                )
        keep(packed, order, filters)
    if num_threads == 1:
        with nogil:
            direct_blocks(
                image_start, a_packed, bias_start, out_start, table, phases, F, products, offset, product_count,
                activation, scratch, scratch_step, 0, 1,
            )
        return True
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        direct_blocks(
            image_start, a_packed, bias_start, out_start, table, phases, F, products, offset, product_count,
            activation, scratch, scratch_step, worker, num_threads,
        )
    return True


@to_numpy_row
def conv2d(
    *, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, int num_threads
):
    """Forward convolution."""
    cdef int clamp = ACTIVATIONS[activation]
    plan = geometry.forward(
        x.shape, weight.shape, out.shape, stride, padding, dilation, groups, MR, VECTOR_BYTES // out.itemsize, max_pool
    )
    if out.itemsize == 4:
        return run_plan(plan, x, weight, bias, out, <float*>address(out), clamp, packed, num_threads)
    return run_plan(plan, x, weight, bias, out, <double*>address(out), clamp, packed, num_threads)


@to_numpy_row
def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, groups, int num_threads):
    """Gradient of the input."""
    plan = geometry.grad_input(
        dy.shape, weight.shape, out.shape, stride, padding, dilation, groups, MR, VECTOR_BYTES // out.itemsize,
        num_threads,
    )
    if out.itemsize == 4:
        return run_plan(plan, dy, weight, None, out, <float*>address(out), 0, None, num_threads)
    return run_plan(plan, dy, weight, None, out, <double*>address(out), 0, None, num_threads)


cdef void widen_rows(
    const real* dy, real* rows, Py_ssize_t M, Py_ssize_t P, Py_ssize_t Q, Py_ssize_t width, Py_ssize_t p,
    Py_ssize_t PB, Py_ssize_t step,
) noexcept nogil:
    """Copy rows [p, p + PB) of M channels of dy into rows of `width`, zeros past Q and past the last row."""
    cdef Py_ssize_t m, i, count = min(PB, P - p)
    cdef const real* source
    cdef real* target
    for m in range(M):
        target = rows + m * step
        for i in range(count):
            source = dy + (m * P + p + i) * Q
            copy_run(target + i * width, source, Q)
            zero_run(target + i * width + Q, width - Q)
        zero_run(target + count * width, step - count * width)


cdef void dot_blocks(
    const real* dy, const real* image, real* partial, const Py_ssize_t* table, const Py_ssize_t* phases, Py_ssize_t F,
    const Py_ssize_t* product, const Py_ssize_t* offset, Py_ssize_t L, Py_ssize_t chunks, real* scratch,
    Py_ssize_t scratch_step, Py_ssize_t rows_step, Py_ssize_t images, Py_ssize_t pixels, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the chunks: partial[chunk, g, m, l] over the chunk's blocks (rows, n).

    A dot product takes a number of lines at a time: rows of dy where they lie, as many as `pixels` hold; or else
    stretches of its copied rows; or the copied rows of `images`.
    """
    cdef Py_ssize_t N = table[0], groups = table[1], M = table[2], channels = table[3], H = table[4], W = table[5]
    cdef Py_ssize_t width = table[11], PB = table[12], blocks = table[13], P = product[0], Q = product[1]
    cdef Py_ssize_t task, chunk, g, n, p, block, end, i, j, row_tile, column_tile
    cdef Py_ssize_t row_tiles = (M + DOT_ROWS - 1) // DOT_ROWS
    cdef Py_ssize_t most = DOT_COLUMNS_OF_ONE_ROW if M == 1 else DOT_COLUMNS, column_tiles = (L + most - 1) // most
    cdef bint in_place = rows_step == 0
    cdef Py_ssize_t length = Q if in_place else pixels if images == 1 else rows_step
    cdef Py_ssize_t at_a_time = max(1, pixels // Q) if in_place else images
    cdef Py_ssize_t a_step = P * Q if in_place else rows_step, a_line = length if images == 1 else M * rows_step
    cdef Py_ssize_t b_line = width if in_place else length if images == 1 else table[14]
    cdef Py_ssize_t lines, line, count, cleared
    cdef const real* a
    cdef real* dy_rows = scratch + worker * scratch_step
    cdef real* planes = dy_rows + images * M * rows_step
    cdef real* sums
    for i in range(images):
        clear_slack(planes + i * table[14], table, F)
    for task in range(groups * chunks * worker // workers, groups * chunks * (worker + 1) // workers):
        chunk = task % chunks
        g = task // chunks
        sums = partial + (chunk * groups + g) * M * L
        zero_run(sums, M * L)
        block = N * blocks * chunk // chunks
        end = N * blocks * (chunk + 1) // chunks
        cleared = -1
        while block < end:
            p = block // N * PB
            lines = min(images, end - block)
            for i in range(lines):
                n = (block + i) % N
                pad_block(
                    image + (n * groups + g) * channels * H * W, planes + i * table[14], channels, table, phases, F, p,
                    p != cleared,
                )
                a = dy + (n * groups + g) * M * P * Q
                if not in_place:
                    widen_rows(a, dy_rows + i * M * rows_step, M, P, Q, width, p, PB, rows_step)
            cleared = p
            block += lines
            if in_place:
                a += p * Q
                lines = min(PB, P - p)
            else:
                a = dy_rows
                if images == 1:
                    lines = (rows_step + length - 1) // length
            for row_tile in range(row_tiles):
                i = M * row_tile // row_tiles
                line = 0
                while line < lines:
                    count = min(at_a_time, lines - line)
                    for column_tile in range(column_tiles):
                        j = L * column_tile // column_tiles
                        dot(
                            <int>(M * (row_tile + 1) // row_tiles - i),
                            <int>(L * (column_tile + 1) // column_tiles - j), count,
                            min(length, rows_step - line * length) if images == 1 and not in_place else length,
                            a + i * a_step + line * a_line, a_step, a_line, planes + line * b_line, b_line, offset + j,
                            sums + i * L + j, L,
                        )
                    line += count


cdef bint run_weight_plan(plan, dy, x, out, real* out_start, int num_threads) except -1:
    """Allocate the workspace of the weight gradient over a forward `geometry.Plan`, run it, add up the chunks."""
    cdef const Py_ssize_t* table = <const Py_ssize_t*>address(plan.table)
    cdef const Py_ssize_t* phases = <const Py_ssize_t*>address(plan.phases)
    cdef const Py_ssize_t* products = <const Py_ssize_t*>address(plan.products)
    cdef const Py_ssize_t* offset = <const Py_ssize_t*>address(plan.offset)
    cdef const real* dy_start = <const real*>address(dy)
    cdef const real* x_start = <const real*>address(x)
    cdef Py_ssize_t M = table[2], F = len(plan.phases), L = plan.offset.size, size = out.size, worker
    cdef Py_ssize_t VL = panel_width(out_start) // 2
    cdef Py_ssize_t rows_step = 0, pixels = blocking.DOT_PIXELS  # large rows of whole vectors are read where they lie
    if products[1] % VL != 0 or products[0] * products[1] < pixels:
        rows_step = (table[12] * table[11] + VL - 1) // VL * VL
    cdef Py_ssize_t chunks = min(blocking.WEIGHT_CHUNKS // table[1] + 1, table[0] * table[13])
    cdef Py_ssize_t image_size = M * rows_step + table[14], images = blocking.images_at_a_time(
        rows_step, table[13], (table[0] + chunks - 1) // chunks, image_size * sizeof(real)
    )
    cdef Py_ssize_t scratch_step = images * image_size
    workspace = empty(num_threads * scratch_step + (chunks * size if chunks > 1 else 0), out.dtype)
    cdef real* scratch = <real*>address(workspace)
    cdef real* partial = scratch + num_threads * scratch_step if chunks > 1 else out_start
    if num_threads == 1:
        with nogil:
            dot_blocks(
                dy_start, x_start, partial, table, phases, F, products, offset, L, chunks, scratch, scratch_step,
                rows_step, images, pixels, 0, 1,
            )
    else:
        for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
            dot_blocks(
                dy_start, x_start, partial, table, phases, F, products, offset, L, chunks, scratch, scratch_step,
                rows_step, images, pixels, worker, num_threads,
            )
    if chunks > 1:
        add_chunks(partial, out_start, size, chunks)
    return not any_nonfinite(out, num_threads)  # zeros past Q and of the padding met what they must not


@to_numpy_row
def conv2d_grad_weight(*, dy, x, out, stride, padding, dilation, groups, int num_threads):
    """Gradient of the weights."""
    plan = geometry.forward(
        x.shape, out.shape, dy.shape, stride, padding, dilation, groups, MR, VECTOR_BYTES // out.itemsize
    )
    if out.itemsize == 4:
        return run_weight_plan(plan, dy, x, out, <float*>address(out), num_threads)
    return run_weight_plan(plan, dy, x, out, <double*>address(out), num_threads)
