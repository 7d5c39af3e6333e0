"""A LeNet-like network for small digits: convolutions and max pooling, then two dense layers.

After "Gradient-based learning applied to document recognition", Proceedings of the IEEE, 1998, with ReLU, max
pooling and 3 x 3 filters.
"""

import numpy as np
from numpy.typing import DTypeLike

from fastcnn.models.config import model_config
from fastcnn.nn import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential
from fastcnn.nn.init import Rng


class LeNet(Sequential):
    """Images (N, 1, 8, 8) to scores (N, 10).

    Parameters
    ----------
    hidden : int
        Width of the first dense layer, from 1 to 4096.
    dtype : float32 or float64
    rng : int, numpy.random.Generator or None

    Raises
    ------
    ValueError
        If `hidden` is out of range or `dtype` is another one.
    """

    def __init__(self, hidden: int = 64, *, dtype: DTypeLike = np.float32, rng: Rng = None):
        config = model_config(hidden, dtype)
        rng = np.random.default_rng(rng)
        super().__init__(
            Conv2d(1, 16, 3, padding=1, dtype=dtype, rng=rng),
            ReLU(),
            Conv2d(16, 32, 3, padding=1, dtype=dtype, rng=rng),
            ReLU(),
            MaxPool2d(2),
            Conv2d(32, 64, 3, padding=1, dtype=dtype, rng=rng),
            ReLU(),
            MaxPool2d(2),
            Flatten(),
            Linear(64 * 2 * 2, hidden, dtype=dtype, rng=rng),
            ReLU(),
            Linear(hidden, 10, dtype=dtype, rng=rng),
        )
        self.config = config
        self.input_shape = (1, 8, 8)
