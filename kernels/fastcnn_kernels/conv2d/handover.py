"""Non-finite values beside padding: the one thing that the products over padded images get wrong."""

import functools
from collections.abc import Callable
from typing import Any

from fastcnn_kernels.conv2d import numpy_


def to_numpy_row(kernel: Callable[..., bool]) -> Callable[..., None]:
    """Run the NumPy row of the same name, which clips every tap to the image, if `kernel` returns False.

    The zeros of the padding take part in the sums; they are wrong only where they meet NaN or Inf. A kernel looks for
    these in the weights, or in the weight gradient it has computed.
    """
    clipping = getattr(numpy_, kernel.__name__)

    @functools.wraps(kernel)
    def run(**call: Any) -> None:
        if not kernel(**call):
            clipping(**call)

    return run
