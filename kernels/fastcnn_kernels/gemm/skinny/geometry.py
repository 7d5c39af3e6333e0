"""Which matrix is the large one, and how it lies; from shapes alone, shared by the twins."""

from typing import NamedTuple

import numpy as np

from fastcnn_kernels.gemm.geometry import DOT_COLUMNS_OF_ONE_ROW, along
from fastcnn_kernels.gemm.skinny import blocking
from fastcnn_kernels.memory import planned


class Plan(NamedTuple):
    """One product ``out[i, j] = few[i] . many[j]``, i of few, j of many."""

    swapped: bool  # few is b, many is a
    turned: bool  # few are several rows and lie transposed: to be copied, (1 or Z, F, L)
    form: str  # "dots", "outer": the rows of `many` run along the sum, (1 or Z, K, L); "stream": (1 or Z, L, K)
    table: np.ndarray  # Z, F, K, L, steps: few and many per z, out and bias per i and j; columns of one row of
    #                    dots at most, 1 if panels of a stream begin at whole vectors
    offset: np.ndarray  # of neighbouring rows of `many`, for dots


def _forms(M, N, L, transpose_a, transpose_b):
    """Ways to see the product: (whether it pays, few is b, form), the better one first."""
    if transpose_b:
        yield blocking.outer_pays(M, N, L), False, "outer"
        yield blocking.dots_pay(M, L), False, "dots"
    if not transpose_a:
        yield blocking.outer_pays(N, M, L), True, "outer"
        yield blocking.dots_pay(N, L), True, "dots"
    if not transpose_b:
        yield blocking.stream_pays(M, N), False, "stream"


@planned
def plan(a_shape, b_shape, out_shape, transpose_a, transpose_b, itemsize, form=None):
    """Arrange a call in the best form, or as "dots" or "stream", which take any sizes; few are then the fewer rows."""
    (Z, M, N), L = out_shape, a_shape[1 if transpose_a else 2]
    forms = list(_forms(M, N, L, transpose_a, transpose_b))
    if form is None:
        _, swapped, form = next((form for form in forms if form[0]), forms[-1])
    else:
        swapped = min((swapped for _, swapped, known in forms if known == form), key=(M, N).__getitem__)
    (ZF, ZK), (F, K) = (b_shape[0], a_shape[0])[:: 1 if swapped else -1], (N, M) if swapped else (M, N)
    table = (
        Z, F, K, L, F * L if ZF > 1 else 0, K * L if ZK > 1 else 0,
        *((1, N) if swapped else (N, 1)), *((1, 0) if swapped else (0, 1)),
        blocking.columns_of_one_row(ZK * K, L, itemsize), blocking.begins_at_vectors(F, K),
    )  # fmt: skip
    offset = along(DOT_COLUMNS_OF_ONE_ROW, L)
    turned = F > 1 and (not transpose_b if swapped else transpose_a)
    return Plan(swapped, turned, form, np.array(table, np.intp), offset)


def refuses(*, a, out, transpose_a, transpose_b, **_):
    """Decline products in which neither operand is few rows against a matrix that can be read in order."""
    (M, N), L = out.shape[1:], a.shape[1 if transpose_a else 2]
    if any(pays for pays, *_ in _forms(M, N, L, transpose_a, transpose_b)):
        return ""
    return f"{M} x {N} results of {L} products: packing both operands pays"
