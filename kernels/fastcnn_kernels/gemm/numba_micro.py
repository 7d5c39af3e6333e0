"""The micro-kernel of micro.h for Numba, as LLVM vector instructions; picture and reasons are there.

    C[mr, NR] (+)= A[mr, L] . B[L, NR]        packed panels; mr x NR sums in registers

Numba has no vector types, and its auto-vectoriser does not keep such a tile in registers, so `micro` writes the loop
over L itself: for every row count a block with 2 mr vector sums as phi nodes. An array argument and a start index
stand for a C pointer.
"""

import platform
from functools import cache, partial

from llvmlite import binding, ir
from numba import cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcnn_kernels.cpu import level
from fastcnn_kernels.numba_support import compiled

#: CPU level -> bytes of a vector, rows of the register tile (as in micro.h), fused multiply-add.
VECTOR_BYTES, MR, FMA = {
    "x86-64-v4": (64, 14, True),
    "x86-64-v3": (32, 6, True),
    "baseline": (16, 12, True) if platform.machine() in ("aarch64", "arm64") else (16, 6, False),
}[level()]

#: Rows up to which a direct tile is four vectors wide, and the tile of dot products (as in micro.h).
WIDE_ROWS, DOT_ROWS = (6, 4) if MR > 6 else (2, 2)
DOT_COLUMNS, DOT_COLUMNS_OF_ONE_ROW = 6, 12


def _lanes(array_type):
    return VECTOR_BYTES * 8 // array_type.dtype.bitwidth


def _vector_type(context, array_type):
    return ir.VectorType(context.get_data_type(array_type.dtype), _lanes(array_type))


