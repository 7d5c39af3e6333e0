"""LLVM vector instructions for Numba, the parts that the micro-kernels and copies are put together from.

Numba has no vector types: an `intrinsic` emits the code itself. An array argument and a start index stand for a C
pointer. Functions that compute are compiled once per dtype and called by address (`emit_call`).
"""

import platform
from functools import cache
from math import inf

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcnn_kernels.cpu import level
from fastcnn_kernels.numba_support import call_compiled

#: CPU level -> bytes of a vector, rows of the register tile (as in micro.h), fused multiply-add.
VECTOR_BYTES, MR, FMA = {
    "x86-64-v4": (64, 14, True),
    "x86-64-v3": (32, 6, True),
    "baseline": (16, 12, True) if platform.machine() in ("aarch64", "arm64") else (16, 6, False),
}[level()]

#: Bytes of a cache line.
LINE_BYTES = 64
#: Rows of the sum packed for one panel after the other, as in micro.h.
STREAMS = 16
#: Panels of B to ask ahead while they are packed, as in micro.h.
PANELS_AHEAD = 4
#: Steps of the sum to ask ahead, as in micro.h.
STEPS_AHEAD_A, STEPS_AHEAD_B = 16, 8
#: Rows of a tile of one vector: as many as it has floats, where they are more.
MOST_ROWS = max(MR, VECTOR_BYTES // 4)
#: Rows up to which a direct tile is four and three vectors wide, as in micro.h.
WIDE_ROWS, MIDDLE_ROWS = (6, 9) if MR > 6 else (2, 4)


def lanes_of(array_type):
    """Lanes of a vector of an array's dtype."""
    return VECTOR_BYTES * 8 // array_type.dtype.bitwidth


def vector_type_of(context, array_type):
    """LLVM type of a vector of an array's dtype."""
    return ir.VectorType(context.get_data_type(array_type.dtype), lanes_of(array_type))


def pointer_to(context, builder, array_type, array, start):
    """Pointer to element `start` of an array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [start])


def two_runs(context, builder, signature, arguments):
    """Vector type, pointers and count of an intrinsic of (array, start, array, start, count)."""
    first, first_start, second, second_start, count = arguments
    pointers = [
        pointer_to(context, builder, signature.args[number], array, start)
        for number, array, start in ((0, first, first_start), (2, second, second_start))
    ]
    return vector_type_of(context, signature.args[0]), *pointers, count


def load(builder, pointer, vector_type, offset):
    """Load the vector at an offset."""
    address = builder.bitcast(builder.gep(pointer, [offset]), vector_type.as_pointer())
    return builder.load(address, align=1)


def store(builder, value, pointer, offset):
    """Store a vector at an offset."""
    address = builder.bitcast(builder.gep(pointer, [offset]), value.type.as_pointer())
    builder.store(value, address, align=1)


def prefetch_line(builder, pointer, to_write, locality=3):
    """Ask for the cache line of a pointer: into L1, or into L2 if `locality` is 2."""
    int32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [byte, int32, int32, int32]), "llvm.prefetch.p0"
    )
    builder.call(function, [builder.bitcast(pointer, byte), int32(to_write), int32(locality), int32(1)])


def prefetch_vectors(builder, pointer, offset, VL, vectors, locality=3):
    """Ask for the lines of neighbouring vectors."""
    for j in range(0, vectors, LINE_BYTES // VECTOR_BYTES):
        prefetch_line(builder, builder.gep(pointer, [builder.add(offset, offset.type(j * VL))]), 0, locality)


def multiply_add(builder, x, y, total):
    """Return x * y + total, fused where the level has it."""
    if not FMA:
        return builder.fadd(builder.fmul(x, y), total)
    vector = x.type
    suffix = "f64" if isinstance(vector.element, ir.DoubleType) else "f32"
    name = f"llvm.fma.v{vector.count}{suffix}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    return builder.call(function, [x, y, total])


def broadcast_load(builder, pointer, index, vector_type):
    """Vector of one element of an array."""
    scalar = builder.load(builder.gep(pointer, [index]))
    one = builder.insert_element(ir.Constant(vector_type, ir.Undefined), scalar, ir.IntType(32)(0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector_type.count), [0] * vector_type.count)
    return builder.shuffle_vector(one, ir.Constant(vector_type, ir.Undefined), mask)


def add_products(builder, pointer, place, columns, totals):
    """Sums of rows by columns, plus the products of the row's element, at ``place(i)``, and the column.

    A row's broadcast comes just before its products: all at once, they would not fit registers.
    """
    results: list[ir.Value] = []
    for i in range(len(totals) // len(columns)):
        left = broadcast_load(builder, pointer, place(i), columns[0].type)
        for column in columns:
            results.append(multiply_add(builder, left, column, totals[len(results)]))
    return results


def shuffle(builder, x, y, lanes):
    """Vector of the given lanes of two, those of the second counted behind those of the first."""
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))


def clamped(builder, values, six):
    """Lanes less than 0 become 0, and if `six` those more than 6 become 6; NaN stays."""
    least, top, none = (ir.Constant(values.type, [value] * values.type.count) for value in (0.0, 6.0, inf))
    most = builder.select(six, top, none)
    values = builder.select(builder.fcmp_ordered("<", values, least), least, values)
    return builder.select(builder.fcmp_ordered(">", values, most), most, values)


def emit_switch(builder, key, cases):
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


def emit_loop(builder, count, step, start, body):
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


def emit_either(builder, condition, if_true, if_false):
    """Values that `if_true` returns where the condition holds, else those of `if_false`."""
    ways = []
    with builder.if_else(condition) as branches:
        for branch, emit in zip(branches, (if_true, if_false), strict=True):
            with branch:
                values = emit()
                ways.append((builder.block, values))
    merged = [builder.phi(value.type) for value in ways[0][1]]
    for block, values in ways:
        for phi, value in zip(merged, values, strict=True):
            phi.add_incoming(value, block)
    return merged


#: AVX-512's instruction that takes the lanes in any order, by the letter of a lane's type: s or d.
PERMUTE = "llvm.x86.avx512.permvar.{}f.512"


def turned(builder, value, places):
    """A vector of 64 bytes, its lanes moved up by `places` and the last ones to the front."""
    VL, int32 = value.type.count, ir.IntType(32)
    integer = ir.IntType(512 // VL)
    index = ir.VectorType(integer, VL)
    places = builder.trunc(places, integer) if integer.width < places.type.width else places
    moved = builder.insert_element(ir.Constant(index, ir.Undefined), places, int32(0))
    moved = builder.shuffle_vector(moved, moved, ir.Constant(ir.VectorType(int32, VL), [0] * VL))
    lanes = builder.sub(ir.Constant(index, list(range(VL))), moved)  # the instruction looks at their lowest bits
    permute = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(value.type, [value.type, index]), PERMUTE.format("sd"[integer.width > 32])
    )
    return builder.call(permute, [value, lanes])


def lanes_sum(builder, value):
    """Sum of the lanes, halves added to halves."""
    half = value.type.count
    while half > 1:
        half //= 2
        value = builder.fadd(*(shuffle(builder, value, value, range(first, first + half)) for first in (0, half)))
    return builder.extract_element(value, ir.IntType(32)(0))


def lanes_sums(builder, values):
    """Sums of the lanes of at most VL vectors, as `lanes_sum` has them, in the lanes of one vector."""
    half = values[0].type.count
    values = [*values, *[ir.Constant(values[0].type, None)] * (half - len(values))]
    while half > 1:
        half //= 2
        first = [j // half * 2 * half + j % half for j in range(values[0].type.count)]
        values = [
            builder.fadd(*(shuffle(builder, x, y, lanes) for lanes in (first, [lane + half for lane in first])))
            for x, y in zip(values[::2], values[1::2], strict=True)
        ]
    return values[0]


def lane_mask(builder, masks, index, vector_type):
    """Mask of a vector's lanes from the bits of ``masks[index]``."""
    VL = vector_type.count
    bits = builder.load(builder.gep(masks, [index]))
    if VL < 16:
        bits = builder.trunc(bits, ir.IntType(VL))
    return builder.bitcast(bits, ir.VectorType(ir.IntType(1), VL))


def load_masked(builder, pointer, vector_type, offset, mask, others=None):
    """Load the lanes in the mask; the others are zeros, or those of a vector."""
    address = builder.bitcast(builder.gep(pointer, [offset]), vector_type.as_pointer())
    others = ir.Constant(vector_type, None) if others is None else others
    return call_masked(builder, "load", vector_type, [address, ir.IntType(32)(1), mask, others])


def store_masked(builder, value, pointer, offset, mask):
    """Store the lanes in the mask."""
    address = builder.bitcast(builder.gep(pointer, [offset]), value.type.as_pointer())
    call_masked(builder, "store", ir.VoidType(), [value, address, ir.IntType(32)(1), mask])


def load_lanes(builder, pointer, vector_type, offset, mask):
    """Load a vector, or its lanes in the mask if that is not None."""
    if mask is None:
        return load(builder, pointer, vector_type, offset)
    return load_masked(builder, pointer, vector_type, offset, mask)


def store_lanes(builder, value, pointer, offset, mask):
    """Store a vector, or its lanes in the mask if that is not None."""
    if mask is None:
        store(builder, value, pointer, offset)
    else:
        store_masked(builder, value, pointer, offset, mask)


def store_sums(builder, sums, target, offsets, accumulate, masks=None):
    """Store vectors of sums, or their lanes in the masks, added to what is there if `accumulate`."""
    places = list(zip(sums, offsets, masks or [None] * len(sums), strict=True))
    with builder.if_else(accumulate) as (add, overwrite):
        with add:
            for value, offset, mask in places:
                total = builder.fadd(load_lanes(builder, target, value.type, offset, mask), value)
                store_lanes(builder, total, target, offset, mask)
        with overwrite:
            for value, offset, mask in places:
                store_lanes(builder, value, target, offset, mask)


def store_compressed(builder, value, pointer, offset, mask):
    """Store the lanes in the mask side by side, and return how many they are."""
    count = builder.zext(builder.ctpop(builder.bitcast(mask, ir.IntType(value.type.count))), ir.IntType(32))
    if VECTOR_BYTES < 64:
        address = builder.bitcast(builder.gep(pointer, [offset]), value.type.as_pointer())
        call_masked(builder, "compressstore", ir.VoidType(), [value, address, mask])
        return count
    # LLVM would compress on the way to memory, which some CPUs do lane by lane.
    suffix = f"v{value.type.count}{'f64' if isinstance(value.type.element, ir.DoubleType) else 'f32'}"
    compress = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(value.type, [value.type, value.type, mask.type]), f"{COMPRESS}.{suffix}"
    )
    compressed = builder.call(compress, [value, ir.Constant(value.type, None), mask])
    store_masked(builder, compressed, pointer, offset, first_lanes(builder, count, value.type))
    return count


