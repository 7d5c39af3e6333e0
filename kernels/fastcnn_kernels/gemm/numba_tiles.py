"""The tiles of tiles_body.h for Numba, as LLVM vector instructions: sums whose operands are read where they lie."""

from functools import partial

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastcnn_kernels.gemm.numba_llvm import (
    LINE_BYTES,
    MIDDLE_ROWS,
    MR,
    STEPS_AHEAD_A,
    STEPS_AHEAD_B,
    VECTOR_BYTES,
    WIDE_ROWS,
    add_products,
    broadcast_load,
    emit_call,
    emit_loop,
    emit_switch,
    lane_mask,
    load,
    load_masked,
    prefetch_line,
    prefetch_vectors,
    store,
    store_masked,
    store_sums,
    vector_type_of,
)
from fastcnn_kernels.numba_support import compiled

#: Lines to ask ahead of rows that are read where they lie, as in micro.h.
LINES_AHEAD = 2
#: Products of a sum from which on they leave time to ask for the lines of the results, as in micro.h.
SUM_OF_LINES = 8


@compiled
def tile_vectors(mr):
    """Vectors of a direct tile of mr rows at most; the last tile of a plane takes those it needs."""
    return 4 if mr <= WIDE_ROWS else 3 if mr <= MIDDLE_ROWS else 2


def _every_tile(emit, place):
    """Code of an intrinsic: `emit` for every number of rows and of vectors of a direct tile.

    They are its first two arguments; the one at `place` has the dtype.
    """

    def generate(context, builder, signature, arguments):
        mr, vectors, *rest = arguments
        vector_type = vector_type_of(context, signature.args[place])
        cases = [
            (rows * 4 + width, partial(emit, builder, rows, width, vector_type, *rest))
            for rows in range(1, MR + 1)
            for width in range(1, tile_vectors.py_func(rows) + 1)
        ]
        emit_switch(builder, builder.add(builder.mul(mr, mr.type(4)), vectors), cases)
        return context.get_dummy_value()

    return generate


