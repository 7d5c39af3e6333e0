"""The rows of rows.h for Numba, as LLVM vector instructions; the same functions, described there."""

from functools import partial

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcnn_kernels.conv2d.depthwise.geometry import DOT_MASKS, SMALL
from fastcnn_kernels.gemm.numba_llvm import (
    broadcast_load,
    clamped,
    emit_call,
    emit_loop,
    emit_switch,
    first_lanes,
    lane_mask,
    lanes_sum,
    load_masked,
    multiply_add,
    shuffle,
    store_masked,
    vector_type_of,
)

ROWS, SCATTER_ROWS = 7, 8  # of a tile, and of one of an input gradient with stride 2
SIZES, VECTORS = (3, 5), (1, 2)


def tap_columns(size, stride):
    """Columns of taps that stay in registers."""
    return 3 if size == 3 else stride


#: Filter size -> rows of dy beside the sums of a weight gradient.
PLANE_ROWS = {3: ROWS, 5: 4}


def _between(builder, low, high, vector_type):
    """Mask of lanes low to high - 1."""
    first = [first_lanes(builder, builder.trunc(bound, ir.IntType(32)), vector_type) for bound in (low, high)]
    return builder.and_(builder.not_(first[0]), first[1])


def _sums(builder, vector_type, count):
    """Sums that live across branches: memory, which LLVM turns into registers."""
    return [cgutils.alloca_once(builder, vector_type) for _ in range(count)]


def _add_to(builder, total, x, y):
    builder.store(multiply_add(builder, x, y, builder.load(total)), total)


def _clamp(builder, totals, activation):
    """Apply an activation, if there is one."""
    with builder.if_then(builder.icmp_signed("!=", activation, activation.type(0))):
        six = builder.icmp_signed("==", activation, activation.type(2))
        for total in totals:
            builder.store(clamped(builder, builder.load(total), six), total)


def _inside(builder, position, size):
    """Whether ``0 <= position < size``."""
    return builder.icmp_unsigned("<", position, size)


def _taps(builder, size, weight, vector_type):
    """Function of a tap's index: a filter of 9 taps stays in registers, of 25 each is read again for every product."""
    read = partial(broadcast_load, builder, weight, vector_type=vector_type)
    if size == 5:
        return lambda t: read(ir.IntType(64)(t))
    return [read(ir.IntType(64)(t)) for t in range(9)].__getitem__


def _load_taps(builder, source, vector_type, offset, masks):
    """Pixels that one tap meets; with two masks those of two taps side by side, the even and the odd ones."""
    VL, intp = vector_type.count, offset.type
    vectors = [
        load_masked(builder, source, vector_type, builder.add(offset, intp(v * VL)), mask)
        for v, mask in enumerate(masks)
    ]
    if len(vectors) == 1:
        return vectors
    return [shuffle(builder, vectors[0], vectors[1], range(first, 2 * VL, 2)) for first in (0, 1)]


def _tap_parts(builder, size, stride, weight, vector_type):
    """Yield the columns of taps that pass together, and these taps."""
    together = tap_columns(size, stride)
    for first in range(0, size, together):
        columns = range(first, min(size, first + together))
        yield (
            columns,
            {
                (r, s): broadcast_load(builder, weight, ir.IntType(64)(r * size + s), vector_type)
                for r in range(size)
                for s in columns
            },
        )


