"""The micro-kernel of micro.h for Numba, as LLVM vector instructions; picture and reasons are there.

    C[mr, NR] (+)= A[mr, L] . B[L, NR]        packed panels; mr x NR sums in registers

Numba's auto-vectoriser does not keep such a tile in registers, so `micro` writes the loop over L itself: for every row
count a block with 2 mr vector sums as phi nodes.
"""

from functools import partial

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastcnn_kernels.gemm.numba_llvm import (
    LINE_BYTES,
    MR,
    VECTOR_BYTES,
    broadcast_load,
    emit_call,
    emit_loop,
    emit_switch,
    first_lanes,
    lane_mask,
    load,
    load_masked,
    multiply_add,
    prefetch_line,
    store,
    store_masked,
    vector_type_of,
)
from fastcnn_kernels.numba_support import compiled

#: Rows of a tile of one vector: as many as it has floats, where they are more.
MOST_ROWS = max(MR, VECTOR_BYTES // 4)
#: Rows up to which a direct tile is four and three vectors wide (as in micro.h).
WIDE_ROWS, MIDDLE_ROWS = (6, 9) if MR > 6 else (2, 4)
OUTER_ROWS, OUTER_VECTORS = 6, 4 if MR > 6 else 2
#: Steps of the sum that the micro-kernel asks ahead (as in micro.h).
STEPS_AHEAD_A, STEPS_AHEAD_B = 16, 8
LINES_AHEAD = 2
#: Products of a sum from which on they leave time to ask for the lines of the results (as in micro.h).
SUM_OF_LINES = 8


@compiled
def tile_vectors(mr):
    """Vectors of a direct tile of mr rows at most; the last tile of a plane takes those it needs."""
    return 4 if mr <= WIDE_ROWS else 3 if mr <= MIDDLE_ROWS else 2


def _tile_cases(builder, emit, vector_type, mr, vectors, arguments):
    """Code for every number of rows and of vectors of a direct tile."""
    cases = [
        (rows * 4 + width, partial(emit, builder, rows, width, vector_type, *arguments))
        for rows in range(1, MR + 1)
        for width in range(1, tile_vectors.py_func(rows) + 1)
    ]
    emit_switch(builder, builder.add(builder.mul(mr, mr.type(4)), vectors), cases)


def _prefetch_vectors(builder, pointer, offset, VL, vectors, locality=3):
    """Ask for the lines of neighbouring vectors."""
    for j in range(0, vectors, LINE_BYTES // VECTOR_BYTES):
        prefetch_line(builder, builder.gep(pointer, [builder.add(offset, offset.type(j * VL))]), 0, locality)


def _load_lanes(builder, pointer, vector_type, offset, mask):
    """Load a vector, or its lanes in the mask if that is not None."""
    if mask is None:
        return load(builder, pointer, vector_type, offset)
    return load_masked(builder, pointer, vector_type, offset, mask)


def _store_lanes(builder, value, pointer, offset, mask):
    """Store a vector, or its lanes in the mask if that is not None."""
    if mask is None:
        store(builder, value, pointer, offset)
    else:
        store_masked(builder, value, pointer, offset, mask)


def _store_sums(builder, sums, target, offsets, accumulate, masks=None):
    """Store vectors of sums, or their lanes in the masks, added to what is there if `accumulate`."""
    places = list(zip(sums, offsets, masks or [None] * len(sums), strict=True))
    with builder.if_else(accumulate) as (add, overwrite):
        with add:
            for value, offset, mask in places:
                total = builder.fadd(_load_lanes(builder, target, value.type, offset, mask), value)
                _store_lanes(builder, total, target, offset, mask)
        with overwrite:
            for value, offset, mask in places:
                _store_lanes(builder, value, target, offset, mask)


def _add_bias(builder, results, vectors, bias, has_bias, vector_type):
    """Sums of rows by vectors, to each of which its row's bias is added if there is one."""
    rows = len(results) // vectors
    biases = [broadcast_load(builder, bias, ir.IntType(64)(i), vector_type) for i in range(rows)]
    return [
        builder.select(has_bias, builder.fadd(total, biases[number // vectors]), total)
        for number, total in enumerate(results)
    ]


def _emit_micro(builder, rows, vectors, vector_type, L, a, a_step, b, b_step, packing, c, ldc, accumulate):
    """`micro` for one row count and one or two vectors of columns; `micro_packing` if `packing` is not None."""
    intp, VL = L.type, vector_type.count
    offset, far, packed = packing or (None, None, None)
    tiles = [(i, j) for i in range(rows) for j in range(vectors)]
    offsets = [builder.add(builder.mul(intp(i), ldc), intp(j * VL)) for i, j in tiles]
    for place in offsets:  # C is met last: its lines arrive meanwhile
        prefetch_line(builder, builder.gep(c, [place]), 1)

    def row_of_b(index):
        return builder.mul(index, b_step) if packing is None else builder.load(builder.gep(offset, [index]))

    def body(index, totals):
        a_offset = builder.mul(index, a_step)
        a_ahead = builder.add(a_offset, builder.mul(a_step, intp(STEPS_AHEAD_A)))
        prefetch_line(builder, builder.gep(a, [a_ahead]), 0)
        ahead = builder.add(index, intp(STEPS_AHEAD_B))
        if packing is not None:
            ahead = builder.select(builder.icmp_signed("<", ahead, L), ahead, index)
        b_offset, b_ahead = row_of_b(index), row_of_b(ahead)
        _prefetch_vectors(builder, b, b_ahead, VL, vectors)
        if packing is not None:  # rows where they lie begin anywhere in a line
            prefetch_line(builder, builder.gep(b, [builder.add(b_ahead, intp(vectors * VL - 1))]), 0)
            _prefetch_vectors(builder, b, builder.add(b_offset, far), VL, vectors, locality=2)
        columns = [load(builder, b, vector_type, builder.add(b_offset, intp(j * VL))) for j in range(vectors)]
        if packing is not None:
            for j, column in enumerate(columns):
                store(builder, column, packed, builder.add(builder.mul(index, intp(vectors * VL)), intp(j * VL)))
        results = []
        for (i, j), total in zip(tiles, totals, strict=True):
            if j == 0:  # a row's broadcast comes just before its products: all at once, they would not fit registers
                left = broadcast_load(builder, a, builder.add(a_offset, intp(i)), vector_type)
            results.append(multiply_add(builder, left, columns[j], total))
        return results

    zero = ir.Constant(vector_type, None)
    results = emit_loop(builder, L, 1, [zero] * len(tiles), body)
    _store_sums(builder, results, c, offsets, accumulate)


def _emit_stream(builder, rows, vector_type, panels, L, a, a_step, b, b_step, c, accumulate):
    """`stream` for one row count."""
    intp, VL = L.type, vector_type.count
    tiles = [(i, j) for i in range(rows) for j in range(2)]

    def over_panels(panel, _):
        columns = builder.gep(b, [builder.mul(panel, intp(2 * VL))])
        target = builder.gep(c, [builder.mul(panel, intp(rows * 2 * VL))])

        def body(index, totals):
            a_offset, b_offset = builder.mul(index, a_step), builder.mul(index, b_step)
            if rows > WIDE_ROWS:
                _prefetch_vectors(builder, columns, builder.add(b_offset, intp(2 * VL)), VL, 2)
            row = [load(builder, columns, vector_type, builder.add(b_offset, intp(j * VL))) for j in range(2)]
            results = []
            for (i, j), total in zip(tiles, totals, strict=True):
                if j == 0:
                    left = broadcast_load(builder, a, builder.add(a_offset, intp(i)), vector_type)
                results.append(multiply_add(builder, left, row[j], total))
            return results

        results = emit_loop(builder, L, 1, [ir.Constant(vector_type, None)] * len(tiles), body)
        _store_sums(builder, results, target, [intp(number * VL) for number in range(len(tiles))], accumulate)
        return []

    emit_loop(builder, panels, 1, [], over_panels)


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
            _prefetch_vectors(builder, source, builder.load(builder.gep(offset, [ahead])), VL, vectors)
        columns = [load(builder, source, vector_type, builder.add(start, intp(j * VL))) for j in range(vectors)]
        results = []
        for (i, j), total in zip(tiles, totals, strict=True):
            if j == 0:  # a row's broadcast comes just before its products: all at once, they would not fit registers
                left = broadcast_load(builder, a, builder.add(a_offset, intp(i)), vector_type)
            results.append(multiply_add(builder, left, columns[j], total))
        return results

    results = emit_loop(builder, L, 1, [zero] * len(tiles), body)
    results = _add_bias(builder, results, vectors, bias, has_bias, vector_type)
    for place, result in zip(places, results, strict=True):
        store(builder, result, c, place)


def _emit_spread(builder, rows, vectors, vector_type, L, source, offset, b, bias, has_bias, tile):
    """`spread` for one tile: rows x vectors sums."""
    intp, VL = L.type, vector_type.count
    tiles = [(i, j) for i in range(rows) for j in range(vectors)]
    zero = ir.Constant(vector_type, None)

    def body(index, totals):
        b_offset = builder.mul(index, intp(vectors * VL))
        _prefetch_vectors(builder, b, builder.add(b_offset, intp(STEPS_AHEAD_B * vectors * VL)), VL, vectors)
        pixel = builder.gep(source, [builder.load(builder.gep(offset, [index]))])
        right = [load(builder, b, vector_type, builder.add(b_offset, intp(j * VL))) for j in range(vectors)]
        results = []
        for (i, j), total in zip(tiles, totals, strict=True):
            if j == 0:  # a row's broadcast comes just before its products: all at once, they would not fit registers
                left = broadcast_load(builder, pixel, intp(i), vector_type)
            results.append(multiply_add(builder, left, right[j], total))
        return results

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
                results = []
                for (i, j), total in zip(tiles, totals, strict=True):
                    if j == 0:  # a row's broadcast comes just before its products: all at once, they would not fit
                        left = broadcast_load(builder, panel, builder.add(a_offset, intp(i)), vector_type)
                    results.append(multiply_add(builder, left, right[j], total))
                return results

            return emit_loop(builder, columns, 1, totals, over_columns)

        return emit_loop(builder, lines, 1, totals, over_lines)

    results = emit_loop(builder, images, 1, [ir.Constant(vector_type, None)] * len(tiles), over_images)
    _store_sums(builder, results, tile, [intp(number * VL) for number in range(len(tiles))], accumulate)


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
            results = []
            for (i, j), total in zip(tiles, totals, strict=True):
                if j == 0:  # a row's broadcast comes just before its products: all at once, they would not fit
                    left = broadcast_load(builder, plane, builder.add(row_starts[i], pixel), vector_type)
                results.append(multiply_add(builder, left, right[j], total))
            return results

        return emit_loop(builder, pixels, 1, totals, over_pixels)

    results = emit_loop(builder, images, 1, [ir.Constant(vector_type, None)] * len(tiles), over_images)
    _store_sums(builder, results, tile, [intp(number * VL) for number in range(len(tiles))], accumulate)


def _emit_outer(builder, vectors, columns, vector_type, L, a, row_step, a_step, b, b_step, c, ldc, accumulate):
    """`outer` for one number of vectors, which are whole if `columns` is None."""
    intp, VL = L.type, vector_type.count
    masks = [None] * vectors
    if columns is not None:
        lanes = builder.trunc(builder.sub(columns, intp((vectors - 1) * VL)), ir.IntType(32))
        masks[-1] = first_lanes(builder, lanes, vector_type)
    tiles = [(i, j) for i in range(OUTER_ROWS) for j in range(vectors)]
    starts = [builder.mul(row_step, intp(i)) for i in range(OUTER_ROWS)]

    def body(index, totals):
        along, below = builder.mul(index, a_step), builder.mul(index, b_step)
        row = [_load_lanes(builder, b, vector_type, builder.add(below, intp(j * VL)), masks[j]) for j in range(vectors)]
        results = []
        for (i, j), total in zip(tiles, totals, strict=True):
            if j == 0:
                left = broadcast_load(builder, a, builder.add(starts[i], along), vector_type)
            results.append(multiply_add(builder, left, row[j], total))
        return results

    results = emit_loop(builder, L, 1, [ir.Constant(vector_type, None)] * len(tiles), body)
    offsets = [builder.add(builder.mul(ldc, intp(i)), intp(j * VL)) for i, j in tiles]
    _store_sums(builder, results, c, offsets, accumulate, masks * OUTER_ROWS)


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
                _prefetch_vectors(builder, plane, builder.add(start, ahead), VL, vectors)
            columns = [
                load_masked(
                    builder, plane, vector_type, builder.add(start, intp(j * VL)),
                    lane_mask(builder, masks, builder.add(mask_starts[j], tap), vector_type),
                )
                for j in range(vectors)
            ]  # fmt: skip
            results = []
            for (i, j), total in zip(tiles, totals, strict=True):
                if j == 0:  # a row's broadcast comes just before its products: all at once, they would not fit
                    left = broadcast_load(builder, panel, builder.add(a_offset, intp(i)), vector_type)
                results.append(multiply_add(builder, left, columns[j], total))
            return results

        return emit_loop(builder, taps, 1, totals, over_taps)

    results = emit_loop(builder, channels, 1, [zero] * len(tiles), over_channels)
    results = _add_bias(builder, results, vectors, bias, has_bias, vector_type)
    inside = [lane_mask(builder, masks, builder.add(start, taps), vector_type) for start in mask_starts]
    for (i, j), result in zip(tiles, results, strict=True):
        store_masked(builder, result, c, builder.add(builder.mul(ldc, intp(i)), intp(j * VL)), inside[j])


@intrinsic
def _micro_code(typing_context, mr, columns, L, a, a_step, b, b_step, c, ldc, accumulate):
    def generate(context, builder, signature, arguments):
        mr, columns, L, a, a_step, b, b_step, *result = arguments
        operands = (L, a, a_step, b, b_step, None)
        vector_type = vector_type_of(context, signature.args[3])
        two = builder.icmp_signed(">", columns, columns.type(vector_type.count))
        key = builder.add(builder.mul(mr, mr.type(2)), builder.zext(two, mr.type))
        cases = [
            (rows * 2 + vectors - 1, partial(_emit_micro, builder, rows, vectors, vector_type, *operands, *result))
            for vectors, most in ((1, MOST_ROWS), (2, MR))
            for rows in range(1, most + 1)
        ]
        emit_switch(builder, key, cases)
        return context.get_dummy_value()

    return types.void(mr, columns, L, a, a_step, b, b_step, c, ldc, accumulate), generate


@intrinsic
def _packing_code(typing_context, mr, L, a, a_step, b, offset, far, packed, c, ldc, accumulate):
    def generate(context, builder, signature, arguments):
        mr, L, a, a_step, b, offset, far, packed, *result = arguments
        operands = (L, a, a_step, b, None, (offset, far, packed))
        vector_type = vector_type_of(context, signature.args[2])
        cases = [
            (rows, partial(_emit_micro, builder, rows, 2, vector_type, *operands, *result)) for rows in range(1, MR + 1)
        ]
        emit_switch(builder, mr, cases)
        return context.get_dummy_value()

    return types.void(mr, L, a, a_step, b, offset, far, packed, c, ldc, accumulate), generate


@intrinsic
def _stream_code(typing_context, mr, panels, L, a, a_step, b, b_step, c, accumulate):
    def generate(context, builder, signature, arguments):
        mr, *rest = arguments
        vector_type = vector_type_of(context, signature.args[3])
        emit_switch(
            builder, mr, [(rows, partial(_emit_stream, builder, rows, vector_type, *rest)) for rows in range(1, MR + 1)]
        )
        return context.get_dummy_value()

    return types.void(mr, panels, L, a, a_step, b, b_step, c, accumulate), generate


@intrinsic
def _direct_code(typing_context, mr, vectors, L, a, source, offset, bias, has_bias, c, ldc):
    def generate(context, builder, signature, arguments):
        vector_type = vector_type_of(context, signature.args[3])
        _tile_cases(builder, _emit_direct, vector_type, arguments[0], arguments[1], arguments[2:])
        return context.get_dummy_value()

    return types.void(mr, vectors, L, a, source, offset, bias, has_bias, c, ldc), generate


@intrinsic
def _masked_code(
    typing_context, mr, vectors, channels, taps, a, source, channel_step, offset, masks, bias, has_bias, c, ldc
):
    def generate(context, builder, signature, arguments):
        vector_type = vector_type_of(context, signature.args[4])
        _tile_cases(builder, _emit_masked, vector_type, arguments[0], arguments[1], arguments[2:])
        return context.get_dummy_value()

    return types.void(
        mr, vectors, channels, taps, a, source, channel_step, offset, masks, bias, has_bias, c, ldc
    ), generate


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
    def generate(context, builder, signature, arguments):
        vector_type = vector_type_of(context, signature.args[5])
        _tile_cases(builder, _emit_pixels, vector_type, arguments[0], arguments[1], arguments[2:])
        return context.get_dummy_value()

    return types.void(
        mr, vectors, images, lines, columns, a, a_step, b, image_step, line_step, column_step, offset, tile, accumulate
    ), generate


@intrinsic
def _planes_code(
    typing_context, mr, vectors, images, pixels, a, a_row, a_image, b, image_step, pixel_step, offset, tile, accumulate
):
    def generate(context, builder, signature, arguments):
        vector_type = vector_type_of(context, signature.args[4])
        _tile_cases(builder, _emit_planes, vector_type, arguments[0], arguments[1], arguments[2:])
        return context.get_dummy_value()

    return types.void(
        mr, vectors, images, pixels, a, a_row, a_image, b, image_step, pixel_step, offset, tile, accumulate
    ), generate


@intrinsic
def _outer_code(typing_context, columns, L, a, row_step, a_step, b, b_step, c, ldc, accumulate):
    def generate(context, builder, signature, arguments):
        columns, *rest = arguments
        vector_type = vector_type_of(context, signature.args[2])
        intp, VL = columns.type, vector_type.count
        cases = [
            (2 * n + whole, partial(_emit_outer, builder, n, None if whole else columns, vector_type, *rest))
            for n in range(1, OUTER_VECTORS + 1) for whole in (0, 1)
        ]  # fmt: skip
        vectors = builder.sdiv(builder.add(columns, intp(VL - 1)), intp(VL))
        whole = builder.zext(builder.icmp_signed("==", builder.mul(vectors, intp(VL)), columns), intp)
        emit_switch(builder, builder.add(builder.mul(vectors, intp(2)), whole), cases)
        return context.get_dummy_value()

    return types.void(columns, L, a, row_step, a_step, b, b_step, c, ldc, accumulate), generate


def _micro(mr, columns, L, a, a_step, b, b_step, c, ldc, accumulate):
    _micro_code(mr, columns, L, a, a_step, b, b_step, c, ldc, accumulate)


def _micro_packing(mr, L, a, a_step, b, offset, far, packed, c, ldc, accumulate):
    _packing_code(mr, L, a, a_step, b, offset, far, packed, c, ldc, accumulate)


def _stream(mr, panels, L, a, a_step, b, b_step, c, accumulate):
    _stream_code(mr, panels, L, a, a_step, b, b_step, c, accumulate)


def _direct(mr, vectors, L, a, source, offset, bias, has_bias, c, ldc):
    _direct_code(mr, vectors, L, a, source, offset, bias, has_bias, c, ldc)


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


def _outer(columns, L, a, row_step, a_step, b, b_step, c, ldc, accumulate):
    _outer_code(columns, L, a, row_step, a_step, b, b_step, c, ldc, accumulate)


def _masked_tile(mr, vectors, channels, taps, a, source, channel_step, offset, masks, bias, has_bias, c, ldc):
    _masked_code(mr, vectors, channels, taps, a, source, channel_step, offset, masks, bias, has_bias, c, ldc)


@intrinsic
def micro(typing_context, mr, columns, L, a, a_start, a_step, b, b_start, b_step, c, c_start, ldc, accumulate):
    """C[mr, columns] at ``c[c_start:]`` = (C if `accumulate`) + A . B, rows of B `b_step` apart; ``L >= 1``.

    A panel of A is ``a_step >= mr`` rows high. Columns behind the wanted ones come out too, up to a whole vector.
    """
    intp, boolean = types.intp, types.boolean

    def generate(context, builder, signature, arguments):
        return emit_call(context, builder, _micro, (intp, intp, intp, a, intp, b, intp, c, intp, boolean), arguments)

    return types.void(intp, intp, intp, a, intp, intp, b, intp, intp, c, intp, intp, boolean), generate


@intrinsic
def micro_packing(typing_context, mr, L, a, a_start, a_step, b, b_start, offset, offset_start, far, packed,
                  packed_start, c, c_start, ldc, accumulate):  # fmt: skip
    """`micro` of NR columns, which packs rows ``b + offset[l]`` on the way and asks for what lies `far` behind them."""
    intp, boolean = types.intp, types.boolean

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, a, intp, b, offset, intp, packed, c, intp, boolean)
        return emit_call(context, builder, _micro_packing, kinds, arguments)

    return types.void(
        intp, intp, a, intp, intp, b, intp, offset, intp, intp, packed, intp, c, intp, intp, boolean
    ), generate


@intrinsic
def stream(typing_context, mr, panels, L, a, a_start, a_step, b, b_start, b_step, c, c_start, accumulate):
    """`micro` for `panels` of NR columns side by side in B, whose tiles of sums lie one after the other in C."""
    intp, boolean = types.intp, types.boolean

    def generate(context, builder, signature, arguments):
        return emit_call(context, builder, _stream, (intp, intp, intp, a, intp, b, intp, c, boolean), arguments)

    return types.void(intp, intp, intp, a, intp, intp, b, intp, intp, c, intp, boolean), generate


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


@intrinsic
def outer(typing_context, columns, L, a, a_start, row_step, a_step, b, b_start, b_step, c, c_start, ldc, accumulate):
    """c[OUTER_ROWS, columns] (+)= a . b, neither of them packed: a[i * row_step + l * a_step], b[l * b_step + j].

    The columns are up to OUTER_VECTORS vectors, the last one of which need not be whole: fast with masks only.
    """
    intp, boolean = types.intp, types.boolean

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, a, intp, intp, b, intp, c, intp, boolean)
        return emit_call(context, builder, _outer, kinds, arguments)

    return types.void(intp, intp, a, intp, intp, intp, b, intp, intp, c, intp, intp, boolean), generate


@intrinsic
def masked(typing_context, mr, vectors, channels, taps, a, a_start, source, source_start, channel_step, offset,
           offset_start, masks, masks_start, bias, bias_start, has_bias, c, c_start, ldc):  # fmt: skip
    """``c[mr, vectors * VL] = bias`` + sum over channels and taps of a source read where it lies (see micro.h)."""
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
