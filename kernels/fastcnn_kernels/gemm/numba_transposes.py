"""Transposes for Numba, as LLVM vector instructions; as in copies_body.h."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcnn_kernels.gemm.numba_copies import copy_steps
from fastcnn_kernels.gemm.numba_llvm import (
    VECTOR_BYTES,
    first_lanes,
    load,
    load_masked,
    panel_width,
    pointer_to,
    prefetch_line,
    shuffle,
    store,
    store_masked,
    vector_type_of,
)
from fastcnn_kernels.numba_support import compiled


@intrinsic
def transpose_part(
    typing_context, source, source_start, source_step, rows, columns, target, target_start, target_step, width
):
    """`transpose` of at most as many rows as a vector has lanes.

    In round s, rows i and i + s exchange the lanes whose bit s tells them apart.
    """
    intp = types.intp
    signature = types.void(source, intp, intp, intp, intp, target, intp, intp, intp)

    def generate(context, builder, signature, arguments):
        source, source_start, source_step, rows, columns, target, target_start, target_step, width = arguments
        vector_type, intp, int32 = vector_type_of(context, signature.args[0]), rows.type, ir.IntType(32)
        VL = vector_type.count
        source = pointer_to(context, builder, signature.args[0], source, source_start)
        target = pointer_to(context, builder, signature.args[5], target, target_start)
        none = ir.Constant(ir.VectorType(ir.IntType(1), VL), None)
        there = [builder.icmp_signed("<", intp(i), rows) for i in range(VL)]
        starts = [builder.mul(intp(i), source_step) for i in range(VL)]
        written = first_lanes(builder, builder.trunc(width, int32), vector_type)
        with cgutils.for_range(builder, builder.sdiv(builder.add(columns, intp(VL - 1)), intp(VL))) as loop:
            done = builder.mul(loop.index, intp(VL))
            rest = builder.sub(columns, done)
            mask = first_lanes(builder, builder.trunc(rest, int32), vector_type)
            v = [
                load_masked(builder, source, vector_type, builder.add(start, done), builder.select(here, mask, none))
                for start, here in zip(starts, there, strict=True)
            ]
            step = 1
            while step < VL:
                low = [VL + j - step if j & step else j for j in range(VL)]
                high = [VL + j if j & step else j + step for j in range(VL)]
                for i in range(VL):
                    if not i & step:
                        pair = v[i], v[i + step]
                        v[i], v[i + step] = (shuffle(builder, *pair, lanes) for lanes in (low, high))
                step *= 2
            places = [builder.mul(builder.add(done, intp(j)), target_step) for j in range(VL)]
            whole = builder.and_(builder.icmp_signed(">=", rest, intp(VL)), builder.icmp_signed(">=", width, intp(VL)))
            with builder.if_else(whole) as (then, otherwise):
                with then:
                    for value, place in zip(v, places, strict=True):
                        store(builder, value, target, place)
                with otherwise:
                    for j, (value, place) in enumerate(zip(v, places, strict=True)):
                        with builder.if_then(builder.icmp_signed(">", rest, intp(j))):
                            store_masked(builder, value, target, place, written)
        return context.get_dummy_value()

    return signature, generate


def interleave(builder, x, y, width):
    """Low and high halves of every 16 bytes of two vectors, `width` elements from each in turn."""
    VL = x.type.count
    B = VL // 4
    for half in (0, B // 2):
        places = [j // B * B + half + j % B // (2 * width) * width + j % width for j in range(VL)]
        yield shuffle(builder, x, y, [place + j // width % 2 * VL for j, place in enumerate(places)])


@intrinsic
def transpose_whole(
    typing_context, far, source, source_start, source_step, columns, target, target_start, target_step
):  # fmt: skip
    """`transpose` of as many rows as a vector has lanes, and at least as many columns as 16 bytes hold.

    A vector takes those of four rows that lie far apart, brought together by loads, which leaves half of the exchanges:
    those inside 16 bytes. The last columns may be done twice. `far`: the rows behind these are asked for, a quarter of
    them with each 16 bytes.
    """
    intp = types.intp
    signature = types.void(far, source, intp, intp, intp, target, intp, intp)

    def generate(context, builder, signature, arguments):
        far, source, source_start, source_step, columns, target, target_start, target_step = arguments
        vector_type, intp = vector_type_of(context, signature.args[1]), columns.type
        VL, B = vector_type.count, vector_type.count // 4
        source = pointer_to(context, builder, signature.args[1], source, source_start)
        target = pointer_to(context, builder, signature.args[5], target, target_start)
        starts = [builder.mul(intp(i), source_step) for i in range(VL)]
        last = builder.sub(columns, intp(B))
        with cgutils.for_range(builder, builder.sdiv(builder.add(columns, intp(B - 1)), intp(B))) as loop:
            done = builder.mul(loop.index, intp(B))
            first = builder.select(builder.icmp_signed("<", done, last), done, last)
            with builder.if_then(far):
                quarter = builder.mul(builder.and_(loop.index, intp(3)), intp(VL // 4))
                behind = builder.add(first, builder.mul(builder.add(quarter, intp(VL)), source_step))
                for start in starts[: VL // 4]:
                    prefetch_line(builder, builder.gep(source, [builder.add(behind, start)]), 0, locality=2)
            pieces = [
                load(builder, source, ir.VectorType(vector_type.element, B), builder.add(start, first))
                for start in starts
            ]
            v = []
            for k in range(B):
                low, high = (shuffle(builder, pieces[i], pieces[i + B], range(2 * B)) for i in (k, k + 2 * B))
                v.append(shuffle(builder, low, high, range(4 * B)))
            v = [each for k in range(0, B, 2) for each in interleave(builder, v[k], v[k + 1], 1)]
            if B == 4:
                v = [*interleave(builder, v[0], v[2], 2), *interleave(builder, v[1], v[3], 2)]
            for j, value in enumerate(v):
                store(builder, value, target, builder.mul(builder.add(first, intp(j)), target_step))
        return context.get_dummy_value()

    return signature, generate


@compiled
def transpose_rows(far, source, source_start, source_step, rows, columns, target, target_start, target_step, width):
    """`transpose`, or `transpose_far`."""
    VL = panel_width(source) // 2
    if VECTOR_BYTES == 64:
        for i in range(0, width, VL):
            if rows - i >= VL and columns >= VL // 4:
                transpose_whole(
                    far, source, source_start + i * source_step, source_step, columns, target, target_start + i,
                    target_step,
                )  # fmt: skip
            else:
                transpose_part(
                    source, source_start + i * source_step, source_step, rows - i, columns, target, target_start + i,
                    target_step, width - i,
                )  # fmt: skip
        return
    for block in range(0, columns, 64):  # a stretch of the target that stays in L1
        count = min(columns - block, 64)
        for i in range(width):
            start = target_start + block * target_step + i
            if i < rows:
                copy_steps(target, start, target_step, source, source_start + i * source_step + block, 1, count)
            else:
                for j in range(count):
                    target[start + j * target_step] = 0


@compiled
def transpose(source, source_start, source_step, rows, columns, target, target_start, target_step, width):
    """``target[j * target_step + i] = source[i * source_step + j]`` for i < rows and j < columns, zeros up to width."""
    transpose_rows(
        False, source, source_start, source_step, rows, columns, target, target_start, target_step, width
    )  # fmt: skip


@compiled
def transpose_far(source, source_start, source_step, rows, columns, target, target_start, target_step, width):
    """`transpose` of rows from beyond L2, of which there are more behind."""
    transpose_rows(
        True, source, source_start, source_step, rows, columns, target, target_start, target_step, width
    )  # fmt: skip
