"""The micro-kernel of micro.h for Numba, as LLVM vector instructions; picture and reasons are there.

    C[mr, NR] (+)= A[mr, L] . B[L, NR]        packed panels; mr x NR sums in registers

Numba has no vector types, and its auto-vectoriser does not keep such a tile in registers, so `micro` writes the loop
over L itself: for every row count a block with 2 mr vector sums as phi nodes. An array argument and a start index
stand for a C pointer.
"""

import platform
from functools import cache

from llvmlite import binding, ir
from numba import cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcnn_kernels.cpu import level

#: CPU level -> bytes of a vector, rows of the register tile (as in micro.h), fused multiply-add.
VECTOR_BYTES, MR, FMA = {
    "x86-64-v4": (64, 14, True),
    "x86-64-v3": (32, 6, True),
    "baseline": (16, 12, True) if platform.machine() in ("aarch64", "arm64") else (16, 6, False),
}[level()]


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


def _multiply_add(builder, x, y, total):
    """Return x * y + total, fused where the level has it."""
    if not FMA:
        return builder.fadd(builder.fmul(x, y), total)
    vector = x.type
    suffix = "f64" if isinstance(vector.element, ir.DoubleType) else "f32"
    name = f"llvm.fma.v{vector.count}{suffix}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    return builder.call(function, [x, y, total])


def _broadcast(builder, scalar, vector_type):
    one = builder.insert_element(ir.Constant(vector_type, ir.Undefined), scalar, ir.IntType(32)(0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector_type.count), [0] * vector_type.count)
    return builder.shuffle_vector(one, ir.Constant(vector_type, ir.Undefined), mask)


def _emit_rows(builder, rows, vector_type, L, a, b, c, ldc, accumulate):
    """The loop of one row count: 2 * rows vector sums."""
    intp = L.type
    VL = vector_type.count
    tiles = [(i, j) for i in range(rows) for j in range(2)]
    offsets = [builder.add(builder.mul(intp(i), ldc), intp(j * VL)) for i, j in tiles]
    zero = ir.Constant(vector_type, None)
    start = [builder.select(accumulate, _load(builder, c, vector_type, offset), zero) for offset in offsets]

    before = builder.block
    loop = builder.append_basic_block(f"rows{rows}.loop")
    after = builder.append_basic_block(f"rows{rows}.store")
    builder.branch(loop)

    builder.position_at_end(loop)
    index = builder.phi(intp)
    sums = [builder.phi(vector_type) for _ in tiles]
    a_offset, b_offset = builder.mul(index, intp(rows)), builder.mul(index, intp(2 * VL))
    columns = [_load(builder, b, vector_type, builder.add(b_offset, intp(j * VL))) for j in range(2)]
    totals = []
    for (i, j), total in zip(tiles, sums, strict=True):
        if j == 0:
            row = _broadcast(builder, builder.load(builder.gep(a, [builder.add(a_offset, intp(i))])), vector_type)
        totals.append(_multiply_add(builder, row, columns[j], total))
    following = builder.add(index, intp(1))
    builder.cbranch(builder.icmp_signed("<", following, L), loop, after)
    index.add_incoming(intp(0), before)
    index.add_incoming(following, loop)
    for total, first, result in zip(sums, start, totals, strict=True):
        total.add_incoming(first, before)
        total.add_incoming(result, loop)

    builder.position_at_end(after)
    for offset, result in zip(offsets, totals, strict=True):
        _store(builder, result, c, offset)


@intrinsic
def _micro_loops(typing_context, mr, L, a, b, c, ldc, accumulate):
    """The whole micro-kernel on pointers: a switch over the row count."""

    def generate(context, builder, signature, arguments):
        mr, L, a, b, c, ldc, accumulate = arguments
        end = builder.append_basic_block("micro.end")
        switch = builder.switch(mr, end)
        for rows in range(1, MR + 1):
            block = builder.append_basic_block(f"rows{rows}")
            switch.add_case(mr.type(rows), block)
            builder.position_at_end(block)
            _emit_rows(builder, rows, _vector_type(context, signature.args[2]), L, a, b, c, ldc, accumulate)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(mr, L, a, b, c, ldc, accumulate), generate


@cache
def _compiled_micro(dtype):
    """Name of the micro-kernel's machine code, compiled once per dtype: inlined, it would be so in every caller."""
    pointer = types.CPointer(dtype)
    signature = types.void(types.intp, types.intp, pointer, pointer, pointer, types.intp, types.boolean)

    def micro_loops(mr, L, a, b, c, ldc, accumulate):
        _micro_loops(mr, L, a, b, c, ldc, accumulate)

    function = cfunc(signature)(micro_loops)
    symbol = f"fastcnn_micro_{dtype}"
    binding.add_symbol(symbol, function.address)
    _alive.append(function)
    return symbol


_alive: list = []  # the machine code behind the symbols


@intrinsic
def micro(typing_context, mr, L, a, a_start, b, b_start, c, c_start, ldc, accumulate):
    """C[mr, NR] at ``c[c_start:]`` = (C if `accumulate`) + A . B; ``L >= 1``."""
    intp = types.intp
    signature = types.void(intp, intp, a, intp, b, intp, c, intp, intp, types.boolean)

    def generate(context, builder, signature, arguments):
        mr, L, a, a_start, b, b_start, c, c_start, ldc, accumulate = arguments
        array_type = signature.args[2]
        pointers = [
            _pointer(context, builder, array_type, array, start)
            for array, start in ((a, a_start), (b, b_start), (c, c_start))
        ]
        values = [mr, L, *pointers, ldc, builder.zext(accumulate, ir.IntType(8))]
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [value.type for value in values]),
            _compiled_micro(array_type.dtype),
        )
        builder.call(function, values)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def copy_panel_row(typing_context, target, target_start, source, source_start):
    """Copy NR elements, all of them whatever the piece's length: the next piece overwrites the excess."""
    signature = types.void(target, types.intp, source, types.intp)

    def generate(context, builder, signature, arguments):
        target, target_start, source, source_start = arguments
        array_type = signature.args[0]
        vector_type = _vector_type(context, array_type)
        source = _pointer(context, builder, signature.args[2], source, source_start)
        target = _pointer(context, builder, array_type, target, target_start)
        offsets = [source_start.type(j * vector_type.count) for j in range(2)]
        values = [_load(builder, source, vector_type, offset) for offset in offsets]
        for value, offset in zip(values, offsets, strict=True):
            _store(builder, value, target, offset)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def panel_width(typing_context, array):
    """NR of the array's dtype, a compile-time constant."""

    def generate(context, builder, signature, arguments):
        return context.get_constant(types.intp, 2 * _lanes(signature.args[0]))

    return types.intp(array), generate
