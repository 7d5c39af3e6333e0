"""Checks of what a model is built from; a model file carries the same values."""

import numpy as np
from numpy.typing import DTypeLike

from fastcnn.checks import integer, message

WIDEST = 4096  # keeps a damaged file or a typing error from asking for gigabytes


def model_config(hidden: int, dtype: DTypeLike) -> dict[str, int | str]:
    """Return ``{"hidden": ..., "dtype": ...}`` as stored in a model file.

    Raises
    ------
    TypeError, ValueError
        If `hidden` is not an integer from 1 to 4096, or `dtype` is neither float32 nor float64.
    """
    if integer(hidden, "hidden", 1) > WIDEST:
        raise ValueError(message("hidden", hidden, f"at most {WIDEST}"))
    if dtype not in (np.float32, np.float64, "float32", "float64"):
        raise ValueError(message("dtype", repr(dtype), "float32 or float64"))
    return {"hidden": int(hidden), "dtype": np.dtype(dtype).name}
