"""The micro-kernels of products_body.h for Numba, as LLVM vector instructions; picture and reasons are in micro.h.

    C[mr, NR] (+)= A[mr, L] . B[L, NR]        packed panels; mr x NR sums in registers

Numba's auto-vectoriser does not keep such a tile in registers, so `micro` writes the loop over L itself: for every row
count a block with 2 mr vector sums as phi nodes.
"""

from functools import partial

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastcnn_kernels.gemm.numba_llvm import (
    MOST_ROWS,
    MR,
    STEPS_AHEAD_A,
    STEPS_AHEAD_B,
    WIDE_ROWS,
    add_products,
    emit_call,
    emit_loop,
    emit_switch,
    first_lanes,
    load,
    load_lanes,
    prefetch_line,
    prefetch_vectors,
    store,
    store_sums,
    vector_type_of,
)

OUTER_ROWS, OUTER_VECTORS = 6, 4 if MR > 6 else 2


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
        prefetch_vectors(builder, b, b_ahead, VL, vectors)
        if packing is not None:  # rows where they lie begin anywhere in a line
            prefetch_line(builder, builder.gep(b, [builder.add(b_ahead, intp(vectors * VL - 1))]), 0)
            prefetch_vectors(builder, b, builder.add(b_offset, far), VL, vectors, locality=2)
        columns = [load(builder, b, vector_type, builder.add(b_offset, intp(j * VL))) for j in range(vectors)]
        if packing is not None:
            for j, column in enumerate(columns):
                store(builder, column, packed, builder.add(builder.mul(index, intp(vectors * VL)), intp(j * VL)))
        return add_products(builder, a, lambda i: builder.add(a_offset, intp(i)), columns, totals)

    zero = ir.Constant(vector_type, None)
    results = emit_loop(builder, L, 1, [zero] * len(tiles), body)
    store_sums(builder, results, c, offsets, accumulate)


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
                prefetch_vectors(builder, columns, builder.add(b_offset, intp(2 * VL)), VL, 2)
            row = [load(builder, columns, vector_type, builder.add(b_offset, intp(j * VL))) for j in range(2)]
            return add_products(builder, a, lambda i: builder.add(a_offset, intp(i)), row, totals)

        results = emit_loop(builder, L, 1, [ir.Constant(vector_type, None)] * len(tiles), body)
        store_sums(builder, results, target, [intp(number * VL) for number in range(len(tiles))], accumulate)
        return []

    emit_loop(builder, panels, 1, [], over_panels)


def _emit_outer(builder, vectors, columns, vector_type, L, a, row_step, a_step, b, b_step, c, ldc, accumulate):
    """`outer` for one number of vectors, which are whole if `columns` is None."""
    intp, VL = L.type, vector_type.count
    masks = [None] * vectors
    if columns is not None:
        lanes = builder.trunc(builder.sub(columns, intp((vectors - 1) * VL)), ir.IntType(32))
        masks[-1] = first_lanes(builder, lanes, vector_type)
    tiles = [(i, j) for i in range(OUTER_ROWS) for j in range(vectors)]
    starts = [builder.mul(row_step, intp(i)) for i in range(OUTER_ROWS)]
    # Down the columns of A no prefetcher follows; lines that share a set of L1 are as few as its ways hold.
    down = builder.icmp_signed("==", row_step, intp(1))
    ahead = builder.select(down, builder.mul(a_step, intp(STEPS_AHEAD_B)), intp(0))

    def body(index, totals):
        along, below = builder.mul(index, a_step), builder.mul(index, b_step)
        prefetch_line(builder, builder.gep(a, [builder.add(along, ahead)]), 0)
        row = [load_lanes(builder, b, vector_type, builder.add(below, intp(j * VL)), masks[j]) for j in range(vectors)]
        return add_products(builder, a, lambda i: builder.add(starts[i], along), row, totals)

    results = emit_loop(builder, L, 1, [ir.Constant(vector_type, None)] * len(tiles), body)
    offsets = [builder.add(builder.mul(ldc, intp(i)), intp(j * VL)) for i, j in tiles]
    store_sums(builder, results, c, offsets, accumulate, masks * OUTER_ROWS)


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


def _outer(columns, L, a, row_step, a_step, b, b_step, c, ldc, accumulate):
    _outer_code(columns, L, a, row_step, a_step, b, b_step, c, ldc, accumulate)


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
def outer(typing_context, columns, L, a, a_start, row_step, a_step, b, b_start, b_step, c, c_start, ldc, accumulate):
    """c[OUTER_ROWS, columns] (+)= a . b, neither of them packed: a[i * row_step + l * a_step], b[l * b_step + j].

    The columns are up to OUTER_VECTORS vectors, the last one of which need not be whole: fast with masks only.
    """
    intp, boolean = types.intp, types.boolean

    def generate(context, builder, signature, arguments):
        kinds = (intp, intp, a, intp, intp, b, intp, c, intp, boolean)
        return emit_call(context, builder, _outer, kinds, arguments)

    return types.void(intp, intp, a, intp, intp, intp, b, intp, intp, c, intp, intp, boolean), generate
