"""The transforms of transforms.h for Numba, as LLVM vector instructions; the same functions, described there."""

from functools import partial

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcnn_kernels.conv2d.winograd.geometry import DOWN, TILES, UP
from fastcnn_kernels.gemm.numba_llvm import (
    broadcast_load,
    emit_call,
    emit_switch,
    first_lanes,
    load,
    load_masked,
    multiply_add,
    shuffle,
    store,
    store_masked,
    vector_type_of,
)

#: Kinds of transform, and the points of m = 4 and of stride 2, as in transforms.h.
IMAGE, FILTER, RESULT, GRADIENT, WEIGHT = range(5)
PA, PB = 0.625, 1.5
PA2, PB2 = PA * PA, PB * PB
N0, NA, NB = 1 / (PA2 * PB2), 1 / (2 * PA2 * (PA2 - PB2)), 1 / (2 * PB2 * (PB2 - PA2))
PC, PD = 0.5, 1.5
PC2, PD2 = PC * PC, PD * PD
NC, ND = 1 / (2 * PC * (PC2 - PD2)), 1 / (2 * PD * (PD2 - PC2))
#: By item size: times this, a value of 2^101 (2^824) is infinite.
MUCH = {4: 2.0**27, 8: 2.0**200}


class _Arithmetic:
    """Vector operations with constants."""

    def __init__(self, builder, vector_type):
        self.builder, self.type = builder, vector_type
        self.add, self.sub = builder.fadd, builder.fsub

    def scale(self, factor, x):
        """Return factor * x."""
        return self.builder.fmul(self.constant(factor), x)

    def plus(self, total, factor, x):
        """Return total + factor * x."""
        return multiply_add(self.builder, self.constant(factor), x, total)

    def constant(self, value):
        """Return a vector of one value."""
        return ir.Constant(self.type, [ir.Constant(self.type.element, value)] * self.type.count)


def _four_points(v, x):
    """Four points of a plane of stride 2 in an image, from 4 pixels."""
    even_c, odd_c = v.plus(x[3], -PD2, x[1]), v.plus(x[2], -PD2, x[0])
    even_d, odd_d = v.plus(x[3], -PC2, x[1]), v.plus(x[2], -PC2, x[0])
    return [
        v.plus(even_c, PC, odd_c), v.plus(even_c, -PC, odd_c), v.plus(even_d, PD, odd_d), v.plus(even_d, -PD, odd_d)
    ]  # fmt: skip


def _four_pixels(v, x):
    """The way back, in the results."""
    even_c, odd_c, even_d, odd_d = v.add(x[0], x[1]), v.sub(x[0], x[1]), v.add(x[2], x[3]), v.sub(x[2], x[3])
    return [
        v.add(even_c, even_d),
        v.plus(v.scale(PC, odd_c), PD, odd_d),
        v.plus(v.scale(PC2, even_c), PD2, even_d),
        v.plus(v.scale(PC * PC2, odd_c), PD * PD2, odd_d),
    ]


def _strided(v, kind, m, x):
    """`_transform` for tiles of stride 2."""
    if kind == IMAGE:
        even, odd = (x[::2], x[1::2]) if m == DOWN else (x, [])
        infinite = v.plus(v.plus(even[4], -(PC2 + PD2), even[2]), PC2 * PD2, even[0])
        return [*_four_points(v, even), infinite, *(_four_points(v, odd) if odd else [])]
    if kind == FILTER:
        even = [
            v.scale(factor, value)
            for factor, point in ((NC, PC), (ND, PD))
            for value in (v.plus(x[0], point, x[2]), v.sub(v.scale(point, x[2]), x[0]))
        ]
        return [*even, x[2], *(v.scale(factor, x[1]) for factor in (NC, -NC, ND, -ND))]
    if kind == GRADIENT:
        even_c, odd_c = v.plus(x[0], PC2, x[2]), v.scale(PC, v.plus(x[1], PC2, x[3]))
        even_d, odd_d = v.plus(x[0], PD2, x[2]), v.scale(PD, v.plus(x[1], PD2, x[3]))
        return [
            v.scale(NC, v.add(odd_c, even_c)), v.scale(NC, v.sub(odd_c, even_c)), v.scale(ND, v.add(odd_d, even_d)),
            v.scale(ND, v.sub(odd_d, even_d)), x[3],
        ]  # fmt: skip
    if kind == WEIGHT:
        first, middle = (v.add(v.add(x[i], x[i + 1]), v.add(x[i + 2], x[i + 3])) for i in (0, 5))
        return [first, middle, v.add(v.plus(v.scale(PC, v.sub(x[0], x[1])), PD, v.sub(x[2], x[3])), x[4])]
    even = _four_pixels(v, x)
    even[3] = v.add(even[3], x[4])
    if m == DOWN:
        return even
    # the first pixel of a patch of dy is met by the one tap, then by the two
    return [y for pair in zip(_four_pixels(v, x[5:]), even, strict=True) for y in pair]


