"""Which matrix is the large one, and how it lies; from shapes alone, shared by the twins."""

from typing import NamedTuple

import numpy as np

from fastcnn_kernels.gemm.geometry import along
from fastcnn_kernels.gemm.skinny import blocking
from fastcnn_kernels.memory import planned

#: Columns of the widest tile of dot products.
TILE_COLUMNS = 12


class Plan(NamedTuple):
    """One product ``out[i, j] = few[i] . many[j]``, i of few, j of many."""

    swapped: bool  # few is b, many is a
    dots: bool  # the rows of `many` run along the sum: (1 or Z, K, L); else (1 or Z, L, K)
    table: np.ndarray  # Z, F, K, L, steps of few and many per z, of out per i and j, of bias per i and j
    offset: np.ndarray  # dots: of neighbouring rows of `many`; else (L,) 0, 1, ..


def _forms(M, N, transpose_a, transpose_b):
    """Ways to see the product: (rows of few, limit, few is b, dots), the better one first."""
    if transpose_b:
        yield M, blocking.FEW_ROWS_OF_DOTS, False, True
    if not transpose_a:
        yield N, blocking.FEW_ROWS_OF_DOTS, True, True
    if not transpose_b:
        yield M, blocking.FEW_ROWS_OF_STREAM, False, False


def _form(M, N, transpose_a, transpose_b):
    """Return (few is b, dots) of the first way in which few are few, or None."""
    for rows, limit, *form in _forms(M, N, transpose_a, transpose_b):
        if rows <= limit:
            return form
    return None


@planned
def plan(a_shape, b_shape, out_shape, transpose_a, transpose_b):
    """Arrange a call."""
    (Z, M, N), L = out_shape, a_shape[1 if transpose_a else 2]
    form = _form(M, N, transpose_a, transpose_b) or next(_forms(M, N, transpose_a, transpose_b))[2:]
    swapped, dots = form
    (ZF, ZK), (F, K) = (b_shape[0], a_shape[0])[:: 1 if swapped else -1], (N, M) if swapped else (M, N)
    table = (
        Z, F, K, L, F * L if ZF > 1 else 0, K * L if ZK > 1 else 0,
        *((1, N) if swapped else (N, 1)), *((1, 0) if swapped else (0, 1)),
    )  # fmt: skip
    offset = np.arange(TILE_COLUMNS, dtype=np.intp) * L if dots else along(L, 1)
    return Plan(swapped, dots, np.array(table, np.intp), offset)


def operands(plan, a, b, transpose_a, transpose_b):
    """Return few, (1 or Z, F, L) and C-contiguous, and many, as it lies."""
    few, turned = (b, not transpose_b) if plan.swapped else (a, transpose_a)
    return np.ascontiguousarray(few.swapaxes(1, 2)) if turned else few, a if plan.swapped else b


def refuses(*, out, transpose_a, transpose_b, **_):
    """Decline products in which neither operand is few rows against a matrix that can be read in order."""
    M, N = out.shape[1:]
    return "" if _form(M, N, transpose_a, transpose_b) else f"{M} x {N} results: packing both operands pays"
