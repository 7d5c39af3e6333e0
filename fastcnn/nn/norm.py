"""Batch normalisation."""

# ruff: noqa: D102 - what __call__ and forward of a layer do is described in Module

import numpy as np
from numpy.typing import DTypeLike

from fastcnn.arrays import array, check_shape
from fastcnn.checks import float_dtype, integer, message
from fastcnn.nn.modules import Module


class BatchNorm2d(Module):
    """Normalise each channel of (N, C, H, W), then scale and shift it, as ``torch.nn.BatchNorm2d``.

    y = weight (x - mean) / sqrt(var + eps) + bias. In training, mean and (biased) variance are the batch's, and the
    running statistics move towards them; in inference they are the running ones. Source: arXiv 1502.03167, algorithm 1.

    Parameters
    ----------
    num_features : int
        Channels C.
    eps : float, default 1e-5
    momentum : float or None, default 0.1
        Weight of a batch in the running statistics; None averages over all batches alike.
    affine : bool, default True
        Whether there are weight (C,), which starts at 1, and bias (C,), at 0.
    track_running_stats : bool, default True
        Whether there are running_mean (C,), running_var (C,), of unbiased variances, and num_batches_tracked ();
        without them the batch's statistics serve in inference, too.
    dtype : float32 or float64

    Raises
    ------
    TypeError, ValueError
        If `num_features` is not a positive integer, `eps` or `momentum` out of range, or `dtype` another one.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: DTypeLike = np.float32,
    ):
        super().__init__()
        C = integer(num_features, "num_features", 1)
        if not eps >= 0:
            raise ValueError(message("eps", eps, "at least 0"))
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(message("momentum", momentum, "None or a number from 0 to 1"))
        self.eps, self.momentum, dtype = eps, momentum, float_dtype(dtype)
        if affine:
            self.params = {"weight": np.ones(C, dtype), "bias": np.zeros(C, dtype)}
        if track_running_stats:
            self.buffers = {
                "running_mean": np.zeros(C, dtype),
                "running_var": np.ones(C, dtype),
                "num_batches_tracked": np.zeros((), np.int64),
            }
        self.channels = C

    def __call__(self, x):
        x = array(x, "x")
        scale, shift = self._affine(*self._statistics(x))
        return x * scale[:, None, None].astype(x.dtype) + shift[:, None, None].astype(x.dtype)

    def forward(self, x):
        x = array(x, "x")
        of_batch = self.training or not self.buffers
        mean, var = self._statistics(x)
        scale, shift = self._affine(mean, var)
        y = x * scale[:, None, None].astype(x.dtype) + shift[:, None, None].astype(x.dtype)

        def back(dy, need_dx=True):
            check_shape(dy, "dy", x.shape, "that of the result")
            per_deviation = 1 / np.sqrt(var + self.eps)
            normal = (x - _per_channel(mean, x)) * _per_channel(per_deviation, x)
            dweight, dbias = np.einsum("nchw,nchw->c", dy, normal), dy.sum(axis=(0, 2, 3))
            if self.params:
                self._set_grads(weight=dweight.astype(x.dtype), bias=dbias.astype(x.dtype))
            if not need_dx:
                return None
            if of_batch:  # the mean and the variance depend on x, too
                terms = x.size // self.channels
                dy = dy - _per_channel(dbias / terms, x) - normal * _per_channel(dweight / terms, x)
            return dy * _per_channel(scale, x)

        return y, back

    def inference_affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift per channel, float64, that inference comes to: ``y = scale x + shift``.

        Raises
        ------
        ValueError
            If there are no running statistics, so that they depend on the batch.
        """
        if not self.buffers:
            raise ValueError(message("track_running_stats", False, "True: without it they depend on the batch"))
        return self._affine(self.buffers["running_mean"].astype(float), self.buffers["running_var"].astype(float))

    def _affine(self, mean, var):
        scale = self.params.get("weight", 1) / np.sqrt(var + self.eps)
        return scale, self.params.get("bias", 0) - mean * scale

    def _statistics(self, x):
        """Mean and biased variance of each channel, float64; in training the running ones take them in."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(message("x", f"shape {x.shape}", f"(N, {self.channels}, H, W)"))
        if self.buffers and not self.training:
            return self.buffers["running_mean"].astype(float), self.buffers["running_var"].astype(float)
        terms = x.size // self.channels
        if terms < 2 and self.training:
            raise ValueError(message("x", f"shape {x.shape}", "more than one value per channel in training"))
        mean = x.mean(axis=(0, 2, 3), dtype=float)
        deviation = x - _per_channel(mean, x)
        var = np.einsum("nchw,nchw->c", deviation, deviation, dtype=float) / terms
        if self.buffers and self.training:
            self.buffers["num_batches_tracked"] += 1
            weight = 1 / self.buffers["num_batches_tracked"] if self.momentum is None else self.momentum
            for name, value in (("running_mean", mean), ("running_var", var * terms / (terms - 1))):
                running = self.buffers[name]
                running += (weight * (value - running)).astype(running.dtype)
        return mean, var


def _per_channel(values, x):
    """Values (C,) to combine with x (N, C, H, W) in its dtype."""
    return values.astype(x.dtype)[:, None, None]
