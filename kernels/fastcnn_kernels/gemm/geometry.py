"""Offsets of a matrix product's elements along the sum, from shapes alone, shared by the twins."""

import numpy as np

from fastcnn_kernels.memory import planned


@planned
def along(L, step):
    """Offsets (L,) of the elements of a sum that lie `step` apart."""
    return np.arange(L, dtype=np.intp) * step