def _pointer(context, builder, array_type, array, start):
    """Pointer to element `start` of an array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [start])


def _load(builder, pointer, vector_type, offset):
    address = builder.bitcast(builder.gep(pointer, [offset]), vector_type.as_pointer())
    return builder.load(address, align=1)


def _store(builder, value, pointer, offset):
    address = builder.bitcast(builder.gep(pointer, [offset]), value.type.as_pointer())
    builder.store(value, address, align=1)


def _prefetch_to_write(builder, pointer):
    """Ask for the cache line of a pointer."""
    int32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [byte, int32, int32, int32]), "llvm.prefetch.p0"
    )
    builder.call(function, [builder.bitcast(pointer, byte), int32(1), int32(3), int32(1)])


def _multiply_add(builder, x, y, total):
    """Return x * y + total, fused where the level has it."""
    if not FMA:
        return builder.fadd(builder.fmul(x, y), total)
    vector = x.type
    suffix = "f64" if isinstance(vector.element, ir.DoubleType) else "f32"
    name = f"llvm.fma.v{vector.count}{suffix}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    return builder.call(function, [x, y, total])


def _broadcast_load(builder, pointer, index, vector_type):
    """Vector of one element of an array."""
    scalar = builder.load(builder.gep(pointer, [index]))
    one = builder.insert_element(ir.Constant(vector_type, ir.Undefined), scalar, ir.IntType(32)(0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector_type.count), [0] * vector_type.count)
    return builder.shuffle_vector(one, ir.Constant(vector_type, ir.Undefined), mask)


def _emit_switch(builder, key, cases):
    """Branch on an integer; `cases` are (value, function that emits the code)."""
    end = builder.append_basic_block("switch.end")
    switch = builder.switch(key, end)
    for value, emit in cases:
        block = builder.append_basic_block(f"case{value}")
        switch.add_case(key.type(value), block)
        builder.position_at_end(block)
        emit()
        builder.branch(end)
    builder.position_at_end(end)


def _emit_loop(builder, count, step, start, body):
    """Run ``totals = body(index, totals)`` for index = 0, step, ... < count, at least once; returns the last totals."""
    intp = count.type
    before = builder.block
    loop = builder.append_basic_block("loop")
    after = builder.append_basic_block("loop.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    index = builder.phi(intp)
    totals = [builder.phi(value.type) for value in start]
    results = body(index, totals)
    following = builder.add(index, intp(step))
    last = builder.block  # another one than `loop` if the body is a loop itself
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    index.add_incoming(intp(0), before)
    index.add_incoming(following, last)
    for total, first, result in zip(totals, start, results, strict=True):
        total.add_incoming(first, before)
        total.add_incoming(result, last)
    builder.position_at_end(after)
    return results


def _emit_micro(builder, rows, vectors, vector_type, L, a, b, b_step, c, ldc, accumulate):
    """`micro` for one row count and one or two vectors of columns."""
    intp, VL = L.type, vector_type.count
    tiles = [(i, j) for i in range(rows) for j in range(vectors)]
    offsets = [builder.add(builder.mul(intp(i), ldc), intp(j * VL)) for i, j in tiles]
    for offset in offsets:  # C is met last: its lines arrive meanwhile
        _prefetch_to_write(builder, builder.gep(c, [offset]))

    def body(index, totals):
        a_offset, b_offset = builder.mul(index, intp(rows)), builder.mul(index, b_step)
        columns = [_load(builder, b, vector_type, builder.add(b_offset, intp(j * VL))) for j in range(vectors)]
        results = []
        for (i, j), total in zip(tiles, totals, strict=True):
            if j == 0:  # a row's broadcast comes just before its products: all at once, they would not fit registers
                left = _broadcast_load(builder, a, builder.add(a_offset, intp(i)), vector_type)
            results.append(_multiply_add(builder, left, columns[j], total))
        return results

    zero = ir.Constant(vector_type, None)
    results = _emit_loop(builder, L, 1, [zero] * len(tiles), body)
    with builder.if_else(accumulate) as (add, overwrite):
        with add:
            for offset, result in zip(offsets, results, strict=True):
                _store(builder, builder.fadd(_load(builder, c, vector_type, offset), result), c, offset)
        with overwrite:
            for offset, result in zip(offsets, results, strict=True):
                _store(builder, result, c, offset)


def _emit_direct(builder, rows, vector_type, L, a, source, offset, bias, has_bias, tile):
    """`direct` for one row count: rows x 4 or rows x 2 vector sums."""
    intp, VL, vectors = L.type, vector_type.count, 4 if rows <= WIDE_ROWS else 2
    tiles = [(i, j) for i in range(rows) for j in range(vectors)]
    zero = ir.Constant(vector_type, None)
    first = [builder.select(has_bias, _broadcast_load(builder, bias, intp(i), vector_type), zero) for i in range(rows)]

    def body(index, totals):
        a_offset = builder.mul(index, intp(rows))
        start = builder.load(builder.gep(offset, [index]))
        columns = [_load(builder, source, vector_type, builder.add(start, intp(j * VL))) for j in range(vectors)]
        results = []
        for (i, j), total in zip(tiles, totals, strict=True):
            if j == 0:  # a row's broadcast comes just before its products: all at once, they would not fit registers
                left = _broadcast_load(builder, a, builder.add(a_offset, intp(i)), vector_type)
            results.append(_multiply_add(builder, left, columns[j], total))
        return results

    results = _emit_loop(builder, L, 1, [first[i] for i, _ in tiles], body)
    for number, result in enumerate(results):
        _store(builder, result, tile, intp(number * VL))


def _emit_dot(builder, rows, columns, vector_type, n, a, a_step, b, offset, sums, sums_step):
    """`dot` for one tile: rows x columns vector sums, whose lanes are added halves to halves."""
    intp, VL = n.type, vector_type.count
    tiles = [(i, j) for j in range(columns) for i in range(rows)]
    starts = [builder.load(builder.gep(offset, [intp(j)])) for j in range(columns)]
    a_starts = [builder.mul(a_step, intp(i)) for i in range(rows)]

    def body(index, totals):
        left = [_load(builder, a, vector_type, builder.add(start, index)) for start in a_starts]
        results = []
        for (i, j), total in zip(tiles, totals, strict=True):
            if i == 0:
                right = _load(builder, b, vector_type, builder.add(starts[j], index))
            results.append(_multiply_add(builder, left[i], right, total))
        return results

    results = _emit_loop(builder, n, VL, [ir.Constant(vector_type, None)] * len(tiles), body)
    for (i, j), value in zip(tiles, results, strict=True):
        pointer = builder.gep(sums, [builder.add(builder.mul(sums_step, intp(i)), intp(j))])
        builder.store(builder.fadd(builder.load(pointer), _lanes_sum(builder, value)), pointer)


def _lanes_sum(builder, value):
    """Sum of the lanes, halves added to halves."""
    int32, half = ir.IntType(32), value.type.count
    while half > 1:
        half //= 2
        halves = [
            builder.shuffle_vector(
                value, value, ir.Constant(ir.VectorType(int32, half), list(range(first, first + half)))
            )
            for first in (0, half)
        ]
        value = builder.fadd(*halves)
    return builder.extract_element(value, int32(0))


def _lane_mask(builder, masks, index, vector_type):
    """Mask of a vector's lanes from the bits of ``masks[index]``."""
    VL = vector_type.count
    bits = builder.load(builder.gep(masks, [index]))
    if VL < 16:
        bits = builder.trunc(bits, ir.IntType(VL))
    return builder.bitcast(bits, ir.VectorType(ir.IntType(1), VL))


def _load_masked(builder, pointer, vector_type, offset, mask, others=None):
    """Load the lanes in the mask; the others are zeros, or those of a vector."""
    address = builder.bitcast(builder.gep(pointer, [offset]), vector_type.as_pointer())
    others = ir.Constant(vector_type, None) if others is None else others
    return _masked(builder, "load", vector_type, [address, ir.IntType(32)(1), mask, others])


def _store_masked(builder, value, pointer, offset, mask):
    address = builder.bitcast(builder.gep(pointer, [offset]), value.type.as_pointer())
    _masked(builder, "store", ir.VoidType(), [value, address, ir.IntType(32)(1), mask])


