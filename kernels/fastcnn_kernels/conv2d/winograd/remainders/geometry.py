"""Sizes of the images of remainders, from shapes alone, shared by the twins."""

import numpy as np

from fastcnn_kernels.memory import planned


def batch(N: int, result: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """Number of images, and their result's height and width, for N with a result of P x Q."""
    (P, Q), (dh, dw) = result, dilation
    return N * min(dh, P) * min(dw, Q), (-(-P // dh), -(-Q // dw))


@planned
def axis(size: int, result: int, taps: int, dilation: int, before: int) -> tuple[int, np.ndarray]:
    """Rows of an image which `taps` on `result` rows read, and where those of the source lie.

    Of each remainder of the result's rows: the first row of its image that is one of the source, their number, and the
    first one's place in the source; they follow each other there in steps of the dilation.
    """
    rows = -(-result // dilation) + taps - 1
    places = np.zeros((min(dilation, result), 3), np.intp)
    for remainder in range(len(places)):
        first = max(0, -((remainder - before) // dilation))
        start = remainder - before + first * dilation
        places[remainder] = first, max(0, min(rows - first, -((start - size) // dilation))), start
    return rows, places
