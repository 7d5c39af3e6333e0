"""Softmax and cross-entropy, as ``torch.nn.functional`` defines them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastcnn.checks import message


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Compute log(softmax(logits)) over the last axis without overflow: the maximum is subtracted first.

    Parameters
    ----------
    logits : ndarray (..., classes)

    Returns
    -------
    ndarray (..., classes)
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Compute exp(logits) / sum(exp(logits)) over the last axis without overflow."""
    return np.exp(log_softmax(logits))


def one_hot(labels: ArrayLike, classes: int, dtype: DTypeLike = np.float32) -> np.ndarray:
    """Turn class indices into one-hot rows.

    Parameters
    ----------
    labels : array_like of int (N,)
        Class indices in [0, classes).
    classes : int
    dtype : float32 or float64

    Returns
    -------
    ndarray (N, classes)

    Raises
    ------
    TypeError
        If `labels` are not integers.
    ValueError
        If a label is out of range or `labels` is not one-dimensional.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(message("labels", f"dtype {labels.dtype}", "integer class indices"))
    if labels.ndim != 1:
        raise ValueError(message("labels", f"shape {labels.shape}", "(N,)"))
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(message("labels", f"values from {labels.min()} to {labels.max()}", f"0 to {classes - 1}"))
    return np.eye(classes, dtype=dtype)[labels]


def cross_entropy(logits: np.ndarray, target: ArrayLike) -> tuple[float, Callable[[], np.ndarray]]:
    """Mean over the batch of -sum_i target_i log(softmax(logits)_i).

    Parameters
    ----------
    logits : ndarray (N, classes)
    target : array_like (N,) of int or (N, classes) of float
        Class indices, or a distribution over the classes per row (soft targets, used as they are).

    Returns
    -------
    loss : float
    back : callable
        ``back()`` returns dL/dlogits (N, classes).

    Raises
    ------
    TypeError
        If `target` has the shape of class indices but is not of integers, or is complex.
    ValueError
        If a shape does not fit, a class index is out of range, or the batch is empty (it has no mean).
    """
    if logits.ndim != 2 or 0 in logits.shape:
        raise ValueError(message("logits", f"shape {logits.shape}", "(N, classes), both at least 1"))
    target = np.asarray(target)
    if target.ndim == 1:
        target = one_hot(target, logits.shape[1], logits.dtype)
    if target.dtype.kind not in "fiu":
        raise TypeError(message("target", f"dtype {target.dtype}", "class indices or real probabilities"))
    if target.shape != logits.shape:
        raise ValueError(message("target", f"shape {target.shape}", f"({len(logits)},) or {logits.shape}"))
    target = target.astype(logits.dtype, copy=False)
    log_p = log_softmax(logits)
    terms = np.multiply(target, log_p, out=np.zeros_like(log_p), where=target != 0)  # 0 times -inf is 0 here
    loss = -float(np.sum(terms, dtype=np.float64)) / len(logits)

    def back() -> np.ndarray:
        return (np.exp(log_p) * target.sum(axis=1, keepdims=True) - target) / logits.dtype.type(len(logits))

    return loss, back