def _emit_masked(
    builder, rows, vector_type, channels, taps, a, source, channel_step, offset, masks, bias, has_bias, c, ldc
):
    """`masked` for one row count: rows x 4 or rows x 2 vector sums."""
    intp, VL, vectors = taps.type, vector_type.count, 4 if rows <= WIDE_ROWS else 2
    tiles = [(i, j) for i in range(rows) for j in range(vectors)]
    zero = ir.Constant(vector_type, None)
    first = [builder.select(has_bias, _broadcast_load(builder, bias, intp(i), vector_type), zero) for i in range(rows)]
    mask_starts = [builder.mul(builder.add(taps, intp(1)), intp(j)) for j in range(vectors)]

    def over_channels(channel, totals):
        plane = builder.gep(source, [builder.mul(channel, channel_step)])
        panel = builder.gep(a, [builder.mul(builder.mul(channel, taps), intp(rows))])

        def over_taps(tap, totals):
            a_offset, start = builder.mul(tap, intp(rows)), builder.load(builder.gep(offset, [tap]))
            columns = [
                _load_masked(
                    builder, plane, vector_type, builder.add(start, intp(j * VL)),
                    _lane_mask(builder, masks, builder.add(mask_starts[j], tap), vector_type),
                )
                for j in range(vectors)
            ]  # fmt: skip
            results = []
            for (i, j), total in zip(tiles, totals, strict=True):
                if j == 0:  # a row's broadcast comes just before its products: all at once, they would not fit
                    left = _broadcast_load(builder, panel, builder.add(a_offset, intp(i)), vector_type)
                results.append(_multiply_add(builder, left, columns[j], total))
            return results

        return _emit_loop(builder, taps, 1, totals, over_taps)

    results = _emit_loop(builder, channels, 1, [first[i] for i, _ in tiles], over_channels)
    inside = [_lane_mask(builder, masks, builder.add(start, taps), vector_type) for start in mask_starts]
    for (i, j), result in zip(tiles, results, strict=True):
        _store_masked(builder, result, c, builder.add(builder.mul(ldc, intp(i)), intp(j * VL)), inside[j])


def _emit_masked_dot(
    builder, rows, columns, vector_type, images, vectors, a, a_step, a_image, b, b_image, offset, tap, masks, taps,
    sums, sums_step,
):  # fmt: skip
    """`masked_dot` for one tile: rows x columns vector sums."""
    intp, VL = taps.type, vector_type.count
    tiles = [(i, j) for j in range(columns) for i in range(rows)]
    places = [builder.add(builder.mul(sums_step, intp(i)), intp(j * VL)) for i, j in tiles]
    starts, column_taps = (
        [builder.load(builder.gep(each, [intp(j)])) for j in range(columns)] for each in (offset, tap)
    )
    a_starts = [builder.mul(a_step, intp(i)) for i in range(rows)]

    def over_images(image, totals):
        a_plane = builder.gep(a, [builder.mul(image, a_image)])
        b_plane = builder.gep(b, [builder.mul(image, b_image)])

        def over_vectors(vector, totals):
            pixel = builder.mul(vector, intp(VL))
            mask = builder.gep(masks, [builder.mul(vector, builder.add(taps, intp(1)))])
            inside = _lane_mask(builder, mask, taps, vector_type)
            left = [
                _load_masked(builder, a_plane, vector_type, builder.add(start, pixel), inside) for start in a_starts
            ]
            results = []
            for (i, j), total in zip(tiles, totals, strict=True):
                if i == 0:
                    lanes = _lane_mask(builder, mask, column_taps[j], vector_type)
                    right = _load_masked(builder, b_plane, vector_type, builder.add(starts[j], pixel), lanes)
                results.append(_multiply_add(builder, left[i], right, total))
            return results

        return _emit_loop(builder, vectors, 1, totals, over_vectors)

    start = [_load(builder, sums, vector_type, place) for place in places]
    for place, result in zip(places, _emit_loop(builder, images, 1, start, over_images), strict=True):
        _store(builder, result, sums, place)


@intrinsic
def _micro_code(typing_context, mr, columns, L, a, b, b_step, c, ldc, accumulate):
    def generate(context, builder, signature, arguments):
        mr, columns, *arguments = arguments
        vector_type = _vector_type(context, signature.args[3])
        two = builder.icmp_signed(">", columns, columns.type(vector_type.count))
        key = builder.add(builder.mul(mr, mr.type(2)), builder.zext(two, mr.type))
        cases = [
            (rows * 2 + vectors - 1, partial(_emit_micro, builder, rows, vectors, vector_type, *arguments))
            for rows in range(1, MR + 1)
            for vectors in (1, 2)
        ]
        _emit_switch(builder, key, cases)
        return context.get_dummy_value()

    return types.void(mr, columns, L, a, b, b_step, c, ldc, accumulate), generate


@intrinsic
def _direct_code(typing_context, mr, L, a, source, offset, bias, has_bias, tile):
    def generate(context, builder, signature, arguments):
        vector_type = _vector_type(context, signature.args[2])
        cases = [(rows, partial(_emit_direct, builder, rows, vector_type, *arguments[1:])) for rows in range(1, MR + 1)]
        _emit_switch(builder, arguments[0], cases)
        return context.get_dummy_value()

    return types.void(mr, L, a, source, offset, bias, has_bias, tile), generate


@intrinsic
def _masked_code(typing_context, mr, channels, taps, a, source, channel_step, offset, masks, bias, has_bias, c, ldc):
    def generate(context, builder, signature, arguments):
        vector_type = _vector_type(context, signature.args[3])
        cases = [(rows, partial(_emit_masked, builder, rows, vector_type, *arguments[1:])) for rows in range(1, MR + 1)]
        _emit_switch(builder, arguments[0], cases)
        return context.get_dummy_value()

    return types.void(mr, channels, taps, a, source, channel_step, offset, masks, bias, has_bias, c, ldc), generate


def _dot_tiles():
    """Tiles of dot products that have code: (rows, columns)."""
    for rows in range(1, DOT_ROWS + 1):
        for columns in range(1, (DOT_COLUMNS_OF_ONE_ROW if rows == 1 else DOT_COLUMNS) + 1):
            yield rows, columns


