"""Channels-last weight gradient in Numba. Contract and picture in the family's ``__init__``; tasks in ``geometry``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithms are described there. An array and a
start index stand for a C pointer.
"""

from fastcnn_kernels.conv2d.channels_last import geometry
from fastcnn_kernels.conv2d.handover import to_numpy_row
from fastcnn_kernels.conv2d.numba_ import any_nonfinite
from fastcnn_kernels.gemm.blocking import packing_threads
from fastcnn_kernels.gemm.numba_copies import put_steps, zero_run
from fastcnn_kernels.gemm.numba_llvm import VECTOR_BYTES, panel_width
from fastcnn_kernels.gemm.numba_panels import panel_pitch, panel_rows
from fastcnn_kernels.gemm.numba_tiles import pixel_sums, plane_sums, tile_vectors
from fastcnn_kernels.gemm.numba_transposes import transpose, transpose_far
from fastcnn_kernels.memory import empty
from fastcnn_kernels.numba_support import compiled, flat, threaded


@compiled
def fill_slab(image, image_start, slab, slab_start, table, channels, p, q, rows):
    """Transpose `rows` stored rows of `channels` channels, from those of output (p, q) on, padded by zeros."""
    H, W, top, left, row_step, width = table[4], table[5], table[8], table[9] - q * table[12], table[10], table[13]
    row, begin = width * channels, min(width, max(0, left))
    end = max(begin, min(width, W + left))
    i = 0
    while i < rows:
        h = (p * table[11] + i) * row_step - top
        target = slab_start + i * row
        if h < 0 or h >= H:
            zero_run(slab, target, row)
            i += 1
            continue
        count = 1
        if end - begin == width and width == W and row_step == 1:  # rows that follow each other
            count = min(rows - i, H - h)
        zero_run(slab, target, begin * channels)
        if begin < end:
            transpose_far(
                image, image_start + h * W + begin - left, H * W, channels, count * (end - begin), slab,
                target + begin * channels, channels, channels,
            )  # fmt: skip
        zero_run(slab, target + end * channels, (width - end) * channels)
        i += count