def _add_bias(builder, results, vectors, bias, has_bias, vector_type):
    """Sums of rows by vectors, to each of which its row's bias is added if there is one."""
    rows = len(results) // vectors
    biases = [broadcast_load(builder, bias, ir.IntType(64)(i), vector_type) for i in range(rows)]
    return [
        builder.select(has_bias, builder.fadd(total, biases[number // vectors]), total)
        for number, total in enumerate(results)
    ]


def _emit_direct(builder, rows, vectors, vector_type, L, a, source, offset, bias, has_bias, c, ldc):
    """`direct` for one tile: rows x vectors sums."""
    intp, VL = L.type, vector_type.count
    tiles = [(i, j) for i in range(rows) for j in range(vectors)]
    zero = ir.Constant(vector_type, None)
    places = [builder.add(builder.mul(intp(i), ldc), intp(j * VL)) for i, j in tiles]
    no_tile = builder.icmp_signed("!=", ldc, intp(vectors * VL))  # which is in L1
    with builder.if_then(builder.and_(no_tile, builder.icmp_signed(">=", L, intp(SUM_OF_LINES)))):
        for place in places:
            prefetch_line(builder, builder.gep(c, [place]), 1)

    def body(index, totals):
        a_offset = builder.mul(index, intp(rows))
        start = builder.load(builder.gep(offset, [index]))
        if rows > WIDE_ROWS:
            ahead = builder.add(index, intp(STEPS_AHEAD_B))
            ahead = builder.select(builder.icmp_signed("<", ahead, L), ahead, index)
            prefetch_vectors(builder, source, builder.load(builder.gep(offset, [ahead])), VL, vectors)
        columns = [load(builder, source, vector_type, builder.add(start, intp(j * VL))) for j in range(vectors)]
        return add_products(builder, a, lambda i: builder.add(a_offset, intp(i)), columns, totals)

    results = emit_loop(builder, L, 1, [zero] * len(tiles), body)
    results = _add_bias(builder, results, vectors, bias, has_bias, vector_type)
    for place, result in zip(places, results, strict=True):
        store(builder, result, c, place)


def _emit_masked(
    builder, rows, vectors, vector_type, channels, taps, a, source, channel_step, offset, masks, bias, has_bias, c, ldc
):
    """`masked` for one tile: rows x vectors sums."""
    intp, VL = taps.type, vector_type.count
    tiles = [(i, j) for i in range(rows) for j in range(vectors)]
    zero = ir.Constant(vector_type, None)
    mask_starts = [builder.mul(builder.add(taps, intp(1)), intp(j)) for j in range(vectors)]
    channels_ahead = builder.add(builder.sdiv(intp(STEPS_AHEAD_B - 1), taps), intp(1))
    ahead = builder.mul(channels_ahead, channel_step)

    def over_channels(channel, totals):
        plane = builder.gep(source, [builder.mul(channel, channel_step)])
        panel = builder.gep(a, [builder.mul(builder.mul(channel, taps), intp(rows))])

        def over_taps(tap, totals):
            a_offset, start = builder.mul(tap, intp(rows)), builder.load(builder.gep(offset, [tap]))
            if rows > WIDE_ROWS:
                prefetch_vectors(builder, plane, builder.add(start, ahead), VL, vectors)
            columns = [
                load_masked(
                    builder, plane, vector_type, builder.add(start, intp(j * VL)),
                    lane_mask(builder, masks, builder.add(mask_starts[j], tap), vector_type),
                )
                for j in range(vectors)
            ]  # fmt: skip
            return add_products(builder, panel, lambda i: builder.add(a_offset, intp(i)), columns, totals)

        return emit_loop(builder, taps, 1, totals, over_taps)

    results = emit_loop(builder, channels, 1, [zero] * len(tiles), over_channels)
    results = _add_bias(builder, results, vectors, bias, has_bias, vector_type)
    inside = [lane_mask(builder, masks, builder.add(start, taps), vector_type) for start in mask_starts]
    for (i, j), result in zip(tiles, results, strict=True):
        store_masked(builder, result, c, builder.add(builder.mul(ldc, intp(i)), intp(j * VL)), inside[j])


def _emit_spread(builder, rows, vectors, vector_type, L, source, offset, b, bias, has_bias, tile):
    """`spread` for one tile: rows x vectors sums."""
    intp, VL = L.type, vector_type.count
    tiles = [(i, j) for i in range(rows) for j in range(vectors)]
    zero = ir.Constant(vector_type, None)

    def body(index, totals):
        b_offset = builder.mul(index, intp(vectors * VL))
        prefetch_vectors(builder, b, builder.add(b_offset, intp(STEPS_AHEAD_B * vectors * VL)), VL, vectors)
        pixel = builder.gep(source, [builder.load(builder.gep(offset, [index]))])
        right = [load(builder, b, vector_type, builder.add(b_offset, intp(j * VL))) for j in range(vectors)]
        return add_products(builder, pixel, lambda i: intp(i), right, totals)

    results = emit_loop(builder, L, 1, [zero] * len(tiles), body)
    with builder.if_else(has_bias) as (add, leave):
        with add:
            biases = [load(builder, bias, vector_type, intp(j * VL)) for j in range(vectors)]
            for number, result in enumerate(results):
                store(builder, builder.fadd(result, biases[number % vectors]), tile, intp(number * VL))
        with leave:
            for number, result in enumerate(results):
                store(builder, result, tile, intp(number * VL))


def _emit_pixels(
    builder, rows, vectors, vector_type, images, lines, columns, a, a_step, b, image_step, line_step, column_step,
    offset, tile, accumulate,
):  # fmt: skip
    """`pixel_sums` for one tile: rows x vectors sums."""
    intp, VL = columns.type, vector_type.count
    tiles = [(i, j) for i in range(rows) for j in range(vectors)]
    starts = [builder.load(builder.gep(offset, [intp(j)])) for j in range(vectors)]

    def over_images(image, totals):
        def over_lines(line, totals):
            count = builder.add(builder.mul(image, lines), line)
            panel = builder.gep(a, [builder.mul(builder.mul(count, columns), a_step)])
            first = builder.add(builder.mul(image, image_step), builder.mul(line, line_step))
            pixels = builder.gep(b, [first])

            def over_columns(column, totals):
                a_offset = builder.mul(column, a_step)
                ahead = builder.add(a_offset, builder.mul(a_step, intp(STEPS_AHEAD_A)))
                prefetch_line(builder, builder.gep(panel, [ahead]), 0)
                pixel = builder.gep(pixels, [builder.mul(column, column_step)])
                right = [load(builder, pixel, vector_type, start) for start in starts]
                return add_products(builder, panel, lambda i: builder.add(a_offset, intp(i)), right, totals)

            return emit_loop(builder, columns, 1, totals, over_columns)

        return emit_loop(builder, lines, 1, totals, over_lines)

    results = emit_loop(builder, images, 1, [ir.Constant(vector_type, None)] * len(tiles), over_images)
    store_sums(builder, results, tile, [intp(number * VL) for number in range(len(tiles))], accumulate)


def _emit_planes(
    builder, rows, vectors, vector_type, images, pixels, a, a_row, a_image, b, image_step, pixel_step, offset, tile,
    accumulate,
):  # fmt: skip
    """`plane_sums` for one tile: rows x vectors sums."""
    intp, VL = pixels.type, vector_type.count
    line = VL * LINE_BYTES // VECTOR_BYTES
    tiles = [(i, j) for i in range(rows) for j in range(vectors)]
    starts = [builder.load(builder.gep(offset, [intp(j)])) for j in range(vectors)]
    row_starts = [builder.mul(a_row, intp(i)) for i in range(rows)]

    def over_images(image, totals):
        plane = builder.gep(a, [builder.mul(image, a_image)])
        slab = builder.gep(b, [builder.mul(image, image_step)])

        def over_pixels(pixel, totals):
            row = builder.mul(builder.and_(pixel, intp(line - 1)), a_row)
            ahead = builder.gep(plane, [builder.add(builder.add(row, pixel), intp(LINES_AHEAD * line))])
            for i in range(0, rows, line):
                prefetch_line(builder, builder.gep(ahead, [row_starts[i]]), 0)
            source = builder.gep(slab, [builder.mul(pixel, pixel_step)])
            right = [load(builder, source, vector_type, start) for start in starts]
            return add_products(builder, plane, lambda i: builder.add(row_starts[i], pixel), right, totals)

        return emit_loop(builder, pixels, 1, totals, over_pixels)

    results = emit_loop(builder, images, 1, [ir.Constant(vector_type, None)] * len(tiles), over_images)
    store_sums(builder, results, tile, [intp(number * VL) for number in range(len(tiles))], accumulate)


@intrinsic
def _direct_code(typing_context, mr, vectors, L, a, source, offset, bias, has_bias, c, ldc):
    return types.void(mr, vectors, L, a, source, offset, bias, has_bias, c, ldc), _every_tile(_emit_direct, 3)


@intrinsic
def _masked_code(
    typing_context, mr, vectors, channels, taps, a, source, channel_step, offset, masks, bias, has_bias, c, ldc
):
    return types.void(
        mr, vectors, channels, taps, a, source, channel_step, offset, masks, bias, has_bias, c, ldc
    ), _every_tile(_emit_masked, 4)


@intrinsic
def _spread_code(typing_context, rows, vectors, L, source, offset, b, bias, has_bias, tile):
    def generate(context, builder, signature, arguments):
        rows, vectors, *rest = arguments
        vector_type = vector_type_of(context, signature.args[3])
        cases = [
            (r * 4 + v, partial(_emit_spread, builder, r, v, vector_type, *rest))
            for r in range(1, MR + 1) for v in (1, 2)
        ]  # fmt: skip
        emit_switch(builder, builder.add(builder.mul(rows, rows.type(4)), vectors), cases)
        return context.get_dummy_value()

    return types.void(rows, vectors, L, source, offset, b, bias, has_bias, tile), generate


@intrinsic
def _pixels_code(
    typing_context, mr, vectors, images, lines, columns, a, a_step, b, image_step, line_step, column_step, offset, tile,
    accumulate,
):  # fmt: skip
    return types.void(
        mr, vectors, images, lines, columns, a, a_step, b, image_step, line_step, column_step, offset, tile, accumulate
    ), _every_tile(_emit_pixels, 5)


@intrinsic
def _planes_code(
    typing_context, mr, vectors, images, pixels, a, a_row, a_image, b, image_step, pixel_step, offset, tile, accumulate
):
    return types.void(
        mr, vectors, images, pixels, a, a_row, a_image, b, image_step, pixel_step, offset, tile, accumulate
    ), _every_tile(_emit_planes, 4)


def _direct(mr, vectors, L, a, source, offset, bias, has_bias, c, ldc):
    _direct_code(mr, vectors, L, a, source, offset, bias, has_bias, c, ldc)


def _masked_tile(mr, vectors, channels, taps, a, source, channel_step, offset, masks, bias, has_bias, c, ldc):
    _masked_code(mr, vectors, channels, taps, a, source, channel_step, offset, masks, bias, has_bias, c, ldc)


def _spread(rows, vectors, L, source, offset, b, bias, has_bias, tile):
    _spread_code(rows, vectors, L, source, offset, b, bias, has_bias, tile)


def _pixel_sums(
    mr, vectors, images, lines, columns, a, a_step, b, image_step, line_step, column_step, offset, tile, accumulate
):
    _pixels_code(
        mr, vectors, images, lines, columns, a, a_step, b, image_step, line_step, column_step, offset, tile, accumulate
    )


def _plane_sums(mr, vectors, images, pixels, a, a_row, a_image, b, image_step, pixel_step, offset, tile, accumulate):
    _planes_code(mr, vectors, images, pixels, a, a_row, a_image, b, image_step, pixel_step, offset, tile, accumulate)


@intrinsic
def direct(typing_context, mr, vectors, L, a, a_start, source, source_start, offset, offset_start, bias, bias_start,
           has_bias, c, c_start, ldc):  # fmt: skip
    """c[mr, vectors * VL] = bias + A . B where row l of B is read where it lies, at source + offset[l]."""
    intp, boolean = types.intp, types.boolean

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, a, source, offset, bias, boolean, c, intp)
        return emit_call(context, builder, _direct, kinds, arguments)

    return types.void(
        intp, intp, intp, a, intp, source, intp, offset, intp, bias, intp, boolean, c, intp, intp
    ), generate


@intrinsic
def masked(typing_context, mr, vectors, channels, taps, a, a_start, source, source_start, channel_step, offset,
           offset_start, masks, masks_start, bias, bias_start, has_bias, c, c_start, ldc):  # fmt: skip
    """``c[mr, vectors * VL] = bias`` + sum over channels and taps of a source read where it lies (see tiles_body.h)."""
    intp, boolean = types.intp, types.boolean

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, intp, a, source, intp, offset, masks, bias, boolean, c, intp)
        return emit_call(context, builder, _masked_tile, kinds, arguments)

    return types.void(
        intp,
        intp,
        intp,
        intp,
        a,
        intp,
        source,
        intp,
        intp,
        offset,
        intp,
        masks,
        intp,
        bias,
        intp,
        boolean,
        c,
        intp,
        intp,
    ), generate


@intrinsic
def spread(typing_context, rows, vectors, L, source, source_start, offset, offset_start, b, b_start, bias, bias_start,
           has_bias, tile, tile_start):  # fmt: skip
    """tile[rows of pixels, vectors of channels] = bias + sum of source[offset[l] + pixel] by row l of b."""
    intp, boolean = types.intp, types.boolean

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, source, offset, b, bias, boolean, tile)
        return emit_call(context, builder, _spread, kinds, arguments)

    return types.void(intp, intp, intp, source, intp, offset, intp, b, intp, bias, intp, boolean, tile, intp), generate


