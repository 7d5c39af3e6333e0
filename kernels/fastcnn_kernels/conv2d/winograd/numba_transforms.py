"""The transforms of transforms.h for Numba, as LLVM vector instructions; the same functions, described there."""

from functools import partial

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

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

#: Kinds of transform, and the points of m = 4, as in transforms.h.
IMAGE, FILTER, RESULT, GRADIENT, WEIGHT = range(5)
PA, PB = 0.625, 1.5
PA2, PB2 = PA * PA, PB * PB
N0, NA, NB = 1 / (PA2 * PB2), 1 / (2 * PA2 * (PA2 - PB2)), 1 / (2 * PB2 * (PB2 - PA2))
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


def _transform(v, kind, m, x):
    """One-dimensional transform of a list of vectors; `v` is an `_Arithmetic`."""
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


def _emit_patches(
    builder, vector_type, kind, m, count, lanes, source, source_step, row_step, column_step, target, target_step, e_step
):
    """`patches` of one kind and size."""
    intp, v = count.type, _Arithmetic(builder, vector_type)
    size = {FILTER: 3, GRADIENT: m}.get(kind, m + 2)
    mask = _lanes_below(builder, lanes, vector_type)
    with cgutils.for_range(builder, count) as loop:
        start, place = builder.mul(loop.index, source_step), builder.mul(loop.index, target_step)
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
                offset = builder.add(place, builder.mul(e_step, intp(i * len(results) + j)))
                store_masked(builder, value, target, offset, mask)


@intrinsic
def _patches_code(
    typing_context, kind, m, count, lanes, source, source_step, row_step, column_step, target, target_step, e_step
):
    def generate(context, builder, signature, arguments):
        kind, m, *arguments = arguments
        vector_type = vector_type_of(context, signature.args[4])
        cases = [
            (k * 8 + tile, partial(_emit_patches, builder, vector_type, k, tile, *arguments))
            for k in (IMAGE, FILTER, GRADIENT, WEIGHT)
            for tile in (2, 4)
        ]
        emit_switch(builder, builder.add(builder.mul(kind, kind.type(8)), m), cases)
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
    none = ir.Constant(ir.VectorType(ir.IntType(1), VL), None)
    with cgutils.for_range(builder, builder.sdiv(builder.add(n, intp(VL - 1)), intp(VL))) as loop:
        j = builder.mul(loop.index, intp(VL))
        column = builder.add(left, j)
        inside = builder.and_(
            _lanes_below(builder, builder.sub(W, column), vector_type),
            builder.not_(_lanes_below(builder, builder.neg(column), vector_type)),
        )
        x = []
        for i in range(m + 2):
            h = builder.add(top, intp(i))
            there = builder.and_(builder.icmp_signed(">=", h, intp(0)), builder.icmp_signed("<", h, H))
            mask = builder.select(there, inside, none)
            x.append(load_masked(builder, plane, vector_type, builder.add(builder.mul(h, W), column), mask))
        for i, value in enumerate(_transform(v, IMAGE, m, x)):
            store(builder, value, rows, builder.add(builder.mul(pitch, intp(i)), j))
    for i in range(m + 2):
        for j in (0, 1):
            last = builder.add(builder.mul(pitch, intp(i)), builder.add(n, intp(j - 2)))
            value = builder.load(builder.gep(rows, [last]))
            builder.store(value, builder.gep(tails, [intp((2 * i + j) * 2 * VL)]))


def _emit_rows_to_lanes(builder, vector_type, m, rows, pitch, tails, ends, tiles, target, e_step):
    """`rows_to_lanes` of one size."""
    intp, VL, v = tiles.type, vector_type.count, _Arithmetic(builder, vector_type)
    lanes = ir.VectorType(ir.IntType(1), VL)
    with cgutils.for_range(builder, builder.sdiv(builder.add(tiles, intp(VL - 1)), intp(VL))) as loop:
        t = builder.mul(loop.index, intp(VL))
        mask = _lanes_below(builder, builder.sub(tiles, t), vector_type)
        last = builder.bitcast(builder.trunc(builder.lshr(ends, t), ir.IntType(VL)), lanes)
        for i in range(m + 2):
            start = builder.add(builder.mul(pitch, intp(i)), builder.mul(t, intp(m)))

            def row(offset, start=start):
                return load(builder, rows, vector_type, builder.add(start, intp(offset)))

            pixels = [row(j * VL) for j in range(m)]
            halves = [
                [_shuffle(builder, a, b, lane) for a, b in zip(pixels[::2], pixels[1::2], strict=True)]
                for lane in (_even, _odd)
            ]
            if m == 4:  # every fourth element, by taking every second twice
                x = [_shuffle(builder, a, b, lane) for lane in (_even, _odd) for a, b in halves]
            else:
                x = [half[0] for half in halves]
            for j in (0, 1):  # columns m and m + 1 are the next patch's first
                following = _shuffle(builder, x[j], row(m * VL + j), _next)
                tail = builder.add(t, intp((2 * i + j) * 2 * VL))
                x.append(load_masked(builder, tails, vector_type, tail, last, following))
            for j, value in enumerate(_transform(v, IMAGE, m, x)):
                offset = builder.add(builder.mul(e_step, intp(i * (m + 2) + j)), t)
                store_masked(builder, value, target, offset, mask)


