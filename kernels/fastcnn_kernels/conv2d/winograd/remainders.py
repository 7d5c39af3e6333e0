"""Dilated layers as plain ones: pixels that share their remainders modulo the dilation form an image of their own.

Tap r of row i reads row i + dilation r, which has the remainder of i. So a dilated layer is a layer of dilation 1 over
as many images as there are remainders, without padding: its zeros are copied with the rest. Serves both twins.
"""

import functools
from collections.abc import Callable
from typing import Any

from fastcnn_kernels.memory import empty


def batch(N: int, result: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """Number of images, and their result's height and width, for N with a result of P x Q."""
    (P, Q), (dh, dw) = result, dilation
    return N * min(dh, P) * min(dw, Q), (-(-P // dh), -(-Q // dw))


def _axis(size, result, taps, dilation, before):
    """For each remainder of the result's rows: where in its image rows begin, and which ones of the source."""
    rows = -(-result // dilation) + taps - 1
    places = []
    for remainder in range(min(dilation, result)):
        first = max(0, -((remainder - before) // dilation))
        start = remainder - before + first * dilation
        count = max(0, min(rows - first, -((start - size) // dilation)))
        places.append((slice(first, first + count), slice(start, start + count * dilation, dilation)))
    return rows, places


def _gather(source, result, taps, dilation, before):
    """Images of all remainders, one after the other: what `taps` on each pixel of the `result` read."""
    N, C, *sizes = source.shape
    (rows, down), (columns, across) = map(_axis, sizes, result, taps, dilation, before)
    images = empty((len(down) * len(across), N, C, rows, columns), source.dtype)
    images[...] = 0
    for a, (rows_to, rows_from) in enumerate(down):
        for b, (columns_to, columns_from) in enumerate(across):
            images[a * len(across) + b, :, :, rows_to, columns_to] = source[:, :, rows_from, columns_from]
    return images.reshape(-1, *images.shape[2:])


def _scatter(images, out, dilation):
    """Put the pixels of the images where they belong."""
    (dh, dw), (N, _, P, Q) = dilation, out.shape
    images = images.reshape(-1, N, *images.shape[1:])
    across = min(dw, Q)
    for a in range(min(dh, P)):
        for b in range(across):
            place = out[:, :, a::dh, b::dw]
            place[...] = images[a * across + b, :, :, : place.shape[2], : place.shape[3]]


def taking_dilation(kernel: Callable[..., bool]) -> Callable[..., bool]:
    """Decorate a kernel of dilation 1."""

    @functools.wraps(kernel)
    def run(m: int, /, **call: Any) -> bool:
        dilation, padding, out = call["dilation"], call["padding"], call["out"]
        if dilation == (1, 1):
            return kernel(m, **call)
        call["dilation"] = (1, 1)
        if "weight" not in call:
            x, dy, taps = call["x"], call["dy"], out.shape[2:]
            call["x"] = _gather(x, dy.shape[2:], taps, dilation, padding[::2])
            call["dy"] = _gather(dy, dy.shape[2:], (1, 1), dilation, (0, 0))
            return kernel(m, **call | {"padding": (0, 0, 0, 0)})
        source, (R, S) = "x" if "x" in call else "dy", call["weight"].shape[2:]
        before, call["padding"] = padding[::2], (0, 0, 0, 0)
        if source == "dy":
            before = tuple(d * (size - 1) - pad for d, size, pad in zip(dilation, (R, S), before, strict=True))
            call["padding"] = (R - 1, R - 1, S - 1, S - 1)
        images, result = batch(out.shape[0], out.shape[2:], dilation)
        call[source] = _gather(call[source], out.shape[2:], (R, S), dilation, before)
        call["out"] = empty((images, out.shape[1], *result), out.dtype)
        finite = kernel(m, **call)
        _scatter(call["out"], out, dilation)
        return finite

    return run
