"""Masked convolution in Numba. Contract in ``conv2d``; shifts and masks in ``geometry``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithms are described there. An array and a
start index stand for a C pointer.
"""

from fastcnn_kernels.conv2d.direct.numba_ import store_tile
from fastcnn_kernels.conv2d.geometry import ACTIVATIONS, padded_bias
from fastcnn_kernels.conv2d.handover import to_numpy_row
from fastcnn_kernels.conv2d.masked import blocking, geometry
from fastcnn_kernels.conv2d.numba_ import add_chunks, any_nonfinite
from fastcnn_kernels.conv2d.numba_epilogue import activate, pool_rows
from fastcnn_kernels.gemm.blocking import packing_threads
from fastcnn_kernels.gemm.numba_copies import (
    keep_lanes,
    zero_run,
)
from fastcnn_kernels.gemm.numba_dots import (
    DOT_COLUMNS,
    DOT_COLUMNS_OF_ONE_ROW,
    DOT_ROWS,
    add_lanes,
    masked_dot,
)
from fastcnn_kernels.gemm.numba_llvm import (
    MR,
    VECTOR_BYTES,
    panel_width,
)
from fastcnn_kernels.gemm.numba_panels import even_tile, pack_panels
from fastcnn_kernels.gemm.numba_tiles import direct, masked, tile_vectors
from fastcnn_kernels.memory import empty
from fastcnn_kernels.numba_support import compiled, flat, threaded
from fastcnn_kernels.prepacked import keep, room


@compiled
def multiply_tile(
    mr, vectors, all_lanes, table, a_packed, a_start, image, source, offset, column_offset, masks, mask_start, bias,
    bias_start, has_bias, c, c_start, ldc,
):  # fmt: skip
    """One tile of sums, without masks if all its lanes count."""
    if all_lanes:
        direct(
            mr, vectors, table[0, 5], a_packed, a_start, image, source, column_offset, 0, bias, bias_start, has_bias, c,
            c_start, ldc,
        )  # fmt: skip
    else:
        masked(
            mr, vectors, table[0, 5] // table[1, 3], table[1, 3], a_packed, a_start, image, source, table[1, 2], offset,
            0, masks, mask_start, bias, bias_start, has_bias, c, c_start, ldc,
        )  # fmt: skip