#: LLVM's name of AVX-512's instruction that moves the lanes in a mask to the front.
COMPRESS = "llvm.x86.avx512.mask.compress"


@cache
def _dispatcher(function):
    """What compiles a micro-kernel for calls from compiled code only, and keeps its machine code alive."""
    return njit(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def emit_call(context, builder, function, argument_types, arguments):
    """Call a micro-kernel; an array type takes two arguments, the array and the index to start at."""
    arguments, plain_types, values = list(arguments), [], []
    for argument_type in argument_types:
        value = arguments.pop(0)
        if isinstance(argument_type, types.Array):
            value = pointer_to(context, builder, argument_type, value, arguments.pop(0))
            argument_type = types.CPointer(argument_type.dtype)
        plain_types.append(argument_type)
        values.append(value)
    return call_compiled(context, builder, _dispatcher(function), tuple(plain_types), values)


def call_masked(builder, name, result, arguments):
    """Call ``llvm.masked.load``, ``store`` or ``compressstore`` of a vector type, declared by name."""
    vector = arguments[-1].type if name == "load" else arguments[0].type
    suffix = "f64" if isinstance(vector.element, ir.DoubleType) else "f32"
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(result, [argument.type for argument in arguments]),
        f"llvm.masked.{name}.v{vector.count}{suffix}.p0",
    )
    return builder.call(function, arguments)


def first_lanes(builder, count, vector_type):
    """Mask of the first `count` lanes, of none if that is negative and of all if it is more than there are."""
    lanes = ir.Constant(ir.VectorType(count.type, vector_type.count), list(range(vector_type.count)))
    one = builder.insert_element(ir.Constant(lanes.type, ir.Undefined), count, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector_type.count), [0] * vector_type.count)
    return builder.icmp_signed("<", lanes, builder.shuffle_vector(one, one, zeros))


@intrinsic
def panel_width(typing_context, array):
    """NR of the array's dtype, a compile-time constant."""

    def generate(context, builder, signature, arguments):
        return context.get_constant(types.intp, 2 * lanes_of(signature.args[0]))

    return types.intp(array), generate
