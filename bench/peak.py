"""What the machine can do: multiply-adds from registers, and bytes through a copy of memory."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from fastcnn_kernels import cpu

#: Independent sums: more than latency (4 cycles) x units (2) asks for, and fewer than the registers of every level.
SUMS = 12
#: Bytes of a vector register.
WIDTH = {"baseline": 16, "x86-64-v3": 32, "x86-64-v4": 64}
STEPS = 4_000_000
COPY_BYTES = 1 << 27


def peaks(dtype: str, threads: int) -> dict[str, float]:
    """Both: ``flops`` and ``bytes`` per second."""
    return {"flops": peak_flops(dtype, threads), "bytes": copy_bandwidth(threads)}


def peak_flops(dtype: str, threads: int) -> float:
    """Multiplications and additions a second, by SUMS chains of vector multiply-adds on each thread."""
    lanes = WIDTH[cpu.level()] // np.dtype(dtype).itemsize
    function = fma_chains(lanes, ir.FloatType() if dtype == "float32" else ir.DoubleType())
    function(1)
    return 2 * SUMS * lanes * STEPS * threads / least_seconds(lambda _: function(STEPS), threads)


def copy_bandwidth(threads: int) -> float:
    """Bytes read and written a second by a copy that is larger than the caches."""
    source, target = np.ones(COPY_BYTES, np.uint8), np.ones(COPY_BYTES, np.uint8)
    parts = [slice(k * COPY_BYTES // threads, (k + 1) * COPY_BYTES // threads) for k in range(threads)]
    return 2 * COPY_BYTES / least_seconds(lambda k: np.copyto(target[parts[k]], source[parts[k]]), threads)


def least_seconds(work: Callable[[int], Any], threads: int, rounds: int = 15) -> float:
    """Least time in which every thread has done its share."""
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            begin = time.perf_counter()
            list(pool.map(work, range(threads)))
            best = min(best, time.perf_counter() - begin)
    return best


def fma_chains(lanes: int, element: ir.Type) -> Callable[[int], float]:
    """Compile ``sum = sum * c + c``, `steps` times, on SUMS vectors."""
    vector = ir.VectorType(element, lanes)
    suffix = f"v{lanes}f{32 if isinstance(element, ir.FloatType) else 64}"

    @intrinsic
    def chains(typing, steps):
        def codegen(context, builder, signature, args):
            name, kind = f"llvm.fma.{suffix}", ir.FunctionType(vector, [vector] * 3)
            fma = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            factor = ir.Constant(vector, [0.5] * lanes)
            before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            step = builder.phi(args[0].type)
            sums = [builder.phi(vector) for _ in range(SUMS)]
            following = builder.add(step, ir.Constant(step.type, 1))
            step.add_incoming(ir.Constant(step.type, 0), before)
            step.add_incoming(following, loop)
            totals = []
            for lane, value in enumerate(sums):
                totals.append(builder.call(fma, [value, factor, factor]))
                value.add_incoming(ir.Constant(vector, [float(lane)] * lanes), before)
                value.add_incoming(totals[-1], loop)
            builder.cbranch(builder.icmp_signed("<", following, args[0]), loop, after)
            builder.position_at_end(after)
            total = totals[0]
            for value in totals[1:]:
                total = builder.fadd(total, value)
            first = builder.extract_element(total, ir.Constant(ir.IntType(32), 0))
            return first if isinstance(element, ir.DoubleType) else builder.fpext(first, ir.DoubleType())

        return types.float64(types.int64), codegen

    return njit(nogil=True)(lambda steps: chains(steps))
