"""The transforms of transforms.h for Numba, along both axes of patches, from and to memory; described there."""

from functools import partial

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcnn_kernels.conv2d.winograd.geometry import DOWN, TILES
from fastcnn_kernels.conv2d.winograd.numba_points import FILTER, GRADIENT, IMAGE, RESULT, WEIGHT, Arithmetic, transform
from fastcnn_kernels.gemm.numba_llvm import (
    broadcast_load,
    emit_call,
    emit_switch,
    first_lanes,
    load,
    load_masked,
    shuffle,
    store,
    store_masked,
    vector_type_of,
)

#: By item size: times this, a value of 2^101 (2^824) is infinite.
MUCH = {4: 2.0**27, 8: 2.0**200}


def _columns(rows):
    return [list(column) for column in zip(*rows, strict=True)]


def _lanes_below(builder, count, vector_type):
    """Mask of the first `count` lanes, of an index type."""
    return first_lanes(builder, builder.trunc(count, ir.IntType(32)), vector_type)


def _place(builder, places, e):
    """Element e of an index array."""
    return builder.load(builder.gep(places, [ir.IntType(64)(e)]))


def _emit_patches(
    kind, builder, vector_type, m, count, lanes, source, source_step, row_step, column_step, target, target_step,
    place,
):  # fmt: skip
    """`patches` of one kind and size, or `filters`; ``place(e)`` is where result e of the first one goes."""
    intp, v = count.type, Arithmetic(builder, vector_type)
    size = {FILTER: 3, GRADIENT: TILES[m].side}.get(kind, TILES[m].patch)
    mask = _lanes_below(builder, lanes, vector_type)
    with cgutils.for_range(builder, count) as loop:
        start, moved = builder.mul(loop.index, source_step), builder.mul(loop.index, target_step)
        half = []
        for j in range(size):
            offsets = [
                builder.add(start, builder.add(builder.mul(row_step, intp(i)), builder.mul(column_step, intp(j))))
                for i in range(size)
            ]
            column = [load_masked(builder, source, vector_type, offset, mask) for offset in offsets]
            half.append(transform(v, kind, m, column))
        for i, row in enumerate(_columns(half)):
            results = transform(v, kind, m, row)
            for j, value in enumerate(results):
                offset = builder.add(moved, place(i * len(results) + j))
                store_masked(builder, value, target, offset, mask)


@intrinsic
def _patches_code(
    typing_context, kind, m, count, lanes, source, source_step, row_step, column_step, target, target_step, e_step
):
    def generate(context, builder, signature, arguments):
        kind, m, count, lanes, source, source_step, row_step, column_step, target, target_step, e_step = arguments
        operands = (count, lanes, source, source_step, row_step, column_step, target, target_step)
        vector_type = vector_type_of(context, signature.args[4])

        def place(e):
            return builder.mul(e_step, e_step.type(e))

        cases = [
            (k * 16 + tile, partial(_emit_patches, k, builder, vector_type, tile, *operands, place))
            for k in (IMAGE, GRADIENT)
            for tile in (2, 4, DOWN)
        ]
        emit_switch(builder, builder.add(builder.mul(kind, kind.type(16)), m), cases)
        return context.get_dummy_value()

    return types.void(
        kind, m, count, lanes, source, source_step, row_step, column_step, target, target_step, e_step
    ), generate


def _patches(kind, m, count, lanes, source, source_step, row_step, column_step, target, target_step, e_step):
    _patches_code(kind, m, count, lanes, source, source_step, row_step, column_step, target, target_step, e_step)


@intrinsic
def patches(
    typing_context, kind, m, count, lanes, source, source_start, source_step, row_step, column_step, target,
    target_start, target_step, e_step,
):  # fmt: skip
    """`count` patches of n x n vectors, of which only the first `lanes` count, transformed along both axes."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, intp, source, intp, intp, intp, target, intp, intp)
        return emit_call(context, builder, _patches, kinds, arguments)

    return types.void(
        intp, intp, intp, intp, source, intp, intp, intp, intp, target, intp, intp, intp
    ), generate  # fmt: skip


@intrinsic
def _filters_code(typing_context, m, count, lanes, source, row_step, column_step, target, places):
    def generate(context, builder, signature, arguments):
        m, count, lanes, source, row_step, column_step, target, places = arguments
        vector_type = vector_type_of(context, signature.args[3])
        step, place = count.type(vector_type.count), partial(_place, builder, places)
        operands = (count, lanes, source, step, row_step, column_step, target, step, place)
        _sizes(builder, vector_type, m, partial(_emit_patches, FILTER), operands)
        return context.get_dummy_value()

    return types.void(m, count, lanes, source, row_step, column_step, target, places), generate


def _filters(m, count, lanes, source, row_step, column_step, target, places):
    _filters_code(m, count, lanes, source, row_step, column_step, target, places)


@intrinsic
def filters(
    typing_context, m, count, lanes, source, source_start, row_step, column_step, target, target_start, places,
    places_start,
):  # fmt: skip
    """`count` filters of 3 x 3 vectors; number e of the results goes to ``target[target_start + places[e]:]``."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, source, intp, intp, target, places)
        return emit_call(context, builder, _filters, kinds, arguments)

    return types.void(intp, intp, intp, source, intp, intp, intp, target, intp, places, intp), generate