@intrinsic
def _dot_code(typing_context, rows, columns, n, a, a_step, b, offset, sums, sums_step):
    def generate(context, builder, signature, arguments):
        vector_type = _vector_type(context, signature.args[3])
        key = builder.add(builder.mul(arguments[0], arguments[0].type(16)), arguments[1])
        cases = [(r * 16 + c, partial(_emit_dot, builder, r, c, vector_type, *arguments[2:])) for r, c in _dot_tiles()]
        _emit_switch(builder, key, cases)
        return context.get_dummy_value()

    return types.void(rows, columns, n, a, a_step, b, offset, sums, sums_step), generate


@intrinsic
def _masked_dot_code(
    typing_context, rows, columns, images, vectors, a, a_step, a_image, b, b_image, offset, tap, masks, taps, sums,
    sums_step,
):  # fmt: skip
    def generate(context, builder, signature, arguments):
        vector_type = _vector_type(context, signature.args[4])
        key = builder.add(builder.mul(arguments[0], arguments[0].type(16)), arguments[1])
        cases = [
            (r * 16 + c, partial(_emit_masked_dot, builder, r, c, vector_type, *arguments[2:])) for r, c in _dot_tiles()
        ]
        _emit_switch(builder, key, cases)
        return context.get_dummy_value()

    return types.void(
        rows, columns, images, vectors, a, a_step, a_image, b, b_image, offset, tap, masks, taps, sums, sums_step
    ), generate


def _micro(mr, columns, L, a, b, b_step, c, ldc, accumulate):
    _micro_code(mr, columns, L, a, b, b_step, c, ldc, accumulate)


def _direct(mr, L, a, source, offset, bias, has_bias, tile):
    _direct_code(mr, L, a, source, offset, bias, has_bias, tile)


def _dot(rows, columns, n, a, a_step, b, offset, sums, sums_step):
    _dot_code(rows, columns, n, a, a_step, b, offset, sums, sums_step)


def _masked_tile(mr, channels, taps, a, source, channel_step, offset, masks, bias, has_bias, c, ldc):
    _masked_code(mr, channels, taps, a, source, channel_step, offset, masks, bias, has_bias, c, ldc)


def _masked_dot(
    rows, columns, images, vectors, a, a_step, a_image, b, b_image, offset, tap, masks, taps, sums, sums_step
):
    _masked_dot_code(
        rows, columns, images, vectors, a, a_step, a_image, b, b_image, offset, tap, masks, taps, sums, sums_step
    )


_alive: list = []  # the machine code behind the symbols


@cache
def _machine_code(function, *argument_types):
    """Name of a micro-kernel's machine code, compiled once per dtype: inlined, it would be so in every caller."""
    code = cfunc(types.void(*argument_types))(function)
    dtype = next(kind.dtype for kind in argument_types if isinstance(getattr(kind, "dtype", None), types.Float))
    symbol = f"fastcnn{function.__name__}_{dtype}"
    binding.add_symbol(symbol, code.address)
    _alive.append(code)
    return symbol


def _emit_call(context, builder, function, argument_types, arguments):
    """Call a micro-kernel; an array type takes two arguments, the array and the index to start at."""
    arguments, c_types, values = list(arguments), [], []
    for argument_type in argument_types:
        value = arguments.pop(0)
        if isinstance(argument_type, types.Array):
            value = _pointer(context, builder, argument_type, value, arguments.pop(0))
            argument_type = types.CPointer(argument_type.dtype)
        elif argument_type == types.boolean:
            value = builder.zext(value, ir.IntType(8))
        c_types.append(argument_type)
        values.append(value)
    declared = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [value.type for value in values]),
        _machine_code(function, *c_types),
    )
    builder.call(declared, values)
    return context.get_dummy_value()


@intrinsic
def micro(typing_context, mr, columns, L, a, a_start, b, b_start, b_step, c, c_start, ldc, accumulate):
    """C[mr, columns] at ``c[c_start:]`` = (C if `accumulate`) + A . B, rows of B `b_step` apart; ``L >= 1``.

    Columns behind the wanted ones come out too, up to a whole vector.
    """
    intp, boolean = types.intp, types.boolean

    def generate(context, builder, signature, arguments):
        return _emit_call(context, builder, _micro, (intp, intp, intp, a, b, intp, c, intp, boolean), arguments)

    return types.void(intp, intp, intp, a, intp, b, intp, intp, c, intp, intp, boolean), generate


@intrinsic
def direct(typing_context, mr, L, a, a_start, source, source_start, offset, offset_start, bias, bias_start, has_bias,
           tile, tile_start):  # fmt: skip
    """Tile[mr, vectors * VL] = bias + A . B where row l of B is read where it lies, at source + offset[l]."""
    intp, boolean = types.intp, types.boolean

    def generate(context, builder, signature, arguments):
        return _emit_call(context, builder, _direct, (intp, intp, a, source, offset, bias, boolean, tile), arguments)

    return types.void(intp, intp, a, intp, source, intp, offset, intp, bias, intp, boolean, tile, intp), generate


