"""Direct convolution in Numba. Contract in ``conv2d``; planes and offsets in ``geometry``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithms are described there. An array and a
start index stand for a C pointer.
"""

from fastcnn_kernels.conv2d.direct import blocking, geometry
from fastcnn_kernels.conv2d.geometry import ACTIVATIONS, padded_bias
from fastcnn_kernels.conv2d.handover import to_numpy_row
from fastcnn_kernels.conv2d.numba_ import add_chunks, any_nonfinite, set_zero
from fastcnn_kernels.conv2d.numba_epilogue import activate, pool_rows
from fastcnn_kernels.gemm.blocking import packing_threads
from fastcnn_kernels.gemm.numba_copies import (
    copy_run,
    put_steps,
    split_row,
    steps_to,
    take_steps,
    zero_run,
)
from fastcnn_kernels.gemm.numba_dots import (
    DOT_COLUMNS,
    DOT_COLUMNS_OF_ONE_ROW,
    DOT_ROWS,
    dot,
)
from fastcnn_kernels.gemm.numba_llvm import (
    MR,
    VECTOR_BYTES,
    panel_width,
)
from fastcnn_kernels.gemm.numba_panels import even_tile, pack_block
from fastcnn_kernels.gemm.numba_tiles import direct, spread, tile_vectors
from fastcnn_kernels.gemm.numba_transposes import transpose
from fastcnn_kernels.memory import empty
from fastcnn_kernels.numba_support import compiled, flat, threaded
from fastcnn_kernels.prepacked import keep, remembered, room


@compiled
def pad_block(image, image_start, planes, planes_start, channels, table, phases, p, clear):
    """Copy the image rows behind output rows [p, p + PB) into the planes of `channels` channels.

    The padding is written if `clear`: blocks at the same rows of their images have it at the same places.
    """
    H, W, top, left, sh, sw, rows, width = (
        table[4], table[5], table[6], table[7], table[8], table[9], table[10], table[11],
    )  # fmt: skip
    target = planes_start
    if clear:
        zero_run(planes, target, channels * phases.shape[0] * rows * width)
    F = phases.shape[0]
    if sw == 2 and F > 1 and phases[0, 1] != phases[1, 1]:  # both remainders of a row at once
        for c in range(channels):
            for i in range(rows):
                for f in range(0, F, 2):
                    h = (p + i) * sh + phases[f, 0] - top
                    if 0 <= h < H:
                        source = image_start + (c * H + h) * W - left
                        even = target + (f * rows + i) * width
                        split_row(image, source, left, left + W, planes, even, even + rows * width, width)
            target += F * rows * width
        return
    for c in range(channels):
        for f in range(F):
            b = phases[f, 1]
            # column j of this plane is image column j * sw + b - left
            first = min(width, steps_to(left - b, sw))
            last = min(width, max(first, steps_to(W + left - b, sw)))
            for i in range(rows):
                h = (p + i) * sh + phases[f, 0] - top
                if 0 <= h < H:
                    source = image_start + (c * H + h) * W + first * sw + b - left
                    take_steps(planes, target + first, image, source, sw, last - first)
                target += width


@compiled
def clear_slack(planes, planes_start, table, F):
    """Zeros behind the planes, where the last tile reads: they may meet zeros of dy, and denormals would be slow."""
    size = table[3] * F * table[10] * table[11]
    zero_run(planes, planes_start + size, table[14] - size)


@compiled
def store_tile(
    tile, tile_start, tile_width, rows, pixel, pixels, Q, width, out, out_start, row_step, column_step, m_step
):
    """Store flattened pixels [pixel, pixel + tile_width) of each row of the tile, without the columns past Q."""
    q = pixel % width
    end = min(pixels, pixel + tile_width) - pixel
    target = out_start + pixel // width * row_step
    j = 0
    while j < end:
        length = min(width - q, end - j)
        for i in range(rows):
            put_steps(
                out, target + i * m_step + q * column_step, column_step, tile, tile_start + i * tile_width + j,
                min(length, Q - q),
            )  # fmt: skip
        j += length
        target += row_step
        q = 0