@intrinsic
def _taps_code(typing_context, m, lanes, sums, e_step, target):
    def generate(context, builder, signature, arguments):
        m, lanes, sums, e_step, target = arguments
        vector_type, intp = vector_type_of(context, signature.args[2]), lanes.type

        def emit(builder, vector_type, m):
            row_step = builder.mul(e_step, intp(TILES[m].patch))
            _emit_patches(
                WEIGHT, builder, vector_type, m, intp(1), lanes, sums, intp(0), row_step, e_step, target, intp(0),
                lambda e: intp(e * vector_type.count),
            )  # fmt: skip

        emit_switch(builder, m, [(tile, partial(emit, builder, vector_type, tile)) for tile in (2, 4, DOWN)])
        return context.get_dummy_value()

    return types.void(m, lanes, sums, e_step, target), generate


def _taps(m, lanes, sums, e_step, target):
    _taps_code(m, lanes, sums, e_step, target)


@intrinsic
def taps(typing_context, m, lanes, sums, sums_start, e_step, target, target_start):
    """The 3 x 3 taps that the products of a weight gradient come to: a vector each, one after the other."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        return emit_call(context, builder, _taps, (intp, intp, sums, intp, target), arguments)

    return types.void(intp, intp, sums, intp, intp, target, intp), generate


def _shuffle(builder, x, y, lane):
    """Lane j of the result is lane ``lane(j)`` of x followed by y."""
    return shuffle(builder, x, y, [lane(j) for j in range(x.type.count)])


def _even(j):
    return 2 * j


def _odd(j):
    return 2 * j + 1


def _next(j):
    return j + 1


def _emit_image_rows(builder, vector_type, m, plane, H, W, top, left, n, rows, pitch, tails):
    """`image_rows` of one size."""
    intp, VL, v = H.type, vector_type.count, Arithmetic(builder, vector_type)
    none, tile = ir.Constant(ir.VectorType(ir.IntType(1), VL), None), TILES[m]
    shared = tile.patch - tile.step
    right = builder.add(left, builder.sub(n, intp(shared)))
    rest = builder.srem(builder.sub(n, intp(1)), intp(VL))
    beyond = builder.and_(builder.icmp_signed(">=", right, W), builder.icmp_signed("<", rest, intp(shared)))
    vectors = builder.sub(builder.sdiv(builder.add(n, intp(VL - 1)), intp(VL)), builder.zext(beyond, intp))
    with cgutils.for_range(builder, vectors) as loop:  # all but a last one of nothing but zeros for tails
        j = builder.mul(loop.index, intp(VL))
        column = builder.add(left, j)
        inside = builder.and_(
            _lanes_below(builder, builder.sub(W, column), vector_type),
            builder.not_(_lanes_below(builder, builder.neg(column), vector_type)),
        )
        x = []
        for i in range(tile.patch):
            h = builder.add(top, intp(i))
            there = builder.and_(builder.icmp_signed(">=", h, intp(0)), builder.icmp_signed("<", h, H))
            mask = builder.select(there, inside, none)
            x.append(load_masked(builder, plane, vector_type, builder.add(builder.mul(h, W), column), mask))
        for i, value in enumerate(transform(v, IMAGE, m, x)):
            store(builder, value, rows, builder.add(builder.mul(pitch, intp(i)), j))
    for i in range(tile.patch):
        for j in range(shared):
            last = builder.add(builder.mul(pitch, intp(i)), builder.add(n, intp(j - shared)))
            value = builder.load(builder.gep(rows, [last]))
            value = builder.select(beyond, ir.Constant(value.type, 0), value)
            builder.store(value, builder.gep(tails, [intp((2 * i + j) * 2 * VL)]))


def _every(builder, v):
    """Every n-th element of n vectors that follow each other: every second one of half as many, twice."""
    step = 1
    while step < len(v):
        v = [_shuffle(builder, a, b, lane) for lane in (_even, _odd) for a, b in zip(v[::2], v[1::2], strict=True)]
        step *= 2
    return v


def _interleave(builder, v):
    """The way back."""
    VL, step, half = v[0].type.count, 1, len(v) // 2

    def zip_low(j):
        return j // 2 + j % 2 * VL

    def zip_high(j):
        return VL // 2 + j // 2 + j % 2 * VL

    while step < len(v):
        pairs = zip(v[:half], v[half:], strict=True)
        v = [_shuffle(builder, a, b, lane) for a, b in pairs for lane in (zip_low, zip_high)]
        step *= 2
    return v


def _emit_rows_to_lanes(builder, vector_type, m, rows, pitch, tails, ends, tiles, target, places):
    """`rows_to_lanes` of one size."""
    intp, VL, v, (patch, step, *_) = tiles.type, vector_type.count, Arithmetic(builder, vector_type), TILES[m]
    lanes = ir.VectorType(ir.IntType(1), VL)
    with cgutils.for_range(builder, builder.sdiv(builder.add(tiles, intp(VL - 1)), intp(VL))) as loop:
        t = builder.mul(loop.index, intp(VL))
        mask = _lanes_below(builder, builder.sub(tiles, t), vector_type)
        last = builder.bitcast(builder.trunc(builder.lshr(ends, t), ir.IntType(VL)), lanes)
        for i in range(patch):
            start = builder.add(builder.mul(pitch, intp(i)), builder.mul(t, intp(step)))

            def row(offset, start=start):
                return load(builder, rows, vector_type, builder.add(start, intp(offset)))

            x = _every(builder, [row(j * VL) for j in range(step)])
            for j in range(patch - step):  # these columns are the next patch's first
                following = _shuffle(builder, x[j], row(step * VL + j), _next)
                tail = builder.add(t, intp((2 * i + j) * 2 * VL))
                x.append(load_masked(builder, tails, vector_type, tail, last, following))
            for j, value in enumerate(transform(v, IMAGE, m, x)):
                offset = builder.add(_place(builder, places, i * patch + j), t)
                store_masked(builder, value, target, offset, mask)


def _watch(v, check, value, much):
    """Sum into which a value that is not finite, or much too large, brings NaN."""
    return v.plus(check, 0.0, v.scale(much, value))


def _much(vector_type):
    return MUCH[8 if isinstance(vector_type.element, ir.DoubleType) else 4]


def _emit_lanes_to_rows(builder, vector_type, m, sums, e_step, tiles, bias, has_bias, rows, pitch, check):
    """`lanes_to_rows` of one size."""
    intp, VL, v = tiles.type, vector_type.count, Arithmetic(builder, vector_type)
    side, sums_of, zero = TILES[m].side, TILES[m].sums, ir.Constant(vector_type, None)
    first = builder.select(has_bias, broadcast_load(builder, bias, intp(0), vector_type), zero)
    large = cgutils.alloca_once_value(builder, load(builder, check, vector_type, intp(0)))

    with cgutils.for_range(builder, builder.sdiv(builder.add(tiles, intp(VL - 1)), intp(VL))) as loop:
        t = builder.mul(loop.index, intp(VL))
        mask = _lanes_below(builder, builder.sub(tiles, t), vector_type)
        half = []
        for j in range(sums_of):
            offsets = [builder.add(builder.mul(e_step, intp(i * sums_of + j)), t) for i in range(sums_of)]
            column = [load_masked(builder, sums, vector_type, offset, mask) for offset in offsets]
            half.append(transform(v, RESULT, m, column))
        total = builder.load(large)
        for i, row in enumerate(_columns(half)):
            y = transform(v, RESULT, m, row)
            for value in y:
                total = _watch(v, total, value, _much(vector_type))
            y = _interleave(builder, [builder.fadd(value, first) for value in y])
            start = builder.add(builder.mul(pitch, intp(i)), builder.mul(t, intp(side)))
            for j, value in enumerate(y):
                store(builder, value, rows, builder.add(start, intp(j * VL)))
        builder.store(total, large)
    store(builder, builder.load(large), check, intp(0))


def _sizes(builder, vector_type, m, emit, arguments):
    """Switch over the tile sizes."""
    emit_switch(builder, m, [(size, partial(emit, builder, vector_type, size, *arguments)) for size in TILES])


@intrinsic
def _image_rows_code(typing_context, m, plane, H, W, top, left, n, rows, pitch, tails):
    def generate(context, builder, signature, arguments):
        m, *arguments = arguments
        _sizes(builder, vector_type_of(context, signature.args[1]), m, _emit_image_rows, arguments)
        return context.get_dummy_value()

    return types.void(m, plane, H, W, top, left, n, rows, pitch, tails), generate


def _image_rows(m, plane, H, W, top, left, n, rows, pitch, tails):
    _image_rows_code(m, plane, H, W, top, left, n, rows, pitch, tails)


@intrinsic
def image_rows(typing_context, m, plane, plane_start, H, W, top, left, n, rows, rows_start, pitch, tails, tails_start):
    """A row of patches of an H x W plane, transformed along its columns only; the last ones go to `tails` as well."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        kinds = (intp, plane, intp, intp, intp, intp, intp, rows, intp, tails)
        return emit_call(context, builder, _image_rows, kinds, arguments)

    return types.void(intp, plane, intp, intp, intp, intp, intp, intp, rows, intp, intp, tails, intp), generate