@intrinsic
def dot(typing_context, rows, columns, n, a, a_start, a_step, b, b_start, offset, offset_start, sums, sums_start,
        sums_step):  # fmt: skip
    """``sums[i, j] += a[i * a_step + pixel] . b[offset[j] + pixel]`` over n pixels, n a multiple of the lanes."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        return _emit_call(context, builder, _dot, (intp, intp, intp, a, intp, b, offset, sums, intp), arguments)

    return types.void(intp, intp, intp, a, intp, intp, b, intp, offset, intp, sums, intp, intp), generate


@intrinsic
def masked(typing_context, mr, channels, taps, a, a_start, source, source_start, channel_step, offset, offset_start,
           masks, masks_start, bias, bias_start, has_bias, c, c_start, ldc):  # fmt: skip
    """``c[mr, vectors * VL] = bias`` + sum over channels and taps of a source read where it lies (see micro_body.h)."""
    intp, boolean = types.intp, types.boolean

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, a, source, intp, offset, masks, bias, boolean, c, intp)
        return _emit_call(context, builder, _masked_tile, kinds, arguments)

    return types.void(
        intp, intp, intp, a, intp, source, intp, intp, offset, intp, masks, intp, bias, intp, boolean, c, intp, intp
    ), generate


@intrinsic
def masked_dot(typing_context, rows, columns, images, vectors, a, a_start, a_step, a_image, b, b_start, b_image, offset,
               offset_start, tap, tap_start, masks, masks_start, taps, sums, sums_start, sums_step):  # fmt: skip
    """``sums[i, j] += a[i] * b[j]``, lane by lane, over the vectors of several images (see micro_body.h)."""
    intp = types.intp

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, intp, intp, a, intp, intp, b, intp, offset, tap, masks, intp, sums, intp)
        return _emit_call(context, builder, _masked_dot, kinds, arguments)

    return types.void(
        intp, intp, intp, intp, a, intp, intp, intp, b, intp, intp, offset, intp, tap, intp, masks, intp, intp, sums,
        intp, intp,
    ), generate  # fmt: skip


@intrinsic
def add_lanes(typing_context, sums, sums_start, out, out_start, count):
    """``out[i]`` = sum of the lanes of vector i."""
    signature = types.void(sums, types.intp, out, types.intp, types.intp)

    def generate(context, builder, signature, arguments):
        sums, sums_start, out, out_start, count = arguments
        vector_type = _vector_type(context, signature.args[0])
        sums = _pointer(context, builder, signature.args[0], sums, sums_start)
        out = _pointer(context, builder, signature.args[2], out, out_start)
        with cgutils.for_range(builder, count) as loop:
            value = _load(builder, sums, vector_type, builder.mul(loop.index, count.type(vector_type.count)))
            builder.store(_lanes_sum(builder, value), builder.gep(out, [loop.index]))
        return context.get_dummy_value()

    return signature, generate


def _masked(builder, name, result, arguments):
    """Call ``llvm.masked.load`` or ``llvm.masked.store`` of a vector type, declared by name."""
    vector = arguments[-1].type if name == "load" else arguments[0].type
    suffix = "f64" if isinstance(vector.element, ir.DoubleType) else "f32"
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(result, [argument.type for argument in arguments]),
        f"llvm.masked.{name}.v{vector.count}{suffix}.p0",
    )
    return builder.call(function, arguments)


@intrinsic
def copy_run(typing_context, target, target_start, source, source_start, count):
    """Copy `count` elements: whole vectors, then a masked one, which a call of memcpy costs more than."""
    signature = types.void(target, types.intp, source, types.intp, types.intp)

    def generate(context, builder, signature, arguments):
        target, target_start, source, source_start, count = arguments
        vector_type = _vector_type(context, signature.args[0])
        VL, int32 = vector_type.count, ir.IntType(32)
        target = _pointer(context, builder, signature.args[0], target, target_start)
        source = _pointer(context, builder, signature.args[2], source, source_start)
        vectors = builder.sdiv(count, count.type(VL))
        with cgutils.for_range(builder, vectors) as loop:
            offset = builder.mul(loop.index, count.type(VL))
            _store(builder, _load(builder, source, vector_type, offset), target, offset)
        copied = builder.mul(vectors, count.type(VL))
        rest = builder.trunc(builder.sub(count, copied), int32)
        with builder.if_then(builder.icmp_signed(">", rest, rest.type(0))):
            mask = _first_lanes(builder, rest, vector_type)
            _store_masked(builder, _load_masked(builder, source, vector_type, copied, mask), target, copied, mask)
        return context.get_dummy_value()

    return signature, generate


def _first_lanes(builder, count, vector_type):
    """Mask of the first `count` lanes, of none if that is negative and of all if it is more than there are."""
    lanes = ir.Constant(ir.VectorType(count.type, vector_type.count), list(range(vector_type.count)))
    one = builder.insert_element(ir.Constant(lanes.type, ir.Undefined), count, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector_type.count), [0] * vector_type.count)
    return builder.icmp_signed("<", lanes, builder.shuffle_vector(one, one, zeros))


@intrinsic
def take_even(typing_context, target, target_start, source, source_start, count):
    """``target[target_start + j] = source[source_start + 2 * j]`` for j < count."""
    signature = types.void(target, types.intp, source, types.intp, types.intp)

    def generate(context, builder, signature, arguments):
        target, target_start, source, source_start, count = arguments
        vector_type, intp = _vector_type(context, signature.args[0]), count.type
        VL = vector_type.count
        target = _pointer(context, builder, signature.args[0], target, target_start)
        source = _pointer(context, builder, signature.args[2], source, source_start)
        even = ir.Constant(ir.VectorType(ir.IntType(32), VL), list(range(0, 2 * VL, 2)))
        int32 = ir.IntType(32)
        with cgutils.for_range(builder, builder.sdiv(builder.add(count, intp(VL - 1)), intp(VL))) as loop:
            done = builder.mul(loop.index, intp(VL))
            rest, start = builder.sub(count, done), builder.mul(done, intp(2))
            unread = builder.trunc(builder.sub(builder.mul(rest, intp(2)), intp(1)), int32)
            halves = [
                _load_masked(
                    builder, source, vector_type, builder.add(start, intp(first)),
                    _first_lanes(builder, builder.sub(unread, int32(first)), vector_type),
                )
                for first in (0, VL)
            ]  # fmt: skip
            mask = _first_lanes(builder, builder.trunc(rest, int32), vector_type)
            _store_masked(builder, builder.shuffle_vector(*halves, even), target, done, mask)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def split_vectors(typing_context, source, source_start, begin, end, target, even, odd, n):
    """`split_row` by vector shuffles."""
    intp = types.intp
    signature = types.void(source, intp, intp, intp, target, intp, intp, intp)

    def generate(context, builder, signature, arguments):
        source, source_start, begin, end, target, even, odd, n = arguments
        vector_type, intp, int32 = _vector_type(context, signature.args[0]), n.type, ir.IntType(32)
        VL = vector_type.count
        source = _pointer(context, builder, signature.args[0], source, source_start)
        targets = [_pointer(context, builder, signature.args[4], target, start) for start in (even, odd)]

        def first(count):
            return _first_lanes(builder, builder.trunc(count, int32), vector_type)

        with cgutils.for_range(builder, builder.sdiv(builder.add(n, intp(VL - 1)), intp(VL))) as loop:
            done = builder.mul(loop.index, intp(VL))
            halves = []
            for half in (0, VL):
                at = builder.add(builder.mul(done, intp(2)), intp(half))
                mask = builder.and_(first(builder.sub(end, at)), builder.not_(first(builder.sub(begin, at))))
                halves.append(_load_masked(builder, source, vector_type, at, mask))
            written = first(builder.sub(n, done))
            for remainder, pointer in enumerate(targets):
                lanes = ir.Constant(ir.VectorType(int32, VL), list(range(remainder, 2 * VL, 2)))
                _store_masked(builder, builder.shuffle_vector(*halves, lanes), pointer, done, written)
        return context.get_dummy_value()

    return signature, generate


@compiled
def split_row(source, source_start, begin, end, target, even, odd, n):
    """``target[even + j] = row[2 * j]`` and ``target[odd + j] = row[2 * j + 1]`` for j < n.

    ``row[i]`` is ``source[source_start + i]`` for begin <= i < end, else 0.
    """
    if VECTOR_BYTES == 64:
        split_vectors(source, source_start, begin, end, target, even, odd, n)
        return
    for j in range(n):
        target[even + j] = source[source_start + 2 * j] if begin <= 2 * j < end else 0
        target[odd + j] = source[source_start + 2 * j + 1] if begin <= 2 * j + 1 < end else 0


@intrinsic
def put_even(typing_context, target, target_start, source, source_start, count):
    """``target[target_start + 2 * j] = source[source_start + j]`` for j < count; what lies between stays."""
    signature = types.void(target, types.intp, source, types.intp, types.intp)

    def generate(context, builder, signature, arguments):
        target, target_start, source, source_start, count = arguments
        vector_type, intp = _vector_type(context, signature.args[0]), count.type
        VL, int32 = vector_type.count, ir.IntType(32)
        target = _pointer(context, builder, signature.args[0], target, target_start)
        source = _pointer(context, builder, signature.args[2], source, source_start)
        twice = ir.Constant(ir.VectorType(int32, VL), [j // 2 for j in range(VL)])
        evens = ir.Constant(ir.VectorType(ir.IntType(1), VL), [1 - j % 2 for j in range(VL)])
        half = intp(VL // 2)
        with cgutils.for_range(builder, builder.sdiv(builder.add(count, intp(VL // 2 - 1)), half)) as loop:
            done = builder.mul(loop.index, half)
            rest = builder.trunc(builder.sub(count, done), int32)
            lower = ir.Constant(ir.VectorType(ir.IntType(1), VL), [int(j < VL // 2) for j in range(VL)])
            mask = builder.and_(_first_lanes(builder, rest, vector_type), lower)
            value = _load_masked(builder, source, vector_type, done, mask)
            spread = builder.and_(_first_lanes(builder, builder.mul(rest, int32(2)), vector_type), evens)
            _store_masked(
                builder, builder.shuffle_vector(value, value, twice), target, builder.mul(done, intp(2)), spread
            )
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def pack_vector(
    typing_context, source, source_start, l_offset, l_start, L, runs, run_start, run_offset, run_count, first, packed,
    packed_start,
):  # fmt: skip
    """One vector of columns of `pack_runs`: a masked load of each run that it meets, put together in a register."""
    intp = types.intp
    signature = types.void(source, intp, l_offset, intp, intp, runs, intp, intp, intp, intp, packed, intp)

    def generate(context, builder, signature, arguments):
        source, source_start, l_offset, l_start, L, runs, run_start, run_offset, run_count, first, *target = arguments
        vector_type, intp, int32 = _vector_type(context, signature.args[0]), L.type, ir.IntType(32)
        VL = vector_type.count
        source = _pointer(context, builder, signature.args[0], source, source_start)
        l_offset = _pointer(context, builder, signature.args[2], l_offset, l_start)
        runs = _pointer(context, builder, signature.args[5], runs, intp(0))
        target = _pointer(context, builder, signature.args[10], *target)
        lanes = ir.VectorType(ir.IntType(1), VL)
        # Runs that meet this vector: `pieces` of them, each a base and a mask, in arrays on the stack.
        bases, masks = (cgutils.alloca_once(builder, kind, size=VL + 1) for kind in (intp, lanes))
        pieces = cgutils.alloca_once_value(builder, intp(0))
        last = builder.add(first, intp(VL))
        with cgutils.for_range(builder, run_count) as loop:
            index = builder.add(run_start, loop.index)
            begin, end = (builder.load(builder.gep(runs, [builder.add(index, intp(j))])) for j in (0, 1))
            meets = builder.and_(builder.icmp_signed("<", begin, last), builder.icmp_signed(">", end, first))
            with builder.if_then(meets):
                piece = builder.load(pieces)
                offset = builder.load(builder.gep(runs, [builder.add(run_offset, loop.index)]))
                builder.store(builder.add(offset, builder.sub(first, begin)), builder.gep(bases, [piece]))
                before, through = (
                    _first_lanes(builder, builder.trunc(builder.sub(edge, first), int32), vector_type)
                    for edge in (begin, end)
                )
                builder.store(builder.and_(through, builder.not_(before)), builder.gep(masks, [piece]))
                builder.store(builder.add(piece, intp(1)), pieces)
        pieces = builder.load(pieces)

        def rows(count):
            """The rows, for a number of pieces known here; None: for any."""
            known = range(0 if count is None else count)
            table = [
                (builder.load(builder.gep(bases, [intp(k)])), builder.load(builder.gep(masks, [intp(k)])))
                for k in known
            ]
            with cgutils.for_range(builder, L) as loop:
                row = builder.gep(source, [builder.load(builder.gep(l_offset, [loop.index]))])
                value = ir.Constant(vector_type, None)
                for base, mask in table:
                    value = _load_masked(builder, row, vector_type, base, mask, value)
                if count is None:
                    total = cgutils.alloca_once_value(builder, value)
                    builder.store(value, total)
                    with cgutils.for_range(builder, pieces) as inner:
                        base, mask = (builder.load(builder.gep(each, [inner.index])) for each in (bases, masks))
                        merged = _load_masked(builder, row, vector_type, base, mask, builder.load(total))
                        builder.store(merged, total)
                    value = builder.load(total)
                _store(builder, value, target, builder.mul(loop.index, intp(2 * VL)))

        few = [(count, partial(rows, count)) for count in range(4)]
        with builder.if_else(builder.icmp_signed("<", pieces, intp(len(few)))) as (then, otherwise):
            with then:
                _emit_switch(builder, pieces, few)
            with otherwise:
                rows(None)
        return context.get_dummy_value()

    return signature, generate


@compiled
def pack_runs(source, source_start, packed, packed_start, L, l_offset, l_start, run_count, runs, run_start, run_offset):
    """Pack one panel: row l is made of runs, contiguous at ``source[l_offset[l] + run_offset[run]:]``.

    Column ``run_start[run]`` is a run's first; ``run_start[run_count]`` closes the list, and zeros follow. The three
    are places in the table `runs`.
    """
    NR = panel_width(source)
    if VECTOR_BYTES == 64:
        for first in (0, NR // 2):
            pack_vector(
                source, source_start, l_offset, l_start, L, runs, run_start, run_offset, run_count, first, packed,
                packed_start + first,
            )  # fmt: skip
        return
    columns = runs[run_start + run_count]
    for l in range(L):
        row, target = source_start + l_offset[l_start + l], packed_start + l * NR
        for run in range(run_count):
            start = runs[run_start + run]
            length = runs[run_start + run + 1] - start
            copy_run(packed, target + start, source, row + runs[run_offset + run], length)
        zero_run(packed, target + columns, NR - columns)


@intrinsic
def transpose_vectors(
    typing_context, source, source_start, source_step, offset, offset_start, by_offset, rows, columns, target,
    target_start, target_step, width,
):  # fmt: skip
    """`transpose` of at most as many rows as a vector has lanes.

    In round s, rows i and i + s exchange the lanes whose bit s tells them apart.
    """
    intp = types.intp
    signature = types.void(source, intp, intp, offset, intp, types.boolean, intp, intp, target, intp, intp, intp)

    def generate(context, builder, signature, arguments):
        source, source_start, source_step, offset, offset_start, by_offset, rows, columns, *arguments = arguments
        target, target_start, target_step, width = arguments
        vector_type, intp, int32 = _vector_type(context, signature.args[0]), rows.type, ir.IntType(32)
        VL = vector_type.count
        source = _pointer(context, builder, signature.args[0], source, source_start)
        offset = _pointer(context, builder, signature.args[3], offset, offset_start)
        target = _pointer(context, builder, signature.args[8], target, target_start)
        none = ir.Constant(ir.VectorType(ir.IntType(1), VL), None)
        there = [builder.icmp_signed("<", intp(i), rows) for i in range(VL)]
        starts = []
        for i in range(VL):  # behind the rows the table may end: its first entry serves, under an empty mask
            entry = builder.select(builder.and_(there[i], by_offset), intp(i), intp(0))
            start = builder.load(builder.gep(offset, [entry]))
            starts.append(builder.select(by_offset, start, builder.mul(intp(i), source_step)))
        written = _first_lanes(builder, builder.trunc(width, int32), vector_type)
        with cgutils.for_range(builder, builder.sdiv(builder.add(columns, intp(VL - 1)), intp(VL))) as loop:
            done = builder.mul(loop.index, intp(VL))
            rest = builder.sub(columns, done)
            mask = _first_lanes(builder, builder.trunc(rest, int32), vector_type)
            v = [
                _load_masked(builder, source, vector_type, builder.add(start, done), builder.select(here, mask, none))
                for start, here in zip(starts, there, strict=True)
            ]
            step = 1
            while step < VL:
                low = [VL + j - step if j & step else j for j in range(VL)]
                high = [VL + j if j & step else j + step for j in range(VL)]
                for i in range(VL):
                    if not i & step:
                        pair = v[i], v[i + step]
                        v[i], v[i + step] = (
                            builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(int32, VL), lanes))
                            for lanes in (low, high)
                        )
                step *= 2
            places = [builder.mul(builder.add(done, intp(j)), target_step) for j in range(VL)]
            whole = builder.and_(builder.icmp_signed(">=", rest, intp(VL)), builder.icmp_signed(">=", width, intp(VL)))
            with builder.if_else(whole) as (then, otherwise):
                with then:
                    for value, place in zip(v, places, strict=True):
                        _store(builder, value, target, place)
                with otherwise:
                    for j, (value, place) in enumerate(zip(v, places, strict=True)):
                        with builder.if_then(builder.icmp_signed(">", rest, intp(j))):
                            _store_masked(builder, value, target, place, written)
        return context.get_dummy_value()

    return signature, generate


@compiled
def transpose(
    source, source_start, source_step, offset, offset_start, by_offset, rows, columns, target, target_start,
    target_step, width,
):  # fmt: skip
    """``target[j * target_step + i] = source[start(i) + j]`` for i < rows and j < columns, zeros for rows <= i < width.

    ``start(i)`` is ``offset[offset_start + i]`` if `by_offset`, else ``i * source_step``.
    """
    VL = panel_width(source) // 2
    if VECTOR_BYTES == 64:
        for i in range(0, width, VL):
            transpose_vectors(
                source, source_start + (0 if by_offset else i * source_step), source_step, offset,
                offset_start + (i if by_offset and i < rows else 0), by_offset, rows - i, columns, target,
                target_start + i, target_step, width - i,
            )  # fmt: skip
        return
    for block in range(0, columns, 64):  # a stretch of the target that stays in L1
        count = min(columns - block, 64)
        for i in range(width):
            start = target_start + block * target_step + i
            if i < rows:
                row = source_start + (offset[offset_start + i] if by_offset else i * source_step) + block
                copy_steps(target, start, target_step, source, row, 1, count)
            else:
                for j in range(count):
                    target[start + j * target_step] = 0


@compiled
def take_steps(target, target_start, source, source_start, step, count):
    """``target[target_start + j] = source[source_start + j * step]`` for j < count."""
    if step == 1:
        copy_run(target, target_start, source, source_start, count)
    elif step == 2 and VECTOR_BYTES == 64:  # below AVX-512 masks cost more than the loop
        take_even(target, target_start, source, source_start, count)
    else:
        copy_steps(target, target_start, 1, source, source_start, step, count)


@compiled
def put_steps(target, target_start, step, source, source_start, count):
    """``target[target_start + j * step] = source[source_start + j]`` for j < count."""
    if step == 1:
        copy_run(target, target_start, source, source_start, count)
    elif step == 2 and VECTOR_BYTES == 64:
        put_even(target, target_start, source, source_start, count)
    else:
        copy_steps(target, target_start, step, source, source_start, 1, count)


@intrinsic
def copy_steps(typing_context, target, target_start, target_step, source, source_start, source_step, count):
    """``target[target_start + j * target_step] = source[source_start + j * source_step]`` for j < count."""
    signature = types.void(target, types.intp, types.intp, source, types.intp, types.intp, types.intp)

    def generate(context, builder, signature, arguments):
        target, target_start, target_step, source, source_start, source_step, count = arguments
        target = _pointer(context, builder, signature.args[0], target, target_start)
        source = _pointer(context, builder, signature.args[3], source, source_start)
        with cgutils.for_range(builder, count) as loop:
            value = builder.load(builder.gep(source, [builder.mul(loop.index, source_step)]))
            builder.store(value, builder.gep(target, [builder.mul(loop.index, target_step)]))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def zero_run(typing_context, target, target_start, count):
    """Set `count` elements to zero."""
    signature = types.void(target, types.intp, types.intp)

    def generate(context, builder, signature, arguments):
        target, target_start, count = arguments
        itemsize = signature.args[0].dtype.bitwidth // 8
        pointer = _pointer(context, builder, signature.args[0], target, target_start)
        size = builder.mul(count, count.type(itemsize))
        with builder.if_then(
            builder.icmp_signed(">", count, count.type(0))
        ):  # a call of memset for nothing costs as well
            cgutils.memset(builder, builder.bitcast(pointer, ir.IntType(8).as_pointer()), size, 0)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def panel_width(typing_context, array):
    """NR of the array's dtype, a compile-time constant."""

    def generate(context, builder, signature, arguments):
        return context.get_constant(types.intp, 2 * _lanes(signature.args[0]))

    return types.intp(array), generate