@threaded
def sum_pixels(dy, x, partial, table, slabs, slab_count, offset, scratch, scratch_step, worker, workers):
    """Do this worker's share of the tasks: partial[chunk, g, panel, tile of vectors][mr, vectors]."""
    N, groups, M, Cg, plane = table[0], table[1], table[2], table[3], table[4] * table[5]
    P, Q, row_rows, stride_w, width = table[6], table[7], table[11], table[12], table[13]
    PB, IB, V, chunks, panel_block, slab_block = table[14], table[15], table[17], table[18], table[19], table[20]
    QB, in_place, VL = table[23], table[24], panel_width(dy) // 2
    row_blocks, column_blocks = (P + PB - 1) // PB, (Q + QB - 1) // QB
    blocks = (N + IB - 1) // IB * row_blocks * column_blocks
    mr = panel_rows(M)
    pitch, panels = panel_pitch(mr, VL), (M + mr - 1) // mr
    stacked = pitch // mr  # panels of 8 rows share a vector of rows of dy
    panel_blocks = (panels + panel_block - 1) // panel_block
    slab_blocks = (slab_count + slab_block - 1) // slab_block
    tasks = groups * panel_blocks * slab_blocks * chunks
    dy_packed = worker * scratch_step
    image = dy_packed + (0 if in_place else panel_block * pitch * IB * PB * QB)
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        chunk = task % chunks
        first_block = blocks * chunk // chunks
        first_slab = task // chunks % slab_blocks * slab_block
        last_slab = min(slab_count, first_slab + slab_block)
        first = task // (chunks * slab_blocks) % panel_blocks * panel_block
        last = min(panels, first + panel_block)
        g = task // (chunks * slab_blocks * panel_blocks)
        sums = (chunk * groups + g) * panels * mr * V * VL
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
                        dy, (((n + i) * groups + g) * M + row) * P * Q + p * Q + q, P * Q, min(pitch, M - row),
                        lines * columns, scratch,
                        dy_packed + ((stack - first // stacked) * pixels + i * lines * columns) * pitch, pitch, pitch,
                    )  # fmt: skip
            rows = table[16] - (PB - lines) * row_rows
            for slab in range(first_slab, last_slab):
                channels = slabs[4 * slab + 1]
                row = width * channels
                for i in range(images):
                    fill_slab(
                        x, (((n + i) * groups + g) * Cg + slabs[4 * slab]) * plane, scratch, image + i * rows * row,
                        table, channels, p, q, rows,
                    )  # fmt: skip
                zero_run(scratch, image + images * rows * row, VL)  # lanes behind the last run are read: no denormals
                v = slabs[4 * slab + 2]
                while v < slabs[4 * slab + 6]:
                    vectors = min(slabs[4 * slab + 3], slabs[4 * slab + 6] - v)
                    for panel in range(first, last):
                        if in_place:
                            plane_sums(
                                min(mr, M - panel * mr), vectors, images, lines * columns, dy,
                                ((n * groups + g) * M + panel * mr) * P * Q + p * Q + q, P * Q, groups * M * P * Q,
                                scratch, image, rows * row, channels, offset, v, partial,
                                sums + (panel * V + v) * mr * VL, block > first_block,
                            )  # fmt: skip
                            continue
                        pixel_sums(
                            min(mr, M - panel * mr), vectors, images, lines, columns, scratch,
                            dy_packed + (panel // stacked - first // stacked) * pixels * pitch + panel % stacked * mr,
                            pitch, scratch, image, rows * row, row_rows * row, stride_w * channels, offset, v, partial,
                            sums + (panel * V + v) * mr * VL, block > first_block,
                        )  # fmt: skip
                    v += vectors


@compiled
def collect_turned(partial, out, table, pieces, piece_count, worker, workers):
    """out[g, l, m] = sum of the chunks, in their order, for this worker's share of the panels of rows."""
    groups, M, chunks, VL = table[1], table[2], table[18], panel_width(partial) // 2
    mr = panel_rows(M)
    panels = (M + mr - 1) // mr
    panel_size = mr * table[17] * VL
    chunk_size = groups * panels * panel_size
    for panel in range(groups * panels * worker // workers, groups * panels * (worker + 1) // workers):
        row = panel % panels * mr
        rows = min(mr, M - row)
        target = panel // panels * M * table[3] + row
        for piece in range(0, 4 * piece_count, 4):
            sums, step, count = panel * panel_size + pieces[piece], pieces[piece + 1], pieces[piece + 2]
            for chunk in range(1, chunks):
                for i in range(rows):
                    for j in range(sums + i * step, sums + i * step + count):
                        partial[j] += partial[chunk * chunk_size + j]
            transpose(partial, sums, step, rows, count, out, target + pieces[piece + 3], M, rows)


@threaded
def collect(partial, out, table, pieces, piece_count, worker, workers):
    """out[g, m, l] = sum of the chunks, in their order, for this worker's share of the rows (g, m)."""
    groups, M, chunks, taps, VL = table[1], table[2], table[18], table[22], panel_width(partial) // 2
    mr = panel_rows(M)
    if table[25]:
        collect_turned(partial, out, table, pieces, piece_count, worker, workers)
        return
    panel_size = mr * table[17] * VL
    group_size = (M + mr - 1) // mr * panel_size
    chunk_size = groups * group_size
    for row in range(groups * M * worker // workers, groups * M * (worker + 1) // workers):
        i = row % M % mr
        sums = row // M * group_size + row % M // mr * panel_size
        for piece in range(0, 4 * piece_count, 4):
            values = sums + pieces[piece] + i * pieces[piece + 1]
            target = row * table[3] * taps + pieces[piece + 3]
            put_steps(out, target, taps, partial, values, pieces[piece + 2])
            for chunk in range(1, chunks):
                for j in range(pieces[piece + 2]):
                    out[target + j * taps] += partial[values + chunk * chunk_size + j]


def run_plan(plan, dy, x, out, num_threads):
    """Allocate the workspace of a `geometry.Plan` and run it; False if padding met what it must not."""
    table = plan.table.tolist()
    M, VL = table[2], VECTOR_BYTES // out.itemsize
    mr = panel_rows(M)
    packed_rows = 0 if table[24] else table[19] * panel_pitch(mr, VL)
    scratch_step = table[15] * (packed_rows * table[14] * table[23] + table[21]) + VL
    sums = table[18] * table[1] * -(-M // mr) * mr * table[17] * VL
    partial = empty(sums, out.dtype)
    scratch = empty(num_threads * scratch_step, out.dtype)
    sum_pixels(
        num_threads, flat(dy), flat(x), partial, plan.table, plan.slabs.ravel(), len(plan.slabs) - 1, plan.offset,
        scratch, scratch_step,
    )  # fmt: skip
    collect(packing_threads(sums, num_threads), partial, out, plan.table, plan.pieces.ravel(), len(plan.pieces))
    return not (plan.pads and any_nonfinite(out, num_threads))


@to_numpy_row
def conv2d_grad_weight(*, dy, x, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the weights."""
    in_place, turned = geometry.roles(out.shape, dy.shape, stride, padding, groups, out.itemsize)
    mr = panel_rows(out.shape[1] if turned else out.shape[0] // groups)
    plan = geometry.plan(
        x.shape, out.shape, dy.shape, stride, padding, dilation, groups, in_place, turned, mr, tile_vectors(mr),
        out.itemsize, VECTOR_BYTES // out.itemsize, num_threads,
    )  # fmt: skip
    if turned:
        dy, x = x, dy
    return run_plan(plan, dy, x, out.ravel(), num_threads)
