"""Copies for Numba, as LLVM vector instructions: runs, steps and panels; as in copies_body.h.

A loop over array elements keeps the wraparound of negative indices, and is not vectorised.
"""

from functools import partial

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcnn_kernels.gemm.numba_llvm import (
    VECTOR_BYTES,
    clamped,
    emit_switch,
    first_lanes,
    lane_mask,
    load,
    load_masked,
    panel_width,
    pointer_to,
    prefetch_line,
    shuffle,
    store,
    store_compressed,
    store_masked,
    two_runs,
    vector_type_of,
)
from fastcnn_kernels.numba_support import compiled


@intrinsic
def copy_run(typing_context, target, target_start, source, source_start, count):
    """Copy `count` elements: whole vectors, then a masked one, which a call of memcpy costs more than."""
    signature = types.void(target, types.intp, source, types.intp, types.intp)

    def generate(context, builder, signature, arguments):
        vector_type, target, source, count = two_runs(context, builder, signature, arguments)
        VL, int32 = vector_type.count, ir.IntType(32)
        vectors = builder.sdiv(count, count.type(VL))
        with cgutils.for_range(builder, vectors) as loop:
            offset = builder.mul(loop.index, count.type(VL))
            store(builder, load(builder, source, vector_type, offset), target, offset)
        copied = builder.mul(vectors, count.type(VL))
        rest = builder.trunc(builder.sub(count, copied), int32)
        with builder.if_then(builder.icmp_signed(">", rest, rest.type(0))):
            mask = first_lanes(builder, rest, vector_type)
            store_masked(builder, load_masked(builder, source, vector_type, copied, mask), target, copied, mask)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def clamp_run(typing_context, x, start, count, six):
    """`clamped`, of `count` elements."""

    def generate(context, builder, signature, arguments):
        x, start, count, six = arguments
        vector_type = vector_type_of(context, signature.args[0])
        pointer = pointer_to(context, builder, signature.args[0], x, start)
        VL, intp = vector_type.count, count.type
        vectors = builder.sdiv(count, intp(VL))
        with cgutils.for_range(builder, vectors) as loop:
            offset = builder.mul(loop.index, intp(VL))
            store(builder, clamped(builder, load(builder, pointer, vector_type, offset), six), pointer, offset)
        done = builder.mul(vectors, intp(VL))
        rest = builder.sub(count, done)
        with builder.if_then(builder.icmp_signed(">", rest, intp(0))):
            mask = first_lanes(builder, builder.trunc(rest, ir.IntType(32)), vector_type)
            values = load_masked(builder, pointer, vector_type, done, mask)
            store_masked(builder, clamped(builder, values, six), pointer, done, mask)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, types.boolean), generate