@intrinsic
def pixel_sums(typing_context, mr, vectors, images, lines, columns, a, a_start, a_step, b, b_start, image_step,
               line_step, column_step, offset, offset_start, tile, tile_start, accumulate):  # fmt: skip
    """tile[mr, vectors] (+)= sum over pixels of a[pixel, mr] by the vectors at `offset` from a pixel of b."""
    intp, boolean = types.intp, types.boolean

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, intp, intp, a, intp, b, intp, intp, intp, offset, tile, boolean)
        return emit_call(context, builder, _pixel_sums, kinds, arguments)

    return types.void(
        intp, intp, intp, intp, intp, a, intp, intp, b, intp, intp, intp, intp, offset, intp, tile, intp, boolean
    ), generate


@intrinsic
def plane_sums(typing_context, mr, vectors, images, pixels, a, a_start, a_row, a_image, b, b_start, image_step,
               pixel_step, offset, offset_start, tile, tile_start, accumulate):  # fmt: skip
    """`pixel_sums` of rows of a that are runs of pixels, a_row apart, and a_image from image to image."""
    intp, boolean = types.intp, types.boolean

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, intp, a, intp, intp, b, intp, intp, offset, tile, boolean)
        return emit_call(context, builder, _plane_sums, kinds, arguments)

    return types.void(
        intp, intp, intp, intp, a, intp, intp, intp, b, intp, intp, intp, offset, intp, tile, intp, boolean
    ), generate