def _watch(v, check, value, much):
    """Sum into which a value that is not finite, or much too large, brings NaN."""
    return v.plus(check, 0.0, v.scale(much, value))


def _much(vector_type):
    return MUCH[8 if isinstance(vector_type.element, ir.DoubleType) else 4]


def _emit_lanes_to_rows(builder, vector_type, m, sums, e_step, tiles, bias, has_bias, rows, pitch, check):
    """`lanes_to_rows` of one size."""
    intp, VL, v = tiles.type, vector_type.count, _Arithmetic(builder, vector_type)
    zero = ir.Constant(vector_type, None)
    first = builder.select(has_bias, broadcast_load(builder, bias, intp(0), vector_type), zero)
    large = cgutils.alloca_once_value(builder, load(builder, check, vector_type, intp(0)))

    def zip_low(j):
        return j // 2 + j % 2 * VL

    def zip_high(j):
        return VL // 2 + j // 2 + j % 2 * VL

    def interleave(x, y):
        return [_shuffle(builder, x, y, lane) for lane in (zip_low, zip_high)]

    with cgutils.for_range(builder, builder.sdiv(builder.add(tiles, intp(VL - 1)), intp(VL))) as loop:
        t = builder.mul(loop.index, intp(VL))
        mask = _lanes_below(builder, builder.sub(tiles, t), vector_type)
        half = []
        for j in range(m + 2):
            offsets = [builder.add(builder.mul(e_step, intp(i * (m + 2) + j)), t) for i in range(m + 2)]
            column = [load_masked(builder, sums, vector_type, offset, mask) for offset in offsets]
            half.append(_transform(v, RESULT, m, column))
        total = builder.load(large)
        for i, row in enumerate(_columns(half)):
            y = _transform(v, RESULT, m, row)
            for value in y:
                total = _watch(v, total, value, _much(vector_type))
            y = [builder.fadd(value, first) for value in y]
            if m == 4:
                evens, odds = interleave(y[0], y[2]), interleave(y[1], y[3])
                y = [*interleave(evens[0], odds[0]), *interleave(evens[1], odds[1])]
            else:
                y = interleave(*y)
            start = builder.add(builder.mul(pitch, intp(i)), builder.mul(t, intp(m)))
            for j, value in enumerate(y):
                store(builder, value, rows, builder.add(start, intp(j * VL)))
        builder.store(total, large)
    store(builder, builder.load(large), check, intp(0))


def _sizes(builder, vector_type, m, emit, arguments):
    """Switch over the tile sizes."""
    emit_switch(builder, m, [(size, partial(emit, builder, vector_type, size, *arguments)) for size in (2, 4)])


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
    """A row of patches of an H x W plane, transformed along its columns only; the last two go to `tails` as well."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        kinds = (intp, plane, intp, intp, intp, intp, intp, rows, intp, tails)
        return emit_call(context, builder, _image_rows, kinds, arguments)

    return types.void(intp, plane, intp, intp, intp, intp, intp, intp, rows, intp, intp, tails, intp), generate


@intrinsic
def _rows_to_lanes_code(typing_context, m, rows, pitch, tails, ends, tiles, target, e_step):
    def generate(context, builder, signature, arguments):
        m, *arguments = arguments
        _sizes(builder, vector_type_of(context, signature.args[1]), m, _emit_rows_to_lanes, arguments)
        return context.get_dummy_value()

    return types.void(m, rows, pitch, tails, ends, tiles, target, e_step), generate


def _rows_to_lanes(m, rows, pitch, tails, ends, tiles, target, e_step):
    _rows_to_lanes_code(m, rows, pitch, tails, ends, tiles, target, e_step)


@intrinsic
def rows_to_lanes(
    typing_context, m, rows, rows_start, pitch, tails, tails_start, ends, tiles, target, target_start, e_step
):
    """Transform those rows along themselves: lane t of ``target[target_start + e * e_step:]`` is patch t."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        kinds = (intp, rows, intp, tails, intp, intp, target, intp)
        return emit_call(context, builder, _rows_to_lanes, kinds, arguments)

    return types.void(intp, rows, intp, intp, tails, intp, intp, intp, target, intp, intp), generate


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
    """Results of consecutive tiles, side by side in m rows; check as in `watch`."""
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