@intrinsic
def keep_lanes(
    typing_context, target, target_start, source, source_start, vectors, masks, masks_start, mask_step
):  # fmt: skip
    """Copy the lanes of neighbouring vectors that are in their masks, `mask_step` apart, one after the other."""
    integers = types.intp, types.intp
    signature = types.void(target, types.intp, source, *integers, masks, *integers)

    def generate(context, builder, signature, arguments):
        vector_type, target, source, vectors = two_runs(context, builder, signature, arguments[:5])
        masks, mask_step = pointer_to(context, builder, signature.args[5], *arguments[5:7]), arguments[7]
        position = cgutils.alloca_once_value(builder, vectors.type(0))
        with cgutils.for_range(builder, vectors) as loop:
            mask = lane_mask(builder, masks, builder.mul(loop.index, mask_step), vector_type)
            value = load(builder, source, vector_type, builder.mul(loop.index, vectors.type(vector_type.count)))
            done = builder.load(position)
            kept = store_compressed(builder, value, target, done, mask)
            builder.store(builder.add(done, builder.zext(kept, done.type)), position)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_vectors(typing_context, target, target_start, source, source_start, count):
    """Add `count` elements, a multiple of a vector's lanes, to others."""
    signature = types.void(target, types.intp, source, types.intp, types.intp)

    def generate(context, builder, signature, arguments):
        vector_type, target, source, count = two_runs(context, builder, signature, arguments)
        lanes = count.type(vector_type.count)
        with cgutils.for_range(builder, builder.sdiv(count, lanes)) as loop:
            offset = builder.mul(loop.index, lanes)
            total, addend = (load(builder, pointer, vector_type, offset) for pointer in (target, source))
            store(builder, builder.fadd(total, addend), target, offset)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def prefetch_far(typing_context, array, index):
    """Ask for the cache line of an element, into L2."""

    def generate(context, builder, signature, arguments):
        prefetch_line(builder, pointer_to(context, builder, signature.args[0], *arguments), 0, locality=2)
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def take_even(typing_context, target, target_start, source, source_start, count):
    """``target[target_start + j] = source[source_start + 2 * j]`` for j < count."""
    signature = types.void(target, types.intp, source, types.intp, types.intp)

    def generate(context, builder, signature, arguments):
        vector_type, target, source, count = two_runs(context, builder, signature, arguments)
        VL, intp = vector_type.count, count.type
        int32 = ir.IntType(32)
        with cgutils.for_range(builder, builder.sdiv(builder.add(count, intp(VL - 1)), intp(VL))) as loop:
            done = builder.mul(loop.index, intp(VL))
            rest, start = builder.sub(count, done), builder.mul(done, intp(2))
            unread = builder.trunc(builder.sub(builder.mul(rest, intp(2)), intp(1)), int32)
            halves = [
                load_masked(
                    builder, source, vector_type, builder.add(start, intp(first)),
                    first_lanes(builder, builder.sub(unread, int32(first)), vector_type),
                )
                for first in (0, VL)
            ]  # fmt: skip
            mask = first_lanes(builder, builder.trunc(rest, int32), vector_type)
            store_masked(builder, shuffle(builder, halves[0], halves[1], range(0, 2 * VL, 2)), target, done, mask)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def split_vectors(typing_context, source, source_start, begin, end, target, even, odd, n):
    """`split_row` by vector shuffles."""
    intp = types.intp
    signature = types.void(source, intp, intp, intp, target, intp, intp, intp)

    def generate(context, builder, signature, arguments):
        source, source_start, begin, end, target, even, odd, n = arguments
        vector_type, intp, int32 = vector_type_of(context, signature.args[0]), n.type, ir.IntType(32)
        VL = vector_type.count
        source = pointer_to(context, builder, signature.args[0], source, source_start)
        targets = [pointer_to(context, builder, signature.args[4], target, start) for start in (even, odd)]

        def first(count):
            return first_lanes(builder, builder.trunc(count, int32), vector_type)

        with cgutils.for_range(builder, builder.sdiv(builder.add(n, intp(VL - 1)), intp(VL))) as loop:
            done = builder.mul(loop.index, intp(VL))
            halves = []
            for half in (0, VL):
                at = builder.add(builder.mul(done, intp(2)), intp(half))
                mask = builder.and_(first(builder.sub(end, at)), builder.not_(first(builder.sub(begin, at))))
                halves.append(load_masked(builder, source, vector_type, at, mask))
            written = first(builder.sub(n, done))
            for remainder, pointer in enumerate(targets):
                lanes = range(remainder, 2 * VL, 2)
                store_masked(builder, shuffle(builder, halves[0], halves[1], lanes), pointer, done, written)
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
        vector_type, target, source, count = two_runs(context, builder, signature, arguments)
        VL, intp, int32 = vector_type.count, count.type, ir.IntType(32)
        twice = [j // 2 for j in range(VL)]
        evens = ir.Constant(ir.VectorType(ir.IntType(1), VL), [1 - j % 2 for j in range(VL)])
        half = intp(VL // 2)
        with cgutils.for_range(builder, builder.sdiv(builder.add(count, intp(VL // 2 - 1)), half)) as loop:
            done = builder.mul(loop.index, half)
            rest = builder.trunc(builder.sub(count, done), int32)
            lower = ir.Constant(ir.VectorType(ir.IntType(1), VL), [int(j < VL // 2) for j in range(VL)])
            mask = builder.and_(first_lanes(builder, rest, vector_type), lower)
            value = load_masked(builder, source, vector_type, done, mask)
            spread = builder.and_(first_lanes(builder, builder.mul(rest, int32(2)), vector_type), evens)
            store_masked(builder, shuffle(builder, value, value, twice), target, builder.mul(done, intp(2)), spread)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def pack_vector(
    typing_context, source, source_start, l_offset, l_start, L, ahead, runs, run_start, run_offset, run_count, first,
    packed, packed_start,
):  # fmt: skip
    """One vector of columns of `pack_runs`: a masked load of each run that it meets, put together in a register."""
    intp = types.intp
    signature = types.void(source, intp, l_offset, intp, intp, intp, runs, intp, intp, intp, intp, packed, intp)

    def generate(context, builder, signature, arguments):
        source, source_start, l_offset, l_start, L, ahead, runs, *places, packed, packed_start = arguments
        run_start, run_offset, run_count, first = places
        vector_type, intp, int32 = vector_type_of(context, signature.args[0]), L.type, ir.IntType(32)
        VL = vector_type.count
        source = pointer_to(context, builder, signature.args[0], source, source_start)
        l_offset = pointer_to(context, builder, signature.args[2], l_offset, l_start)
        runs = pointer_to(context, builder, signature.args[6], runs, intp(0))
        target = pointer_to(context, builder, signature.args[11], packed, packed_start)
        lanes = ir.VectorType(ir.IntType(1), VL)
        # Runs that meet this vector: `pieces` of them, each a base and a mask, in arrays on the stack.
        bases, masks = (cgutils.alloca_once(builder, kind, size=VL + 1) for kind in (intp, lanes))
        builder.store(intp(0), builder.gep(bases, [intp(0)]))
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
                    first_lanes(builder, builder.trunc(builder.sub(edge, first), int32), vector_type)
                    for edge in (begin, end)
                )
                builder.store(builder.and_(through, builder.not_(before)), builder.gep(masks, [piece]))
                builder.store(builder.add(piece, intp(1)), pieces)
        pieces = builder.load(pieces)
        nearest = builder.load(builder.gep(bases, [intp(0)]))

        def rows(count):
            """The rows, for a number of pieces known here; None: for any."""
            known = range(0 if count is None else count)
            table = [
                (builder.load(builder.gep(bases, [intp(k)])), builder.load(builder.gep(masks, [intp(k)])))
                for k in known
            ]
            with cgutils.for_range(builder, L) as loop:
                row, later = (
                    builder.gep(source, [builder.load(builder.gep(l_offset, [index]))])
                    for index in (loop.index, builder.add(loop.index, ahead))
                )
                prefetch_line(builder, builder.gep(later, [nearest]), 0, locality=2)
                value = ir.Constant(vector_type, None)
                for base, mask in table:
                    value = load_masked(builder, row, vector_type, base, mask, value)
                if count is None:
                    total = cgutils.alloca_once_value(builder, value)
                    builder.store(value, total)
                    with cgutils.for_range(builder, pieces) as inner:
                        base, mask = (builder.load(builder.gep(each, [inner.index])) for each in (bases, masks))
                        merged = load_masked(builder, row, vector_type, base, mask, builder.load(total))
                        builder.store(merged, total)
                    value = builder.load(total)
                store(builder, value, target, builder.mul(loop.index, intp(2 * VL)))

        few = [(count, partial(rows, count)) for count in range(4)]
        with builder.if_else(builder.icmp_signed("<", pieces, intp(len(few)))) as (then, otherwise):
            with then:
                emit_switch(builder, pieces, few)
            with otherwise:
                rows(None)
        return context.get_dummy_value()

    return signature, generate


@compiled
def pack_runs(
    source, source_start, packed, packed_start, L, l_offset, l_start, ahead, run_count, runs, run_start, run_offset
):
    """Pack one panel: row l is made of runs, contiguous at ``source[l_offset[l] + run_offset[run]:]``.

    Column ``run_start[run]`` is a run's first; ``run_start[run_count]`` closes the list, and zeros follow. The three
    are places in the table `runs`. The row `ahead` rows later is asked for.
    """
    NR = panel_width(source)
    if VECTOR_BYTES == 64:
        for first in (0, NR // 2):
            pack_vector(
                source, source_start, l_offset, l_start, L, ahead, runs, run_start, run_offset, run_count, first,
                packed, packed_start + first,
            )  # fmt: skip
        return
    columns = runs[run_start + run_count]
    for l in range(L):
        row, target = source_start + l_offset[l_start + l], packed_start + l * NR
        later = source_start + l_offset[l_start + l + ahead]
        for run in range(run_count):
            start = runs[run_start + run]
            length = runs[run_start + run + 1] - start
            prefetch_far(source, later + runs[run_offset + run])
            copy_run(packed, target + start, source, row + runs[run_offset + run], length)
        zero_run(packed, target + columns, NR - columns)


@compiled
def steps_to(distance, step):
    """Steps that reach a distance, none if it is negative; the most frequent ones without dividing."""
    if distance <= 0 or step == 1:
        return max(0, distance)
    return (distance + 1) // 2 if step == 2 else (distance + step - 1) // step


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
        target = pointer_to(context, builder, signature.args[0], target, target_start)
        source = pointer_to(context, builder, signature.args[3], source, source_start)
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
        pointer = pointer_to(context, builder, signature.args[0], target, target_start)
        size = builder.mul(count, count.type(itemsize))
        with builder.if_then(
            builder.icmp_signed(">", count, count.type(0))
        ):  # a call of memset for nothing costs as well
            cgutils.memset(builder, builder.bitcast(pointer, ir.IntType(8).as_pointer()), size, 0)
        return context.get_dummy_value()

    return signature, generate