def _transform(v, kind, m, x):
    """One-dimensional transform of a list of vectors; `v` is an `_Arithmetic`."""
    if m in (DOWN, UP):
        return _strided(v, kind, m, x)
    if m == 4 and kind == IMAGE:
        even_a, odd_a = v.plus(x[4], -PB2, x[2]), v.plus(x[3], -PB2, x[1])
        even_b, odd_b = v.plus(x[4], -PA2, x[2]), v.plus(x[3], -PA2, x[1])
        first, last = (v.plus(v.plus(x[4 + i], -(PA2 + PB2), x[2 + i]), PA2 * PB2, x[i]) for i in (0, 1))
        return [
            first, v.plus(even_a, PA, odd_a), v.plus(even_a, -PA, odd_a), v.plus(even_b, PB, odd_b),
            v.plus(even_b, -PB, odd_b), last,
        ]  # fmt: skip
    if m == 4 and kind in (FILTER, GRADIENT):
        even_a, odd_a = v.plus(x[0], PA2, x[2]), v.scale(PA, x[1])
        even_b, odd_b = v.plus(x[0], PB2, x[2]), v.scale(PB, x[1])
        if kind == GRADIENT:
            odd_a, odd_b = v.plus(odd_a, PA * PA2, x[3]), v.plus(odd_b, PB * PB2, x[3])
        return [
            v.scale(N0, x[0]), v.scale(NA, v.add(even_a, odd_a)), v.scale(NA, v.sub(even_a, odd_a)),
            v.scale(NB, v.add(even_b, odd_b)), v.scale(NB, v.sub(even_b, odd_b)), x[-1],
        ]  # fmt: skip
    if m == 4:
        even_a, odd_a, even_b, odd_b = v.add(x[1], x[2]), v.sub(x[1], x[2]), v.add(x[3], x[4]), v.sub(x[3], x[4])
        y = [
            v.add(v.add(x[0], even_a), even_b),
            v.plus(v.scale(PA, odd_a), PB, odd_b),
            v.plus(v.scale(PA2, even_a), PB2, even_b),
        ]
        if kind == WEIGHT:
            return [*y[:2], v.add(y[2], x[5])]
        return [*y, v.plus(v.plus(x[5], PA * PA2, odd_a), PB * PB2, odd_b)]
    if kind == IMAGE:
        return [v.sub(x[2], x[0]), v.add(x[2], x[1]), v.sub(x[2], x[1]), v.sub(x[3], x[1])]
    if kind in (FILTER, GRADIENT):
        even = v.add(x[0], x[2]) if kind == FILTER else x[0]
        return [v.scale(-1.0, x[0]), v.scale(0.5, v.add(even, x[1])), v.scale(0.5, v.sub(even, x[1])), x[-1]]
    y = [v.add(v.add(x[0], x[1]), x[2]), v.sub(x[1], x[2])]
    if kind == WEIGHT:
        return [*y, v.add(v.add(x[1], x[2]), x[3])]
    return [y[0], v.add(y[1], x[3])]


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
    intp, v = count.type, _Arithmetic(builder, vector_type)
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
            half.append(_transform(v, kind, m, column))
        for i, row in enumerate(_columns(half)):
            results = _transform(v, kind, m, row)
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
    intp, VL, v = H.type, vector_type.count, _Arithmetic(builder, vector_type)
    none, tile = ir.Constant(ir.VectorType(ir.IntType(1), VL), None), TILES[m]
    shared = tile.patch - tile.step
    with cgutils.for_range(builder, builder.sdiv(builder.add(n, intp(VL - 1)), intp(VL))) as loop:
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
        for i, value in enumerate(_transform(v, IMAGE, m, x)):
            store(builder, value, rows, builder.add(builder.mul(pitch, intp(i)), j))
    for i in range(tile.patch):
        for j in range(shared):
            last = builder.add(builder.mul(pitch, intp(i)), builder.add(n, intp(j - shared)))
            value = builder.load(builder.gep(rows, [last]))
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
    intp, VL, v, (patch, step, *_) = tiles.type, vector_type.count, _Arithmetic(builder, vector_type), TILES[m]
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
            for j, value in enumerate(_transform(v, IMAGE, m, x)):
                offset = builder.add(_place(builder, places, i * patch + j), t)
                store_masked(builder, value, target, offset, mask)


def _watch(v, check, value, much):
    """Sum into which a value that is not finite, or much too large, brings NaN."""
    return v.plus(check, 0.0, v.scale(much, value))


def _much(vector_type):
    return MUCH[8 if isinstance(vector_type.element, ir.DoubleType) else 4]


def _emit_lanes_to_rows(builder, vector_type, m, sums, e_step, tiles, bias, has_bias, rows, pitch, check):
    """`lanes_to_rows` of one size."""
    intp, VL, v = tiles.type, vector_type.count, _Arithmetic(builder, vector_type)
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
            half.append(_transform(v, RESULT, m, column))
        total = builder.load(large)
        for i, row in enumerate(_columns(half)):
            y = _transform(v, RESULT, m, row)
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
        v = _Arithmetic(builder, vector_type)
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
