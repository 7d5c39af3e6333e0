"""Max pooling, in NumPy: one pass per tap of the window over a shifted, strided view of the image."""

# ruff: noqa: D102 - what __call__ and forward of a layer do is described in Module

import numpy as np

from fastcnn.arrays import array, check_shape
from fastcnn.checks import message, pair
from fastcnn.nn.modules import Module
from fastcnn_kernels.conv2d.numpy_ import taps


class MaxPool2d(Module):
    """Maximum over windows of (N, C, H, W), as ``torch.nn.MaxPool2d``.

    Padding counts as -inf and is never chosen; of equal maxima the first one in row-major order receives the
    gradient; NaN propagates.

    Parameters
    ----------
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        Defaults to `kernel_size`.
    padding : int or pair of int
        At most half of `kernel_size`.

    Raises
    ------
    ValueError
        If a size is out of range, or the window is larger than the padded image.
    """

    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__()
        self.window = pair(kernel_size, "kernel_size", 1)
        self.stride = self.window if stride is None else pair(stride, "stride", 1)
        self.padding = pair(padding, "padding", 0)
        if any(2 * pad > size for pad, size in zip(self.padding, self.window, strict=True)):
            raise ValueError(message("padding", self.padding, f"at most half of kernel_size {self.window}"))

    def __call__(self, x):
        return self._pool(array(x, "x"))[0]

    def forward(self, x):
        x = array(x, "x")
        y, winner = self._pool(x)

        def back(dy, need_dx=True):
            check_shape(dy, "dy", y.shape, "that of the result")
            if not need_dx:
                return None
            dx = np.zeros(x.shape, dy.dtype)
            for tap, po, qo, hi, wi in self._taps(x, y):
                dx[:, :, hi, wi] += np.where(winner[:, :, po, qo] == tap, dy[:, :, po, qo], dy.dtype.type(0))
            return dx

        return y, back

    def _pool(self, x):
        """Return the maxima and, per output, the index of the tap that holds it."""
        if x.ndim != 4:
            raise ValueError(message("x", f"shape {x.shape}", "(N, C, H, W)"))
        P, Q = ((x.shape[2 + i] + 2 * self.padding[i] - self.window[i]) // self.stride[i] + 1 for i in range(2))
        if min(P, Q) < 1:
            raise ValueError(message("x", f"shape {x.shape}", f"a padded image of at least {self.window}"))
        y = np.full((*x.shape[:2], P, Q), -np.inf, x.dtype)
        winner = np.full(y.shape, -1, np.int32)
        for tap, po, qo, hi, wi in self._taps(x, y):
            value, best, index = x[:, :, hi, wi], y[:, :, po, qo], winner[:, :, po, qo]
            better = (value > best) | np.isnan(value) | (index < 0)
            np.copyto(best, value, where=better)
            np.copyto(index, tap, where=better)
        return y, winner

    def _taps(self, x, y):
        (top, left), image, output = self.padding, x.shape[2:], y.shape[2:]
        for r, s, *slices in taps(image, output, self.window, self.stride, (top, top, left, left), (1, 1)):
            yield r * self.window[1] + s, *slices