@intrinsic
def _rows_to_lanes_code(typing_context, m, rows, pitch, tails, ends, tiles, target, places):
    def generate(context, builder, signature, arguments):
        m, *arguments = arguments
        _sizes(builder, vector_type_of(context, signature.args[1]), m, _emit_rows_to_lanes, arguments)
        return context.get_dummy_value()

    return types.void(m, rows, pitch, tails, ends, tiles, target, places), generate


def _rows_to_lanes(m, rows, pitch, tails, ends, tiles, target, places):
    _rows_to_lanes_code(m, rows, pitch, tails, ends, tiles, target, places)


@intrinsic
def rows_to_lanes(
    typing_context, m, rows, rows_start, pitch, tails, tails_start, ends, tiles, target, target_start, places,
    places_start,
):  # fmt: skip
    """Transform those rows along themselves: lane t of ``target[target_start + places[e]:]`` is patch t."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        kinds = (intp, rows, intp, tails, intp, intp, target, places)
        return emit_call(context, builder, _rows_to_lanes, kinds, arguments)

    return types.void(
        intp, rows, intp, intp, tails, intp, intp, intp, target, intp, places, intp
    ), generate  # fmt: skip


@intrinsic
def _lanes_to_rows_code(typing_context, m, sums, e_step, tiles, bias, has_bias, rows, pitch, check):
    def generate(context, builder, signature, arguments):
        m, *arguments = arguments
        _sizes(builder, vector_type_of(context, signature.args[1]), m, _emit_lanes_to_rows, arguments)
        return context.get_dummy_value()

    return types.void(m, sums, e_step, tiles, bias, has_bias, rows, pitch, check), generate


def _lanes_to_rows(m, sums, e_step, tiles, bias, has_bias, rows, pitch, check):
    _lanes_to_rows_code(m, sums, e_step, tiles, bias, has_bias, rows, pitch, check)


@intrinsic
def lanes_to_rows(
    typing_context, m, sums, sums_start, e_step, tiles, bias, bias_start, has_bias, rows, rows_start, pitch, check,
    check_start,
):  # fmt: skip
    """Results of consecutive tiles, side by side in rows; check as in `watch`."""
    intp, boolean = types.intp, types.boolean

    def generate(context, builder, signature, arguments):
        kinds = (intp, sums, intp, intp, bias, boolean, rows, intp, check)
        return emit_call(context, builder, _lanes_to_rows, kinds, arguments)

    return types.void(
        intp, sums, intp, intp, intp, bias, intp, boolean, rows, intp, intp, check, intp
    ), generate  # fmt: skip


@intrinsic
def _watch_code(typing_context, values, n, check):
    def generate(context, builder, signature, arguments):
        values, n, check = arguments
        vector_type = vector_type_of(context, signature.args[0])
        v = Arithmetic(builder, vector_type)
        with cgutils.for_range(builder, n) as loop:
            value = load(builder, values, vector_type, builder.mul(loop.index, n.type(vector_type.count)))
            total = _watch(v, load(builder, check, vector_type, n.type(0)), value, _much(vector_type))
            store(builder, total, check, n.type(0))
        return context.get_dummy_value()

    return types.void(values, n, check), generate


def _watch_vectors(values, n, check):
    _watch_code(values, n, check)


@intrinsic
def watch(typing_context, values, values_start, n, check, check_start):
    """Turn lanes of ``check[check_start:]`` into NaN where any of n vectors is not finite, or much too large."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        return emit_call(context, builder, _watch_vectors, (values, intp, check), arguments)

    return types.void(values, intp, intp, check, intp), generate
