"""Kaiming initialisation: weights whose variance keeps the activations' scale through a ReLU layer.

Source: "Delving Deep into Rectifiers", 2015 (arXiv 1502.01852), equation 10: var(w) = 2 / fan_in.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from fastcnn.checks import float_dtype

#: A layer's source of randomness: a seed, a generator shared by several layers, or None (fresh entropy).
Rng = int | np.random.Generator | None


def kaiming_uniform(shape: Sequence[int], fan_in: int, rng: Rng = None, dtype: DTypeLike = np.float32):
    """Draw from the uniform distribution on [-b, b) with b = sqrt(6 / fan_in).

    Parameters
    ----------
    shape : sequence of int
    fan_in : int
        Number of inputs that one output sums over.
    rng : int, numpy.random.Generator or None
        Seed or generator.
    dtype : float32 or float64
        Drawn in float64 and rounded, so that a seed means the same weights in both.

    Returns
    -------
    ndarray of `shape` and `dtype`

    Raises
    ------
    TypeError
        If `dtype` is another one.
    """
    bound = math.sqrt(6 / fan_in)
    return np.random.default_rng(rng).uniform(-bound, bound, tuple(shape)).astype(float_dtype(dtype))


def kaiming_normal(shape: Sequence[int], fan_in: int, rng: Rng = None, dtype: DTypeLike = np.float32):
    """Draw from the normal distribution with standard deviation sqrt(2 / fan_in); see `kaiming_uniform`."""
    return np.random.default_rng(rng).normal(0, math.sqrt(2 / fan_in), tuple(shape)).astype(float_dtype(dtype))