@compiled
def pool_block(sums, sums_start, out, out_start, product, M, rows, p):
    """Store the maxima over windows of the sums of output rows [p, p + rows)."""
    Q = product[1]
    for i in range(M):
        for h in range(rows // 2):
            top = sums_start + (i * rows + 2 * h) * Q
            pool_rows(sums, top, top + Q, out, out_start + i * product[6] + (p // 2 + h) * product[4], Q // 2)


@compiled
def finish_tile(
    tile, tile_start, tile_width, i, channels, p, rows, pixel, width, out, out_start, product, activation, pool, sums
):
    """Activate a tile of channels from i on and flattened pixels, and store it; in `sums` if it is to be pooled."""
    Q = product[1]
    pixels = (rows - 1) * width + Q
    activate(tile, tile_start, channels, tile_width, tile_width, activation)
    if pool == 2:
        store_tile(
            tile, tile_start, tile_width, channels, pixel, pixels, Q, width, tile, sums + i * rows * Q, Q, 1, rows * Q
        )
        return
    store_tile(
        tile, tile_start, tile_width, channels, pixel, pixels, Q, width, out,
        out_start + i * product[6] + p * product[4], product[4], product[5], product[6],
    )  # fmt: skip


@compiled
def direct_product(
    planes, planes_start, a_packed, a_start, bias, bias_start, has_bias, out, out_start, product, offset, offset_start,
    L, M, mr, by_row, width, p, PB, tile, tile_start, activation, pool, sums,
):  # fmt: skip
    """One block of output rows of one product, for all M output channels of a group; `sums` wait to be pooled."""
    P, Q, VL = product[0], product[1], panel_width(planes) // 2
    rows = min(PB, P - p)
    count, most = ((Q if by_row else (rows - 1) * width + Q) + VL - 1) // VL, tile_vectors(mr)
    tiles = (count + most - 1) // most
    fewest = count // tiles
    in_place = by_row and product[5] == 1 and pool == 1 and activation == 0
    for panel in range((M + mr - 1) // mr):
        i = panel * mr
        whole = in_place and M - i >= mr
        for run in range(rows if by_row else 1):
            pixel, place = run * width, out_start + i * product[6] + (p + run) * product[4]
            for index in range(tiles):
                vectors = fewest + (1 if index < count - tiles * fewest else 0)
                tile_width = vectors * VL
                target, c, ldc = (out, place, product[6]) if whole else (tile, tile_start, tile_width)
                direct(
                    mr, vectors, L, a_packed, a_start + i * L, planes, planes_start + pixel, offset, offset_start, bias,
                    bias_start + i, has_bias, target, c, ldc,
                )  # fmt: skip
                if not whole:
                    finish_tile(
                        tile, tile_start, tile_width, i, min(mr, M - i), p, rows, pixel, width, out, out_start, product,
                        activation, pool, sums,
                    )  # fmt: skip
                place += tile_width
                pixel += tile_width
    if pool == 2:
        pool_block(tile, sums, out, out_start, product, M, rows, p)


@compiled
def store_channels(
    tile, tile_start, pitch, pixels, channels, out, out_start, column_step, m_step, turned
):  # fmt: skip
    """Store a row of pixels of up to a vector of channels, from a tile with channels side by side."""
    if column_step == 1:
        transpose(tile, tile_start, pitch, pixels, channels, out, out_start, m_step, pixels)
        return
    transpose(tile, tile_start, pitch, pixels, channels, tile, turned, MR, pixels)
    for j in range(channels):
        put_steps(out, out_start + j * m_step, column_step, tile, turned + j * MR, pixels)


@compiled
def channel_product(
    planes, planes_start, b_packed, b_start, bias, bias_start, has_bias, out, out_start, product, offset, offset_start,
    L, M, width, p, PB, tile, tile_start, activation, pool, sums,
):  # fmt: skip
    """As `direct_product`, with output channels in the lanes and rows of a tile that are pixels of one row."""
    P, Q, VL = product[0], product[1], panel_width(planes) // 2
    rows, most = min(PB, P - p), even_tile(Q, MR)
    tiles, turned = (Q + most - 1) // most, tile_start + MR * 2 * VL
    for panel in range((M + 2 * VL - 1) // (2 * VL)):
        m = panel * 2 * VL
        vectors = 1 if M - m <= VL else 2
        for h in range(rows):
            for tile_index in range(tiles):
                q = tile_index * most
                pixels = min(most, Q - q)
                spread(
                    pixels, vectors, L, planes, planes_start + h * width + q, offset, offset_start, b_packed,
                    b_start + m * L, bias, bias_start + m, has_bias, tile, tile_start,
                )  # fmt: skip
                activate(tile, tile_start, pixels, vectors * VL, vectors * VL, activation)
                for j in range(vectors):
                    i = m + j * VL
                    channels = min(VL, M - i)
                    if pool == 2:
                        store_channels(
                            tile, tile_start + j * VL, vectors * VL, pixels, channels, tile,
                            sums + (i * rows + h) * Q + q, 1, rows * Q, turned,
                        )  # fmt: skip
                    else:
                        store_channels(
                            tile, tile_start + j * VL, vectors * VL, pixels, channels, out,
                            out_start + i * product[6] + (p + h) * product[4] + q * product[5], product[5], product[6],
                            turned,
                        )  # fmt: skip
    if pool == 2:
        pool_block(tile, sums, out, out_start, product, M, rows, p)


@threaded
def pack_filters(weight, a_packed, table, products, weight_steps, weight_offset, worker, workers):
    """Pack this worker's share of the weights of all products and groups, [product][group][panel][L][mr].

    With channels in the lanes, a panel has as many rows as a vector or two have lanes.
    """
    groups, M, channels, mr = table[1], table[2], table[16] == 1, table[17]
    panels = (M + mr - 1) // mr
    for k in range(products.shape[0]):
        L = products[k, 7]
        for task in range(groups * panels * worker // workers, groups * panels * (worker + 1) // workers):
            g, panel = task // panels, task % panels
            height = mr
            if channels and M - panel * mr <= mr // 2:
                height = mr // 2
            pack_block(
                weight, g * weight_steps[1] + panel * mr * weight_steps[0], a_packed,
                products[k, 8] + (g * panels + panel) * mr * L, min(height, M - panel * mr), height, 0, 1, L,
                weight_steps[0], weight_offset, products[k, 9],
            )  # fmt: skip


@threaded
def direct_blocks(
    image, a_packed, bias, has_bias, out, table, phases, products, offset, activation, scratch, scratch_step, worker,
    workers,
):  # fmt: skip
    """Do this worker's share of the blocks (rows, g, n), which are padded alike for all g, n: pad, then every product.

    A row of `products` is a product's table, its L, and the start of its weights in `a_packed` and of its offsets.
    """
    N, groups, M, channels, H, W = table[0], table[1], table[2], table[3], table[4], table[5]
    width, PB, blocks, channels_in_lanes, mr = table[11], table[12], table[13], table[16] == 1, table[17]
    rows_packed = (M + mr - 1) // mr * mr
    tile = worker * scratch_step
    cleared = -1
    planes = tile + MR * 4 * panel_width(image)
    sums = planes + table[14]
    clear_slack(scratch, planes, table, phases.shape[0])
    for task in range(N * groups * blocks * worker // workers, N * groups * blocks * (worker + 1) // workers):
        p, g, n = task // (N * groups) * PB, task // N % groups, task % N
        pad_block(image, (n * groups + g) * channels * H * W, scratch, planes, channels, table, phases, p, p != cleared)
        cleared = p
        for k in range(products.shape[0]):
            product = products[k]
            if p >= product[0]:
                continue
            L = product[7]
            filters, start = product[8] + g * rows_packed * L, g * rows_packed
            target = product[2] + n * product[3] + g * M * product[6]
            if channels_in_lanes:
                channel_product(
                    scratch, planes, a_packed, filters, bias, start, has_bias, out, target, product, offset, product[9],
                    L, M, width, p, PB, scratch, tile, activation, table[15], sums,
                )  # fmt: skip
            else:
                direct_product(
                    scratch, planes, a_packed, filters, bias, start, has_bias, out, target, product, offset, product[9],
                    L, M, mr, table[18] == 1, width, p, PB, scratch, tile, activation, table[15], sums,
                )  # fmt: skip


def run_plan(plan, image, weight, bias, out, activation, packed, num_threads):
    """Allocate the workspace of a `geometry.Plan` and run it."""
    groups, M = plan.table[1:3].tolist()
    scratch_step = MR * 8 * VECTOR_BYTES // out.itemsize + plan.scratch_size
    channels, mr = plan.table[16:18].tolist()
    order = ("channels" if channels else "plain", mr, M)
    a_packed, filled = room(packed, order, plan.packed_size, out.dtype)
    scratch = empty(num_threads * scratch_step, out.dtype)
    if not plan.covers_out:
        set_zero(num_threads, out.ravel())
    if len(plan.products) == 0:
        return
    bias = padded_bias(bias, groups, M, mr)
    if not filled:
        pack_filters(
            packing_threads(a_packed.size, num_threads), flat(weight), a_packed, plan.table, plan.products,
            plan.weight_steps, plan.weight_offset,
        )  # fmt: skip
        keep(packed, order, a_packed)
    direct_blocks(
        num_threads, flat(image), a_packed, a_packed if bias is None else flat(bias), bias is not None, out.ravel(),
        plan.table, plan.phases, plan.products, plan.offset, activation, scratch, scratch_step,
    )  # fmt: skip


@to_numpy_row
def conv2d(
    *, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, num_threads
):  # fmt: skip
    """Forward convolution."""
    plan = geometry.forward(
        x.shape, weight.shape, out.shape, stride, padding, dilation, groups, MR, VECTOR_BYTES // out.itemsize, max_pool
    )
    if plan.pads and remembered(packed, "nonfinite", any_nonfinite, flat(weight), num_threads):
        return False
    run_plan(plan, x, weight, bias, out, ACTIVATIONS[activation], packed, num_threads)
    return True


@to_numpy_row
def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the input."""
    plan = geometry.grad_input(
        dy.shape, weight.shape, out.shape, stride, padding, dilation, groups, MR, VECTOR_BYTES // out.itemsize,
        num_threads,
    )  # fmt: skip
    if plan.pads and any_nonfinite(flat(weight), num_threads):
        return False
    run_plan(plan, dy, weight, None, out, 0, None, num_threads)
    return True


@compiled
def widen_rows(dy, dy_start, rows, rows_start, M, P, Q, width, p, PB, step):
    """Copy rows [p, p + PB) of M channels of dy into rows of `width`, zeros past Q and past the last row."""
    count = min(PB, P - p)
    for m in range(M):
        target = rows_start + m * step
        for i in range(count):
            source = dy_start + (m * P + p + i) * Q
            copy_run(rows, target + i * width, dy, source, Q)
            zero_run(rows, target + i * width + Q, width - Q)
        for j in range(count * width, step):
            rows[target + j] = 0


@threaded
def dot_blocks(
    dy, image, partial, table, phases, product, offset, chunks, scratch, scratch_step, rows_step, images, pixels,
    worker, workers,
):  # fmt: skip
    """Do this worker's share of the chunks: partial[chunk, g, m, l] over the chunk's blocks (rows, n).

    A dot product takes a number of lines at a time: rows of dy where they lie, as many as `pixels` hold; or else
    stretches of its copied rows; or the copied rows of `images`.
    """
    N, groups, M, channels, H, W = table[0], table[1], table[2], table[3], table[4], table[5]
    width, PB, blocks, P, Q, L = table[11], table[12], table[13], product[0], product[1], offset.size
    dy_rows = worker * scratch_step
    planes = dy_rows + images * M * rows_step
    in_place = rows_step == 0
    length = Q if in_place else pixels if images == 1 else rows_step
    at_a_time = max(1, pixels // Q) if in_place else images
    a_step, a_line = P * Q if in_place else rows_step, length if images == 1 else M * rows_step
    b_line = width if in_place else length if images == 1 else table[14]
    row_tiles = (M + DOT_ROWS - 1) // DOT_ROWS
    most = DOT_COLUMNS_OF_ONE_ROW if M == 1 else DOT_COLUMNS
    column_tiles = (L + most - 1) // most
    for i in range(images):
        clear_slack(scratch, planes + i * table[14], table, phases.shape[0])
    for task in range(groups * chunks * worker // workers, groups * chunks * (worker + 1) // workers):
        chunk = task % chunks
        g = task // chunks
        sums = (chunk * groups + g) * M * L
        for i in range(M * L):
            partial[sums + i] = 0
        block, end = N * blocks * chunk // chunks, N * blocks * (chunk + 1) // chunks
        cleared = -1
        while block < end:
            p, lines = block // N * PB, min(images, end - block)
            for i in range(lines):
                n = (block + i) % N
                pad_block(
                    image, (n * groups + g) * channels * H * W, scratch, planes + i * table[14], channels, table,
                    phases, p, p != cleared,
                )  # fmt: skip
                start = (n * groups + g) * M * P * Q
                if not in_place:
                    widen_rows(dy, start, scratch, dy_rows + i * M * rows_step, M, P, Q, width, p, PB, rows_step)
            cleared = p
            block += lines
            a = dy
            if in_place:
                start, lines = start + p * Q, min(PB, P - p)
            else:
                a, start = scratch, dy_rows
                if images == 1:
                    lines = (rows_step + length - 1) // length
            for row_tile in range(row_tiles):
                i = M * row_tile // row_tiles
                line = 0
                while line < lines:
                    count = min(at_a_time, lines - line)
                    line_pixels = min(length, rows_step - line * length) if images == 1 and not in_place else length
                    for column_tile in range(column_tiles):
                        j = L * column_tile // column_tiles
                        dot(
                            M * (row_tile + 1) // row_tiles - i, L * (column_tile + 1) // column_tiles - j, count,
                            line_pixels, a, start + i * a_step + line * a_line, a_step, a_line, scratch,
                            planes + line * b_line, b_line, offset, j, partial, sums + i * L + j, L,
                        )  # fmt: skip
                    line += count


def run_weight_plan(plan, dy, x, out, num_threads):
    """Allocate the workspace of the weight gradient over a forward `geometry.Plan`, run it, add up the chunks."""
    N, groups, M = plan.table[:3].tolist()
    width, PB, blocks = plan.table[11:14].tolist()
    NR = 2 * VECTOR_BYTES // out.itemsize
    rows_step, pixels = 0, blocking.DOT_PIXELS  # large rows of whole vectors are read where they lie
    if dy.shape[3] % (NR // 2) != 0 or dy.shape[2] * dy.shape[3] < pixels:
        rows_step = -(-PB * width // (NR // 2)) * (NR // 2)
    chunks = min(blocking.WEIGHT_CHUNKS // groups + 1, N * blocks)
    image_size = M * rows_step + int(plan.table[14])
    images = blocking.images_at_a_time(rows_step, blocks, -(-N // chunks), image_size * out.itemsize)
    scratch_step = images * image_size
    scratch = empty(num_threads * scratch_step, out.dtype)
    partial = out if chunks == 1 else empty(chunks * out.size, out.dtype)
    dot_blocks(
        num_threads, flat(dy), flat(x), partial, plan.table, plan.phases, plan.products[0], plan.offset, chunks,
        scratch, scratch_step, rows_step, images, pixels,
    )  # fmt: skip
    if chunks > 1:
        add_chunks(partial, out, chunks)


@to_numpy_row
def conv2d_grad_weight(*, dy, x, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the weights."""
    plan = geometry.forward(
        x.shape, out.shape, dy.shape, stride, padding, dilation, groups, MR, VECTOR_BYTES // out.itemsize
    )
    run_weight_plan(plan, dy, x, out.ravel(), num_threads)
    return not any_nonfinite(out.ravel(), num_threads)  # zeros past Q and of the padding met what they must not