def _emit_gather(
    builder, size, stride, vectors, vector_type, plane, H, W, h0, w0, weight, bias, out, pitch, rows, columns,
    activation,
):  # fmt: skip
    """`gather_rows` for constant size, stride and vectors."""
    intp, VL = H.type, vector_type.count

    def mask_of(s, v):
        column = builder.add(w0, intp(s + v * VL))
        return _between(builder, builder.neg(column), builder.sub(W, column), vector_type)

    start = broadcast_load(builder, bias, intp(0), vector_type)
    sums = [_sums(builder, vector_type, vectors) for _ in range(ROWS)]
    for row in sums:
        for total in row:
            builder.store(start, total)
    for part, taps in _tap_parts(builder, size, stride, weight, vector_type):
        masks = {(s, v): mask_of(s, v) for s in part[::stride] for v in range(stride * vectors)}
        for h in range((ROWS - 1) * stride + size):
            position = builder.add(h0, intp(h))
            with builder.if_then(_inside(builder, position, H)):
                row = builder.add(builder.mul(position, W), w0)
                for s in part[::stride]:
                    pixels = []
                    for v in range(0, stride * vectors, stride):
                        offset = builder.add(row, intp(s + v * VL))
                        pair = [masks[s, v + t] for t in range(stride)]
                        pixels.append(_load_taps(builder, plane, vector_type, offset, pair))
                    for i in range(ROWS):
                        for t in range(stride):
                            tap = taps.get((h - i * stride, s + t))
                            if tap is not None:
                                for total, values in zip(sums[i], pixels, strict=True):
                                    _add_to(builder, total, tap, values[t])
    count = builder.trunc(columns, ir.IntType(32))
    masks_out = [first_lanes(builder, builder.sub(count, count.type(v * VL)), vector_type) for v in range(vectors)]
    _clamp(builder, [total for row in sums for total in row], activation)
    for i in range(ROWS):
        with builder.if_then(builder.icmp_signed("<", intp(i), rows)):
            for v in range(vectors):
                offset = builder.add(builder.mul(pitch, intp(i)), intp(v * VL))
                store_masked(builder, builder.load(sums[i][v]), out, offset, masks_out[v])


def _emit_gather_small(
    builder, size, P, element, planes, source, H, W, Q, top, left, weight, bias, bias_step, k, filters, out, activation
):
    """`gather_small` for constant size and P."""
    intp, row_type = H.type, ir.VectorType(element, SMALL)
    columns = first_lanes(builder, builder.trunc(Q, ir.IntType(32)), row_type)
    starts = [builder.sub(intp(s), left) for s in range(size)]  # of the source, for tap s
    masks = [
        builder.and_(columns, _between(builder, builder.neg(start), builder.sub(W, start), row_type))
        for start in starts
    ]
    sums = _sums(builder, row_type, P)

    def one_plane(n, totals):
        (k,) = totals
        plane = builder.gep(source, [builder.mul(n, builder.mul(H, W))])
        filter_ = builder.gep(weight, [builder.mul(k, intp(size * size))])
        start = broadcast_load(builder, bias, builder.mul(k, bias_step), row_type)
        for total in sums:
            builder.store(start, total)
        for part, taps in _tap_parts(builder, size, 1, filter_, row_type):
            for h in range(P + size - 1):
                position = builder.sub(intp(h), top)
                with builder.if_then(_inside(builder, position, H)):
                    row = builder.mul(position, W)
                    for s in part:
                        pixels = load_masked(builder, plane, row_type, builder.add(row, starts[s]), masks[s])
                        for i, total in enumerate(sums):
                            if (h - i, s) in taps:
                                _add_to(builder, total, taps[h - i, s], pixels)
        _clamp(builder, sums, activation)
        target = builder.gep(out, [builder.mul(n, builder.mul(Q, intp(P)))])
        for i, total in enumerate(sums):
            store_masked(builder, builder.load(total), target, builder.mul(Q, intp(i)), columns)
        following = builder.add(k, intp(1))
        return [builder.select(builder.icmp_signed("<", following, filters), following, intp(0))]

    emit_loop(builder, planes, 1, [k], one_plane)


def _shift_rows(builder, plane, size, W, top, left):
    """Where the first tap of each row of a filter meets a plane that is shifted as a whole."""
    steps = [builder.mul(builder.sub(W.type(r), top), W) for r in range(size)]
    return [builder.gep(plane, [builder.sub(step, left)]) for step in steps]


