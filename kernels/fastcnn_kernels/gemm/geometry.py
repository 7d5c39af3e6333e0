"""Sizes and offsets of a matrix product, from shapes alone, shared by the twins."""

from typing import NamedTuple

import numpy as np

from fastcnn_kernels.gemm import blocking
from fastcnn_kernels.memory import planned

#: Columns of the widest tile of dot products (as in micro.h).
DOT_COLUMNS_OF_ONE_ROW = 12


class Plan(NamedTuple):
    """One product of packed operands."""

    table: np.ndarray  # Z, ZA, ZB, M, N, L; steps of the rows of A and of the columns of B; rows of a panel of A
    blocks: np.ndarray  # `blocking.matrix_blocks`
    along_a: np.ndarray  # (L,) of the elements of a row of A
    along_b: np.ndarray  # (L,) of the elements of a column of B


@planned
def plan(a_shape, b_shape, out_shape, transpose_a, transpose_b, MR, NR, itemsize, num_threads):
    """Arrange a call for register tiles of up to MR x NR."""
    (Z, M, N), L = out_shape, a_shape[1 if transpose_a else 2]
    mr = blocking.even(M, MR)
    table = Z, a_shape[0], b_shape[0], M, N, L, 1 if transpose_a else L, L if transpose_b else 1, mr
    return Plan(
        np.array(table, np.intp),
        blocking.matrix_blocks(Z, a_shape[0], b_shape[0], M, N, L, mr, NR, itemsize, num_threads),
        along(L, M if transpose_a else 1),
        along(L, 1 if transpose_b else N),
    )


@planned
def along(L, step):
    """Offsets (L,) of the elements of a sum that lie `step` apart."""
    return np.arange(L, dtype=np.intp) * step


def filled_panel_rows(M, MR, overhead):
    """Rows of panels of up to MR rows: those of least cost, as a panel costs its rows, empty ones too, and `overhead`.

    Winograd's products leave empty rows out, but such panels are more often an even number of them, which two share.
    """
    return min(range(min(M, MR), 0, -1), key=lambda rows: -(-M // rows) * (rows + overhead))
