"""Weights packed once, for calls that use them many times."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.arrays import array
from fastcnn.checks import message
from fastcnn_kernels.prepacked import PackedWeight


class Conv2dWeight(PackedWeight):
    """Weights that `fastcnn.conv2d` packs once; made by `fastcnn.prepack_conv2d`.

    Attributes
    ----------
    shape : (K, C/groups, R, S)
    dtype : dtype
    """

    def __init__(self, weight: np.ndarray):
        super().__init__(weight)
        self.shape, self.dtype = weight.shape, weight.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and of their packed copies so far."""
        return self.plain.nbytes + sum(getattr(order, "nbytes", 0) for order in self.packed.orders.values())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the plain weights, read-only."""
        return np.array(self.plain, dtype=dtype) if copy else np.asarray(self.plain, dtype=dtype)

    def __repr__(self) -> str:
        """Shape, dtype and bytes."""
        return f"Conv2dWeight(shape={self.shape}, dtype={self.dtype}, nbytes={self.nbytes})"


def prepack_conv2d(weight: ArrayLike) -> Conv2dWeight:
    """Return weights that `conv2d` takes in place of an array and packs only once.

    Each kernel reads them in an order of its own: the first call that needs one packs it. What packing saves is most
    where a call has few pixels: batches of one, late layers.

    Parameters
    ----------
    weight : array_like of shape (K, C/groups, R, S), float32 or float64
        Copied: later changes of it are not seen.

    Returns
    -------
    Conv2dWeight
        Also anything else that takes an array takes it, as plain weights.

    Raises
    ------
    TypeError
        If `weight` is not float32 or float64.
    ValueError
        If it has not four dimensions, each of at least 1.
    """
    plain = np.array(array(weight, "weight"), order="C")
    if plain.ndim != 4 or 0 in plain.shape:
        raise ValueError(message("weight", f"shape {plain.shape}", "(K, C/groups, R, S), each at least 1"))
    plain.flags.writeable = False
    return Conv2dWeight(plain)