def _emit_scatter(
    builder, size, odd_left, vector_type, dy, P, Q, u, q0, left, weight, out, pitch, h, first, end, columns
):
    """`scatter_rows` for constant size and parity of `left`."""
    intp, VL, half = P.type, vector_type.count, size // 2
    tap = _taps(builder, size, weight, vector_type)
    sums = [_sums(builder, vector_type, 2) for _ in range(SCATTER_ROWS)]
    for row in sums:
        for total in row:
            builder.store(ir.Constant(vector_type, None), total)
    q = builder.add(q0, builder.add(builder.ashr(left, intp(1)), intp(odd_left)))
    masks = [
        _between(builder, builder.sub(intp(m), q), builder.add(builder.sub(Q, q), intp(m)), vector_type)
        for m in range(half + 1)
    ]
    for k in range(SCATTER_ROWS // 2 + half):
        p = builder.add(u, intp(k - half))
        with builder.if_then(_inside(builder, p, P)):
            row = builder.add(builder.mul(p, Q), q)
            pixels = [
                load_masked(builder, dy, vector_type, builder.sub(row, intp(m)), mask) for m, mask in enumerate(masks)
            ]
            for i in range(SCATTER_ROWS):
                r = i + 2 * (half - k)
                if 0 <= r < size:
                    for s in range(size):
                        pixel = pixels[(s + odd_left) // 2]
                        _add_to(builder, sums[i][(s + odd_left) % 2], tap(r * size + s), pixel)
    count = builder.trunc(columns, ir.IntType(32))
    masks = [first_lanes(builder, builder.sub(count, count.type(v * VL)), vector_type) for v in range(2)]
    for i in range(SCATTER_ROWS):
        position = builder.add(h, intp(i))
        met = builder.and_(builder.icmp_signed(">=", position, first), builder.icmp_signed("<", position, end))
        with builder.if_then(met):
            even, odd = (builder.load(total) for total in sums[i])
            for v in range(2):
                lanes = [v * VL // 2 + j // 2 + j % 2 * VL for j in range(VL)]
                offset = builder.add(builder.mul(pitch, intp(i)), intp(v * VL))
                store_masked(builder, shuffle(builder, even, odd, lanes), out, offset, masks[v])


def _emit_dots(
    builder, size, stride, most, vector_type, images, plane, plane_step, H, W, top, left, dy, dy_step, P, Q, masks, out
):
    """`dot_planes` for constant size, stride and rows of dy at a time."""
    intp, VL = P.type, vector_type.count
    sums = _sums(builder, vector_type, size * size)
    for total in sums:
        builder.store(ir.Constant(vector_type, None), total)

    def over_columns(q, n, p):
        h0 = builder.sub(builder.mul(p, intp(stride)), top)
        w0 = builder.sub(builder.mul(q, intp(stride)), left)
        first_mask = builder.mul(builder.udiv(q, intp(VL)), intp(DOT_MASKS))
        mask = [lane_mask(builder, masks, builder.add(first_mask, intp(s)), vector_type) for s in range(DOT_MASKS)]
        dy_start, plane_start = builder.add(builder.mul(n, dy_step), q), builder.add(builder.mul(n, plane_step), w0)
        pixels = []
        for i in range(most):
            row = builder.add(p, intp(i))
            lanes = builder.select(builder.icmp_signed("<", row, P), mask[-1], ir.Constant(mask[-1].type, None))
            pixels.append(load_masked(builder, dy, vector_type, builder.add(dy_start, builder.mul(row, Q)), lanes))
        for h in range((most - 1) * stride + size):
            position = builder.add(h0, intp(h))
            with builder.if_then(_inside(builder, position, H)):
                row = builder.add(plane_start, builder.mul(position, W))
                for s in range(0, size, stride):
                    taps = _load_taps(builder, plane, vector_type, builder.add(row, intp(s)), mask[s : s + stride])
                    for t, value in enumerate(taps):
                        for i, pixel in enumerate(pixels):
                            r = h - i * stride
                            if 0 <= r < size and s + t < size:
                                _add_to(builder, sums[r * size + s + t], pixel, value)
        return []

    def over_rows(p, n):
        return emit_loop(builder, Q, VL, [], lambda q, _: over_columns(q, n, p))

    emit_loop(builder, images, 1, [], lambda n, _: emit_loop(builder, P, most, [], lambda p, _: over_rows(p, n)))
    for index, total in enumerate(sums):
        place = builder.gep(out, [intp(index)])
        builder.store(builder.fadd(builder.load(place), lanes_sum(builder, builder.load(total))), place)


def _emit_dot_whole(
    builder, size, vector_type, vectors, images, plane, plane_step, W, top, left, dy, dy_step, masks, out
):
    """`dot_whole` for constant size."""
    intp, VL, taps = W.type, vector_type.count, size * size

    def over_images(n, totals):
        rows = _shift_rows(builder, builder.gep(plane, [builder.mul(n, plane_step)]), size, W, top, left)
        dy_plane = builder.gep(dy, [builder.mul(n, dy_step)])

        def over_vectors(v, totals):
            pixel, mask = builder.mul(v, intp(VL)), builder.gep(masks, [builder.mul(v, intp(taps + 1))])
            lanes = [lane_mask(builder, mask, intp(t), vector_type) for t in range(taps + 1)]
            pixels = load_masked(builder, dy_plane, vector_type, pixel, lanes[-1])
            return [
                multiply_add(
                    builder, pixels,
                    load_masked(builder, rows[t // size], vector_type, builder.add(pixel, intp(t % size)), lanes[t]),
                    total,
                )
                for t, total in enumerate(totals)
            ]  # fmt: skip

        return emit_loop(builder, vectors, 1, totals, over_vectors)

    sums = emit_loop(builder, images, 1, [ir.Constant(vector_type, None)] * taps, over_images)
    for index, total in enumerate(sums):
        place = builder.gep(out, [intp(index)])
        builder.store(builder.fadd(builder.load(place), lanes_sum(builder, total)), place)


@intrinsic
def _gather_code(
    typing_context, size, stride, vectors, plane, H, W, h0, w0, weight, bias, out, pitch, rows, columns, activation
):
    def generate(context, builder, signature, arguments):
        size, stride, vectors, *rest = arguments
        vector_type, intp = vector_type_of(context, signature.args[3]), size.type
        key = builder.add(builder.mul(builder.add(builder.mul(size, intp(4)), stride), intp(4)), vectors)
        cases = [
            ((a * 4 + b) * 4 + c, partial(_emit_gather, builder, a, b, c, vector_type, *rest))
            for a in SIZES for b in (1, 2) for c in VECTORS
        ]  # fmt: skip
        emit_switch(builder, key, cases)
        return context.get_dummy_value()

    return types.void(
        size, stride, vectors, plane, H, W, h0, w0, weight, bias, out, pitch, rows, columns, activation
    ), generate


@intrinsic
def _gather_small_code(
    typing_context, size, P, planes, source, H, W, Q, top, left, weight, bias, bias_step, k, filters, out, activation
):
    def generate(context, builder, signature, arguments):
        size, P, *rest = arguments
        element = vector_type_of(context, signature.args[3]).element
        cases = [
            (a * 16 + b, partial(_emit_gather_small, builder, a, b, element, *rest))
            for a in SIZES for b in range(1, SMALL + 1)
        ]  # fmt: skip
        emit_switch(builder, builder.add(builder.mul(size, size.type(16)), P), cases)
        return context.get_dummy_value()

    return types.void(
        size, P, planes, source, H, W, Q, top, left, weight, bias, bias_step, k, filters, out, activation
    ), generate


@intrinsic
def _dot_whole_code(
    typing_context, size, vectors, images, plane, plane_step, W, top, left, dy, dy_step, masks, out
):  # fmt: skip
    def generate(context, builder, signature, arguments):
        size, *rest = arguments
        vector_type = vector_type_of(context, signature.args[3])
        emit_switch(builder, size, [(a, partial(_emit_dot_whole, builder, a, vector_type, *rest)) for a in SIZES])
        return context.get_dummy_value()

    return types.void(size, vectors, images, plane, plane_step, W, top, left, dy, dy_step, masks, out), generate


@intrinsic
def _scatter_code(
    typing_context, size, dy, P, Q, u, q0, left, weight, out, pitch, h, first, end, columns
):  # fmt: skip
    def generate(context, builder, signature, arguments):
        size, *rest = arguments
        vector_type, intp, left = vector_type_of(context, signature.args[1]), size.type, arguments[6]
        cases = [
            (a * 2 + b, partial(_emit_scatter, builder, a, b, vector_type, *rest)) for a in SIZES for b in (0, 1)
        ]  # fmt: skip
        key = builder.add(builder.mul(size, intp(2)), builder.and_(left, intp(1)))
        emit_switch(builder, key, cases)
        return context.get_dummy_value()

    return types.void(size, dy, P, Q, u, q0, left, weight, out, pitch, h, first, end, columns), generate


@intrinsic
def _dots_code(typing_context, size, stride, images, plane, plane_step, H, W, top, left, dy, dy_step, P, Q, masks, out):
    def generate(context, builder, signature, arguments):
        size, stride, *rest = arguments
        vector_type, intp = vector_type_of(context, signature.args[3]), size.type
        cases = [
            (a * 4 + b, partial(_emit_dots, builder, a, b, PLANE_ROWS[a], vector_type, *rest))
            for a in SIZES for b in (1, 2)
        ]  # fmt: skip
        emit_switch(builder, builder.add(builder.mul(size, intp(4)), stride), cases)
        return context.get_dummy_value()

    return types.void(size, stride, images, plane, plane_step, H, W, top, left, dy, dy_step, P, Q, masks, out), generate


def _gather_rows(size, stride, vectors, plane, H, W, h0, w0, weight, bias, out, pitch, rows, columns, activation):
    _gather_code(size, stride, vectors, plane, H, W, h0, w0, weight, bias, out, pitch, rows, columns, activation)


def _gather_small(size, P, planes, source, H, W, Q, top, left, weight, bias, bias_step, k, filters, out, activation):
    _gather_small_code(
        size, P, planes, source, H, W, Q, top, left, weight, bias, bias_step, k, filters, out, activation
    )


def _dot_whole(size, vectors, images, plane, plane_step, W, top, left, dy, dy_step, masks, out):
    _dot_whole_code(size, vectors, images, plane, plane_step, W, top, left, dy, dy_step, masks, out)


def _scatter_rows(size, dy, P, Q, u, q0, left, weight, out, pitch, h, first, end, columns):
    _scatter_code(size, dy, P, Q, u, q0, left, weight, out, pitch, h, first, end, columns)


def _dot_planes(size, stride, images, plane, plane_step, H, W, top, left, dy, dy_step, P, Q, masks, out):
    _dots_code(size, stride, images, plane, plane_step, H, W, top, left, dy, dy_step, P, Q, masks, out)


@intrinsic
def gather_rows(typing_context, size, stride, vectors, plane, plane_start, H, W, h0, w0, weight, weight_start, bias,
                bias_start, out, out_start, pitch, rows, columns, activation):  # fmt: skip
    """Rows of sums over the taps of one filter, from ``bias[bias_start]`` on, activated."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, plane, intp, intp, intp, intp, weight, bias, out, intp, intp, intp, intp)
        return emit_call(context, builder, _gather_rows, kinds, arguments)

    return types.void(
        intp, intp, intp, plane, intp, intp, intp, intp, intp, weight, intp, bias, intp, out, intp, intp, intp, intp,
        intp,
    ), generate  # fmt: skip


@intrinsic
def gather_small(typing_context, size, P, planes, source, source_start, H, W, Q, top, left, weight, weight_start, bias,
                 bias_start, bias_step, k, filters, out, out_start, activation):  # fmt: skip
    """Activated sums over the taps of filters k, k + 1, ..., one for each of several small planes of P rows."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, source, intp, intp, intp, intp, intp, weight, bias, intp, intp, intp, out, intp)
        return emit_call(context, builder, _gather_small, kinds, arguments)

    return types.void(
        intp, intp, intp, source, intp, intp, intp, intp, intp, intp, weight, intp, bias, intp, intp, intp, intp, out,
        intp, intp,
    ), generate  # fmt: skip


@intrinsic
def dot_whole(typing_context, size, vectors, images, plane, plane_start, plane_step, W, top, left, dy, dy_start,
              dy_step, masks, masks_start, out, out_start):  # fmt: skip
    """Add one filter's gradient over small planes of several images to ``out``."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, plane, intp, intp, intp, intp, dy, intp, masks, out)
        return emit_call(context, builder, _dot_whole, kinds, arguments)

    return types.void(
        intp, intp, intp, plane, intp, intp, intp, intp, intp, dy, intp, intp, masks, intp, out, intp
    ), generate


@intrinsic
def scatter_rows(typing_context, size, dy, dy_start, P, Q, u, q0, left, weight, weight_start, out, out_start, pitch, h,
                 first, end, columns):  # fmt: skip
    """Rows of the input gradient with stride 2."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        kinds = (intp, dy, intp, intp, intp, intp, intp, weight, out, intp, intp, intp, intp, intp)
        return emit_call(context, builder, _scatter_rows, kinds, arguments)

    return types.void(
        intp, dy, intp, intp, intp, intp, intp, intp, weight, intp, out, intp, intp, intp, intp, intp, intp
    ), generate


@intrinsic
def dot_planes(typing_context, size, stride, images, plane, plane_start, plane_step, H, W, top, left, dy, dy_start,
               dy_step, P, Q, masks, masks_start, out, out_start):  # fmt: skip
    """Add one filter's gradient over the planes of several images to ``out``."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, plane, intp, intp, intp, intp, intp, dy, intp, intp, intp, masks, out)
        return emit_call(context, builder, _dot_planes, kinds, arguments)

    return types.void(
        intp, intp, intp, plane, intp, intp, intp, intp, intp, intp, dy, intp, intp, intp, intp, masks, intp, out, intp
    ), generate
