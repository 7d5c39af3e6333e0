"""The right answer to a kernel call, and the error that a theorem allows; for tests and benches."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastcnn_kernels import table


def oracle(op: str, arguments: dict[str, Any], dtype: Any, of: Callable = np.asarray) -> np.ndarray:
    """Compute an op by the NumPy row in `dtype`, with `of` applied to every array."""
    wide = {
        name: of(value.astype(dtype)) if isinstance(value, np.ndarray) else value for name, value in arguments.items()
    }
    table.kernels_of(op)[-1].load(**wide, num_threads=1)
    return wide["out"]


def error_bound(dtype: str, terms: int, magnitude: np.ndarray) -> np.ndarray:
    """Bound of the error of sums of products, in any order, with or without FMA: gamma_(n+1) M + n tiny.

    gamma_k = k u / (1 - k u) with u the unit roundoff ("Accuracy and Stability of Numerical Algorithms", section 3.1).
    The reference's own bound is added.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        Of the answer.
    terms : int
        Length n of the longest sum.
    magnitude : ndarray
        M, the op applied to absolute values, in the dtype of the reference.
    """
    units = [float(np.finfo(each).eps) / 2 for each in (dtype, magnitude.dtype)]
    gammas = [(terms + 1) * u / (1 - (terms + 1) * u) for u in units]
    return sum(gammas) * magnitude + terms * float(np.finfo(dtype).tiny)
