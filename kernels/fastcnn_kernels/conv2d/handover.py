"""Non-finite values: the one thing that some kernels get wrong, and hand over to a kernel that does not.

The zeros of a padded copy take part in its sums, which is wrong where they meet NaN or Inf; a tile of Winograd's
algorithm is spoilt by one such value. A kernel that finds one returns False.
"""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from fastcnn_kernels.conv2d import numpy_


def handing_over_to(module: ModuleType) -> Callable[[Callable[..., bool]], Callable[..., None]]:
    """Decorate a kernel: run the one of the same name in `module` if it returns False."""

    def decorate(kernel: Callable[..., bool]) -> Callable[..., None]:
        other = getattr(module, kernel.__name__)

        @functools.wraps(kernel)
        def run(*tile: int, **call: Any) -> None:
            if not kernel(*tile, **call):
                other(**call)

        run.parts = kernel, other  # type: ignore[attr-defined]
        return run

    return decorate


#: The NumPy row clips every tap to the image.
to_numpy_row = handing_over_to(numpy_)
