"""Every row of the table on real layers: its answer inside the theorem's bound, then its time in the layer's group."""

from typing import Any

import pytest

import fastcnn as fc
from bench import answers
from fastcnn_kernels import cpu


@pytest.fixture(scope="module")
def problem_of():
    """Problem of a case and dtype; the last one is kept, because the rows of a case come one after the other."""
    last: list[Any] = []

    def problem_of(case, dtype):
        if not last or last[0] != (case, dtype):
            last[:] = (case, dtype), answers.problem(case, dtype)
        return last[1]

    return problem_of


def test_row(benchmark, problem_of, case, dtype, kernel):
    problem, num_threads = problem_of(case, dtype), fc.get_num_threads()
    problem.check(kernel, num_threads)

    benchmark.group = f"{case.op} {case.name} {dtype}"
    benchmark(kernel.load, **problem.arguments, num_threads=num_threads)

    nbytes = case.nbytes(problem.arguments["out"].itemsize)
    benchmark.extra_info.update(
        backend=kernel.backend, threads=num_threads, cpu_level=cpu.level(), flops=case.flops, bytes=nbytes
    )
    if benchmark.enabled:
        benchmark.extra_info["GFLOP/s"] = round(case.flops / benchmark.stats.stats.min / 1e9, 2)
