"""Sizes and offsets of a matrix product, from shapes alone, shared by the twins."""

import numpy as np

from fastcnn_kernels.memory import planned


@planned
def along(L, step):
    """Offsets (L,) of the elements of a sum that lie `step` apart."""
    return np.arange(L, dtype=np.intp) * step


def packed_rows(M, MR):
    """Rows of all panels of A, as the twins' ``panel_rows`` sizes them for a register tile of MR rows."""
    rows = min(range(min(M, MR), 0, -1), key=lambda rows: -(-M // rows) * (rows + 1))
    return -(-M // rows) * rows