@threaded
def masked_tiles(
    image, a_packed, bias, has_bias, out, table, offset, column_offset, masks, activation, tile_block, row_block,
    scratch, tile_size, worker, workers,
):  # fmt: skip
    """Do this worker's share of the tasks (n, g, block of tiles, panel of rows).

    Where no tap pads, all lanes count but in the last vector of a plane, and masks would only cost.
    If windows are pooled, a block has all tiles that meet `row_block` rows of the plane, whose sums wait behind the
    tile, between as many rows of the neighbours as a tile may hold.
    """
    N, P, Q, groups, M, L = table[0, 0], table[0, 1], table[0, 2], table[0, 3], table[0, 4], table[0, 5]
    taps, width, m_step, dense, pool = table[1, 3], table[1, 4], table[3, 1], table[3, 2], table[3, 3]
    no_masks = table[3, 4] == 1
    mr = table[3, 5]
    panels, most, VL = (M + mr - 1) // mr, tile_vectors(mr), panel_width(image) // 2
    tile_width, pixels = most * VL, (P - 1) * width + Q
    tiles = (pixels + tile_width - 1) // tile_width
    blocks = (tiles + tile_block - 1) // tile_block if pool == 1 else (P + row_block - 1) // row_block
    slack = tile_width // width + 1
    sums_step = (row_block + 2 * slack) * Q
    tasks = N * groups * blocks * panels
    first = tasks * worker // workers
    panel = first % panels
    block = first // panels % blocks
    g = first // (panels * blocks) % groups
    n = first // (panels * blocks * groups)
    tile = worker * tile_size
    sums = tile + MR * 4 * panel_width(image) + slack * Q
    for _ in range(first, tasks * (worker + 1) // workers):
        i = panel * mr
        source = n * table[1, 0] + g * table[1, 1]
        target = n * table[3, 0] + (g * M + i) * m_step
        whole = dense != 0 and i + mr <= M
        step_first, step_end = block * tile_block, min(tiles, (block + 1) * tile_block)
        if pool == 2:
            step_first = block * row_block * width // tile_width
            step_end = min(tiles, ((block + 1) * row_block * width + tile_width - 1) // tile_width)
        for step in range(step_first, step_end):
            pixel = step * tile_width
            vectors = min(most, (pixels - pixel + VL - 1) // VL)
            all_lanes = no_masks and pixel + vectors * VL <= pixels
            if whole:
                multiply_tile(
                    mr, vectors, all_lanes, table, a_packed, (g * panels * mr + i) * L, image, source + pixel, offset,
                    column_offset, masks, step * most * (taps + 1), bias, g * panels * mr + i, has_bias, out,
                    target + pixel, m_step,
                )  # fmt: skip
                activate(out, target + pixel, mr, m_step, min(tile_width, pixels - pixel), activation)
            else:
                multiply_tile(
                    mr, vectors, all_lanes, table, a_packed, (g * panels * mr + i) * L, image, source + pixel, offset,
                    column_offset, masks, step * most * (taps + 1), bias, g * panels * mr + i, has_bias, scratch, tile,
                    tile_width,
                )  # fmt: skip
                activate(scratch, tile, min(mr, M - i), tile_width, vectors * VL, activation)
                if pool == 2:
                    store_tile(
                        scratch, tile, tile_width, min(mr, M - i), pixel, pixels, Q, width, scratch,
                        sums - block * row_block * Q, Q, 1, sums_step,
                    )  # fmt: skip
                    continue
                kept = target + pixel // width * Q + min(Q, pixel % width)
                for h in range(min(mr, M - i)):
                    keep_lanes(
                        out, kept + h * m_step, scratch, tile + h * tile_width, vectors, masks,
                        step * most * (taps + 1) + taps, taps + 1,
                    )  # fmt: skip
        if pool == 2:
            for i in range(min(mr, M - panel * mr)):
                for h in range(min(row_block, P - block * row_block) // 2):
                    top = sums + i * sums_step + 2 * h * Q
                    pooled = target + i * m_step + (block * row_block // 2 + h) * (Q // 2)
                    pool_rows(scratch, top, top + Q, out, pooled, Q // 2)
        panel += 1  # the next task, without dividing
        if panel == panels:
            panel = 0
            block += 1
        if block == blocks:
            block = 0
            g += 1
        if g == groups:
            g = 0
            n += 1


def run_plan(plan, image, weight, bias, out, activation, packed, num_threads):
    """Allocate the workspace of a `geometry.Plan` and run it."""
    (N, P, Q, groups, M, L), (_, _, _, taps, width, _), _, (_, _, _, pool, _, mr) = plan.table.tolist()
    lanes = VECTOR_BYTES // out.itemsize
    panels, tile_size, tile_width = -(-M // mr), MR * 8 * lanes, tile_vectors(mr) * lanes
    tile_block = blocking.tiles_per_task(
        -(-((P - 1) * width + Q) // tile_width), L // taps, tile_width * out.itemsize, N * groups * panels, num_threads
    )
    row_block = 0
    if pool == 2:
        row_block = blocking.rows_per_task(tile_block, tile_width, width, P)
        tile_size += mr * (row_block + 2 * (tile_width // width + 1)) * Q
    order = ("plain", mr, M)
    a_packed, filled = room(packed, order, groups * panels * mr * L, out.dtype)
    tiles = empty(num_threads * tile_size, out.dtype)
    bias = padded_bias(bias, groups, M, mr)
    if not filled:
        row_step, group_step = plan.table[2, :2].tolist()
        pack_panels(
            packing_threads(a_packed.size, num_threads), flat(weight), a_packed, groups, group_step, M, mr, L, row_step,
            plan.weight_offset,
        )  # fmt: skip
        keep(packed, order, a_packed)
    masked_tiles(
        num_threads, flat(image), a_packed, a_packed if bias is None else flat(bias), bias is not None, out.ravel(),
        plan.table, plan.offset, plan.column_offset, plan.masks.ravel(), activation, tile_block, row_block, tiles,
        tile_size,
    )  # fmt: skip


@to_numpy_row
def conv2d(
    *, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, num_threads
):  # fmt: skip
    """Forward convolution."""
    plan = geometry.forward(
        x.shape, weight.shape, out.shape, padding, dilation, groups, MR, VECTOR_BYTES // out.itemsize, max_pool
    )
    if plan.pads and any_nonfinite(flat(weight), num_threads):
        return False
    run_plan(plan, x, weight, bias, out, ACTIVATIONS[activation], packed, num_threads)
    return True


@to_numpy_row
def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the input."""
    plan = geometry.grad_input(
        dy.shape, weight.shape, out.shape, padding, dilation, groups, MR, VECTOR_BYTES // out.itemsize
    )
    if plan.pads and any_nonfinite(flat(weight), num_threads):
        return False
    run_plan(plan, dy, weight, None, out, 0, None, num_threads)
    return True


@threaded
def masked_dots(dy, image, partial, table, offset, masks, blocks, scratch, scratch_step, worker, workers):
    """Do this worker's share of the tasks (block of groups, block of rows, chunk of images): partial[chunk, g, m, l].

    `blocks`: chunks, groups and rows of a task, images and vectors of a visit.
    """
    N, groups, M, L, taps, vectors = table[0, 0], table[0, 3], table[0, 4], table[0, 5], table[1, 3], table[1, 5]
    chunks, group_block, row_block, image_block, vector_block = blocks[0], blocks[1], blocks[2], blocks[3], blocks[4]
    VL, plane = panel_width(dy) // 2, table[3, 1]
    group_blocks = (groups + group_block - 1) // group_block
    row_blocks, rows = (M + row_block - 1) // row_block, even_tile(row_block, DOT_ROWS)
    columns = even_tile(L, DOT_COLUMNS_OF_ONE_ROW if rows == 1 else DOT_COLUMNS)
    column_tiles, tile_size = (L + columns - 1) // columns, rows * columns * VL
    tasks = group_blocks * row_blocks * chunks
    sums = worker * scratch_step
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        chunk = task % chunks
        begin = N * chunk // chunks
        end = N * (chunk + 1) // chunks
        m = task // chunks % row_blocks * row_block
        rows_here = min(row_block, M - m)
        row_tiles = (rows_here + rows - 1) // rows
        first = task // (chunks * row_blocks) * group_block
        last = min(groups, first + group_block)
        group_size = column_tiles * row_tiles * tile_size
        zero_run(scratch, sums, (last - first) * group_size)
        for n in range(begin, end, image_block):
            images = min(image_block, end - n)
            for g in range(first, last):
                for block in range(0, vectors, vector_block):
                    count = min(vector_block, vectors - block)
                    for j in range(column_tiles):
                        for i in range(row_tiles):
                            masked_dot(
                                min(rows, rows_here - i * rows), min(columns, L - j * columns), images, count, dy,
                                n * table[3, 0] + (g * M + m + i * rows) * plane + block * VL, plane, table[3, 0],
                                image, n * table[1, 0] + g * table[1, 1] + block * VL, table[1, 0], offset, j * columns,
                                masks, block * (taps + DOT_COLUMNS_OF_ONE_ROW), j * columns % taps, taps, scratch,
                                sums + (g - first) * group_size + (j * row_tiles + i) * tile_size, columns * VL,
                            )  # fmt: skip
        for g in range(first, last):
            for j in range(column_tiles):
                for i in range(rows_here):
                    add_lanes(
                        scratch, sums + (g - first) * group_size + j * row_tiles * tile_size + i * columns * VL,
                        partial, ((chunk * groups + g) * M + m + i) * L + j * columns, min(columns, L - j * columns),
                    )  # fmt: skip


def run_weight_plan(plan, dy, x, out, num_threads):
    """Allocate the workspace of `geometry.grad_weight`, run it, add up the chunks."""
    (N, _, _, groups, M, L), (*_, vectors) = plan.table[:2].tolist()
    VL = VECTOR_BYTES // out.itemsize
    blocks = blocking.weight_blocks(N, groups, M, L, vectors, DOT_ROWS, VECTOR_BYTES)
    chunks, group_block, row_block = blocks[:3].tolist()
    scratch_step = group_block * (row_block + DOT_ROWS) * (L + DOT_COLUMNS_OF_ONE_ROW) * VL
    scratch = empty(num_threads * scratch_step, out.dtype)
    partial = out if chunks == 1 else empty(chunks * out.size, out.dtype)
    masked_dots(
        num_threads, flat(dy), flat(x), partial, plan.table, plan.column_offset, plan.masks.ravel(), blocks,
        scratch, scratch_step,
    )  # fmt: skip
    if chunks > 1:
        add_chunks(partial, out, chunks)


@to_numpy_row
def conv2d_grad_weight(*, dy, x, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the weights."""
    plan = geometry.grad_weight(
        x.shape, out.shape, dy.shape, padding, dilation, groups, MR, VECTOR_BYTES // out.itemsize
    )
    run_weight_plan(plan, dy, x, out.ravel(), num_threads)
    # A masked lane is a zero, which met what it must not.
    return not (plan.pads and any_nonfinite(out.ravel(), num_threads))
