"""A kernel of dilation 1 computes dilated layers."""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from fastcnn_kernels.conv2d.winograd.remainders.geometry import axis, batch
from fastcnn_kernels.memory import empty


def taking_dilation(copies: ModuleType) -> Callable[[Callable[..., bool]], Callable[..., bool]]:
    """Decorate a kernel of dilation 1; `copies` has the ``gather`` and ``scatter`` of its backend."""

    def decorate(kernel: Callable[..., bool]) -> Callable[..., bool]:
        @functools.wraps(kernel)
        def run(m: int, /, **call: Any) -> bool:
            dilation, padding, out, num_threads = call["dilation"], call["padding"], call["out"], call["num_threads"]
            if dilation == (1, 1):
                return kernel(m, **call)

            def gather(source: np.ndarray, result: Any, taps: Any, before: Any) -> np.ndarray:
                (rows, down), (columns, across) = map(axis, source.shape[2:], result, taps, dilation, before)
                images = empty((len(down) * len(across) * len(source), source.shape[1], rows, columns), source.dtype)
                copies.gather(source, images, down, across, dilation, num_threads)
                return images

            call["dilation"] = (1, 1)
            if "weight" not in call:
                result = call["dy"].shape[2:]
                call["x"] = gather(call["x"], result, out.shape[2:], padding[::2])
                call["dy"] = gather(call["dy"], result, (1, 1), (0, 0))
                return kernel(m, **call | {"padding": (0, 0, 0, 0)})
            source, (R, S) = "x" if "x" in call else "dy", call["weight"].shape[2:]
            before, call["padding"] = padding[::2], (0, 0, 0, 0)
            if source == "dy":
                before = tuple(d * (size - 1) - pad for d, size, pad in zip(dilation, (R, S), before, strict=True))
                call["padding"] = (R - 1, R - 1, S - 1, S - 1)
            call[source] = gather(call[source], out.shape[2:], (R, S), before)
            images, result = batch(out.shape[0], out.shape[2:], dilation)
            call["out"] = empty((images, out.shape[1], *result), out.dtype)
            finite = kernel(m, **call)
            copies.scatter(call["out"], out, dilation, num_threads)
            return finite

        return run

    return decorate
