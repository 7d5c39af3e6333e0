"""Options of ``pytest bench``."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--all-layers", action="store_true", help="every headline layer, not the quick selection")


def pytest_generate_tests(metafunc):
    """Every row x dtype x case, case by case."""
    from bench.selection import bench_cases, rows_of

    if {"case", "kernel", "dtype"} <= set(metafunc.fixturenames):
        cases = bench_cases(metafunc.config.getoption("--all-layers", default=False))
        params = [
            pytest.param(case, dtype, kernel, id=f"{case.name}-{kernel.name}-{dtype}")
            for case in cases
            for dtype in ("float32", "float64")
            for kernel in rows_of(case, dtype)
        ]
        metafunc.parametrize(("case", "dtype", "kernel"), params)
