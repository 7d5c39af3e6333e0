"""The twins stay twins: same functions, same order, same arguments."""

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from fastcnn_kernels import table

#: Those of the table, and copies that some of them share.
COPIES = "fastcnn_kernels.conv2d.winograd.remainders"
FAMILIES = sorted({COPIES, *(kernel.module.rpartition(".")[0] for kernel in table.KERNELS)})
#: Files beside the twins whose functions other families use, too.
SHARED = {
    "fastcnn_kernels.gemm": ("panels.pxd", "numba_panels.py"),
    "fastcnn_kernels.gemm.small": ("rows.pxd", "numba_rows.py"),
    "fastcnn_kernels.conv2d": ("epilogue.pxd", "numba_epilogue.py"),
}


def functions(path):
    """Names of the functions a source file defines, in order."""
    return re.findall(r"^(?:def|cdef [\w ]+?[ *])\s*(\w+)\(", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("family", FAMILIES)
def test_same_functions_in_the_same_order(family):
    folder = Path(import_module(family).__file__).parent
    numba, cython = functions(folder / "numba_.py"), functions(folder / "cython_.pyx")
    # in micro.pxd and micro.h on the Cython side
    shared_from_micro = {
        "store_tile", "lane_sum", "add_chunks", "find_nonfinite", "has_nonfinite", "whole_lines", "find_segments",
    }  # fmt: skip
    assert [name for name in numba if name not in shared_from_micro] == cython
    if family in SHARED:
        shared, twins = (functions(folder / file) for file in SHARED[family])
        assert shared == twins != []
        cython += shared
    assert len(cython) > 3


@pytest.mark.parametrize("op", sorted({kernel.op for kernel in table.KERNELS}))
def test_every_row_of_an_op_has_the_same_arguments(op):
    *compiled, oracle = table.kernels_of(op)
    expected = list(inspect.signature(oracle.load).parameters)
    for kernel in compiled:
        source = Path(import_module(kernel.module.rpartition(".")[0]).__file__).parent
        text = (source / ("cython_.pyx" if kernel.backend == "cython" else "numba_.py")).read_text()
        header = re.search(
            rf"^def {kernel.function}\((?:\s*m, /,)?\s*\*,\s*(.*?),?\s*\):", text, re.MULTILINE | re.DOTALL
        ).group(1)
        names = [re.sub(r" not None$", "", part.strip()).split()[-1] for part in re.split(r",(?![^\[]*\])", header)]
        assert names == expected, kernel.name


def test_plans_count_the_rows_of_panels_as_kernels_do():
    from fastcnn_kernels.gemm import blocking, numba_panels

    for M in range(1, 400):
        assert blocking.even(M, numba_panels.MR) == numba_panels.panel_rows(M)


def test_sizes_of_tiles_are_those_that_plans_count_on():
    from fastcnn_kernels.gemm import geometry, numba_dots, numba_micro
    from fastcnn_kernels.gemm.small import blocking

    assert geometry.DOT_COLUMNS_OF_ONE_ROW == numba_dots.DOT_COLUMNS_OF_ONE_ROW
    assert blocking.FEWEST_ROWS == numba_micro.OUTER_ROWS


def test_a_backend_names_every_module_it_needs():
    modules = {kernel.module for kernel in table.KERNELS if kernel.backend == "cython"}
    assert modules | {f"{COPIES}.cython_"} == set(table.BACKENDS["cython"])
