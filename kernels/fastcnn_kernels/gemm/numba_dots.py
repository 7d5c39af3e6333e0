"""Tiles of dot products for Numba, as LLVM vector instructions; the functions are described in dots_body.h."""

from functools import partial
from itertools import product

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcnn_kernels.gemm.numba_llvm import (
    LINE_BYTES,
    MR,
    VECTOR_BYTES,
    emit_call,
    emit_either,
    emit_loop,
    emit_switch,
    first_lanes,
    lane_mask,
    lanes_sum,
    lanes_sums,
    load,
    load_masked,
    multiply_add,
    store,
    turned,
    two_runs,
    vector_type_of,
)

#: The largest tile, and what is read of a column before the next one (as in micro.h).
DOT_ROWS, DOT_VECTORS_OF_ONE_ROW = (4, 8) if MR > 6 else (2, 4)
DOT_COLUMNS, DOT_COLUMNS_OF_ONE_ROW = 6, 12


def _pixels_to_line(builder, columns, n, vector_type):
    """Pixels before the first vector that fills a cache line, where that is the same for all columns, otherwise 0."""
    intp = ir.IntType(64)
    first, *others = (builder.ptrtoint(column, intp) for column in columns)
    apart = intp(0)
    for other in others:
        apart = builder.or_(apart, builder.sub(other, first))
    alike = builder.icmp_signed("==", builder.and_(apart, intp(LINE_BYTES - 1)), intp(0))
    long = builder.icmp_signed(">", n, intp(2 * vector_type.count))
    pixels = builder.udiv(builder.and_(builder.neg(first), intp(LINE_BYTES - 1)), intp(LINE_BYTES // vector_type.count))
    return builder.select(builder.and_(alike, long), pixels, intp(0))


def _dot_masked(builder, mask, a, columns, pixel, totals):
    """``totals[j] + a[pixel] * columns[j][pixel]`` in the lanes of the mask."""
    vector_type = totals[0].type
    row = load_masked(builder, a, vector_type, pixel, mask)
    return [
        multiply_add(builder, row, load_masked(builder, column, vector_type, pixel, mask), total)
        for column, total in zip(columns, totals, strict=True)
    ]


def _emit_dot(
    builder, rows, columns, vector_type, lines, n, a, a_step, a_line, b, b_line, offset, sums, sums_step
):  # fmt: skip
    """`dot` for one tile: rows x columns vector sums, whose lanes are added halves to halves."""
    intp, VL = n.type, vector_type.count
    tiles = [(i, j) for j in range(columns) for i in range(rows)]
    starts = [builder.load(builder.gep(offset, [intp(j)])) for j in range(columns)]
    a_starts = [builder.mul(a_step, intp(i)) for i in range(rows)]
    head, totals = intp(0), [ir.Constant(vector_type, None)] * len(tiles)
    by_lines = rows == 1 and VECTOR_BYTES == LINE_BYTES  # as in dots_body.h
    if by_lines:
        places = [builder.gep(b, [start]) for start in starts]
        one_line = builder.icmp_signed("==", lines, intp(1))
        head = builder.select(one_line, _pixels_to_line(builder, places, n, vector_type), head)
        has_head = builder.icmp_signed(">", head, intp(0))
        rest = first_lanes(builder, builder.sub(intp(VL), head), vector_type)

    def masked(mask, pixel, totals):
        """The sums, with the pixels in a mask if there is a head."""
        return emit_either(
            builder, has_head, lambda: _dot_masked(builder, mask, a, places, pixel, totals), lambda: totals
        )

    def over_lines(line, totals):
        a_row, b_row = (builder.gep(each, [builder.mul(line, step)]) for each, step in ((a, a_line), (b, b_line)))

        if by_lines:
            totals = masked(builder.not_(rest), builder.sub(head, intp(VL)), totals)

        def steps(pixel, totals, together):
            """Sums over pixels up to n, `together` vectors of a column at a time, and the first pixel of the rest."""
            count = builder.and_(builder.sub(n, pixel), intp(-together * VL))

            def over_vectors(index, totals):
                places = [builder.add(pixel, builder.add(index, intp(v * VL))) for v in range(together)]
                left = [
                    [load(builder, a_row, vector_type, builder.add(start, at)) for at in places] for start in a_starts
                ]
                results = list(totals)
                for j, (v, at) in product(range(columns), enumerate(places)):
                    right = load(builder, b_row, vector_type, builder.add(starts[j], at))
                    for i in range(rows):
                        tile = j * rows + i
                        results[tile] = multiply_add(builder, left[i][v], right, results[tile])
                return results

            totals = emit_either(
                builder,
                builder.icmp_signed(">", count, intp(0)),
                lambda: emit_loop(builder, count, together * VL, totals, over_vectors),
                lambda: totals,
            )
            return builder.add(pixel, count), totals

        pixel = head
        if rows == 1:  # waits for memory, which is read fastest in long stretches
            pixel, totals = steps(pixel, totals, DOT_VECTORS_OF_ONE_ROW)
            pixel, totals = steps(pixel, totals, DOT_VECTORS_OF_ONE_ROW // 2)
        pixel, totals = steps(pixel, totals, 1)
        if by_lines:
            totals = masked(rest, pixel, totals)
        return totals

    results = emit_loop(builder, lines, 1, totals, over_lines)
    if by_lines:
        turn = partial(turned, builder, places=head)
        results = emit_either(builder, has_head, lambda: list(map(turn, results)), lambda: results)
    for first in range(0, len(tiles), VL):
        lanes = lanes_sums(builder, results[first : first + VL])
        for lane, (i, j) in enumerate(tiles[first : first + VL]):
            pointer = builder.gep(sums, [builder.add(builder.mul(sums_step, intp(i)), intp(j))])
            total = builder.extract_element(lanes, ir.IntType(32)(lane))
            builder.store(builder.fadd(builder.load(pointer), total), pointer)


def _emit_masked_dot(
    builder, rows, columns, vector_type, images, vectors, a, a_step, a_image, b, b_image, offset, masks, first, taps,
    sums, sums_step,
):  # fmt: skip
    """`masked_dot` for one tile: rows x columns vector sums."""
    intp, VL = taps.type, vector_type.count
    tiles = [(i, j) for j in range(columns) for i in range(rows)]
    places = [builder.add(builder.mul(sums_step, intp(i)), intp(j * VL)) for i, j in tiles]
    starts = [builder.load(builder.gep(offset, [intp(j)])) for j in range(columns)]
    a_starts = [builder.mul(a_step, intp(i)) for i in range(rows)]

    def over_images(image, totals):
        a_plane = builder.gep(a, [builder.mul(image, a_image)])
        b_plane = builder.gep(b, [builder.mul(image, b_image)])

        def over_vectors(vector, totals):
            pixel = builder.mul(vector, intp(VL))
            mask = builder.gep(masks, [builder.mul(vector, builder.add(taps, intp(DOT_COLUMNS_OF_ONE_ROW)))])
            inside = lane_mask(builder, mask, intp(0), vector_type)

            def products(load_left, load_right):
                left = [load_left(builder.add(start, pixel)) for start in a_starts]
                results = []
                for (i, j), total in zip(tiles, totals, strict=True):
                    if i == 0:
                        right = load_right(builder.add(starts[j], pixel), j)
                    results.append(multiply_add(builder, left[i], right, total))
                return results

            def whole():  # all lanes: reading masks takes longer than the products
                return products(
                    lambda place: load(builder, a_plane, vector_type, place),
                    lambda place, j: load(builder, b_plane, vector_type, place),
                )

            def partly():
                return products(
                    lambda place: load_masked(builder, a_plane, vector_type, place, inside),
                    lambda place, j: load_masked(
                        builder,
                        b_plane,
                        vector_type,
                        place,
                        lane_mask(builder, mask, builder.add(first, intp(1 + j)), vector_type),
                    ),
                )

            bits = builder.load(builder.gep(mask, [intp(1)]))
            all_lanes = builder.icmp_signed("==", bits, bits.type((1 << VL) - 1))
            one_tap = builder.icmp_signed("==", taps, intp(1))
            return emit_either(builder, builder.and_(one_tap, all_lanes), whole, partly)

        return emit_loop(builder, vectors, 1, totals, over_vectors)

    start = [load(builder, sums, vector_type, place) for place in places]
    for place, result in zip(places, emit_loop(builder, images, 1, start, over_images), strict=True):
        store(builder, result, sums, place)


def _dot_tiles():
    """Tiles of dot products that have code: (rows, columns)."""
    for rows in range(1, DOT_ROWS + 1):
        for columns in range(1, (DOT_COLUMNS_OF_ONE_ROW if rows == 1 else DOT_COLUMNS) + 1):
            yield rows, columns


@intrinsic
def _dot_code(typing_context, rows, columns, lines, n, a, a_step, a_line, b, b_line, offset, sums, sums_step):
    def generate(context, builder, signature, arguments):
        vector_type = vector_type_of(context, signature.args[4])
        key = builder.add(builder.mul(arguments[0], arguments[0].type(16)), arguments[1])
        cases = [(r * 16 + c, partial(_emit_dot, builder, r, c, vector_type, *arguments[2:])) for r, c in _dot_tiles()]
        emit_switch(builder, key, cases)
        return context.get_dummy_value()

    return types.void(rows, columns, lines, n, a, a_step, a_line, b, b_line, offset, sums, sums_step), generate


@intrinsic
def _masked_dot_code(
    typing_context, rows, columns, images, vectors, a, a_step, a_image, b, b_image, offset, masks, first, taps,
    sums, sums_step,
):  # fmt: skip
    def generate(context, builder, signature, arguments):
        vector_type = vector_type_of(context, signature.args[4])
        key = builder.add(builder.mul(arguments[0], arguments[0].type(16)), arguments[1])
        cases = [
            (r * 16 + c, partial(_emit_masked_dot, builder, r, c, vector_type, *arguments[2:])) for r, c in _dot_tiles()
        ]
        emit_switch(builder, key, cases)
        return context.get_dummy_value()

    return types.void(
        rows, columns, images, vectors, a, a_step, a_image, b, b_image, offset, masks, first, taps, sums, sums_step
    ), generate


def _dot(rows, columns, lines, n, a, a_step, a_line, b, b_line, offset, sums, sums_step):
    _dot_code(rows, columns, lines, n, a, a_step, a_line, b, b_line, offset, sums, sums_step)


def _masked_dot(
    rows, columns, images, vectors, a, a_step, a_image, b, b_image, offset, masks, first, taps, sums, sums_step
):
    _masked_dot_code(
        rows, columns, images, vectors, a, a_step, a_image, b, b_image, offset, masks, first, taps, sums, sums_step
    )


@intrinsic
def dot(typing_context, rows, columns, lines, n, a, a_start, a_step, a_line, b, b_start, b_line, offset, offset_start,
        sums, sums_start, sums_step):  # fmt: skip
    """``sums[i, j] += a[i * a_step + pixel] . b[offset[j] + pixel]`` over lines of n pixels: whole vectors."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, intp, a, intp, intp, b, intp, offset, sums, intp)
        return emit_call(context, builder, _dot, kinds, arguments)

    return types.void(
        intp, intp, intp, intp, a, intp, intp, intp, b, intp, intp, offset, intp, sums, intp, intp
    ), generate


@intrinsic
def masked_dot(typing_context, rows, columns, images, vectors, a, a_start, a_step, a_image, b, b_start, b_image, offset,
               offset_start, masks, masks_start, first, taps, sums, sums_start, sums_step):  # fmt: skip
    """``sums[i, j] += a[i] * b[j]``, lane by lane, over the vectors of several images (see dots_body.h)."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, intp, a, intp, intp, b, intp, offset, masks, intp, intp, sums, intp)
        return emit_call(context, builder, _masked_dot, kinds, arguments)

    return types.void(
        intp, intp, intp, intp, a, intp, intp, intp, b, intp, intp, offset, intp, masks, intp, intp, intp, sums, intp,
        intp,
    ), generate  # fmt: skip


@intrinsic
def add_lanes(typing_context, sums, sums_start, out, out_start, count):
    """``out[i]`` = sum of the lanes of vector i."""
    signature = types.void(sums, types.intp, out, types.intp, types.intp)

    def generate(context, builder, signature, arguments):
        vector_type, sums, out, count = two_runs(context, builder, signature, arguments)
        with cgutils.for_range(builder, count) as loop:
            value = load(builder, sums, vector_type, builder.mul(loop.index, count.type(vector_type.count)))
            builder.store(lanes_sum(builder, value), builder.gep(out, [loop.index]))
        return context.get_dummy_value()

    return signature, generate
