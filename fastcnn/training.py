"""Gradient descent over minibatches, until a loss level or a step limit."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastcnn.checks import integer, message
from fastcnn.nn import SGD, Module, cross_entropy


class Row(NamedTuple):
    """One line of the history: loss and accuracy on the batch of `step`, before its update."""

    step: int
    epoch: int
    loss: float
    accuracy: float


@dataclass
class Run:
    """What `train` returns.

    Attributes
    ----------
    history : list of Row
    steps : int
        Updates made.
    loss, accuracy : float
        Over the whole training set, after the last update.
    reached : bool
        Whether `loss` is at the target.
    interrupted : bool
        Whether Ctrl-C ended the run.
    seconds, images_per_second : float
    """

    history: list[Row]
    steps: int
    loss: float
    accuracy: float
    reached: bool
    interrupted: bool
    seconds: float
    images_per_second: float


def evaluate(model: Module, x: np.ndarray, y: np.ndarray, batch_size: int = 1024) -> tuple[float, float]:
    """Mean loss and accuracy of `model`, in inference mode, over images x with targets y (indices or distributions)."""
    training = model.training
    model.eval()
    try:
        logits = np.concatenate([model(x[i : i + batch_size]) for i in range(0, len(x), batch_size)])
    finally:
        model.train(training)
    return cross_entropy(logits, y)[0], _accuracy(logits, y)


def train(
    model: Module,
    x: np.ndarray,
    y: np.ndarray,
    optimizer: SGD,
    *,
    max_steps: int,
    batch_size: int | None = None,
    target_loss: float | None = None,
    seed: int = 0,
    augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
    lr_at: Callable[[int], float] | None = None,
    progress: bool = False,
) -> Run:
    """Train until the loss over the whole training set is at most `target_loss`, or for `max_steps` updates.

    The level is looked at before every update in full-batch training, where the batch's loss is that loss,
    and at the end of every epoch with minibatches. Ctrl-C ends the run after the current step.

    Parameters
    ----------
    model : Module
    x : ndarray (N, ...)
    y : ndarray (N,) of int or (N, classes)
        Class indices or distributions.
    optimizer : SGD
        Over ``model.parameters()``.
    max_steps : int
    batch_size : int, optional
        Images per step; all of them by default.
    target_loss : float, optional
    seed : int
        Of the shuffling and of `augment`.
    augment : callable, optional
        ``augment(images, rng)`` returns the images to train this step on.
    lr_at : callable, optional
        ``lr_at(step)`` returns the learning rate; the optimizer's own is used without it.
    progress : bool
        Show a progress bar (needs tqdm).

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        If there are no images, or `max_steps`, `batch_size` or `target_loss` is out of range.
    FloatingPointError
        If the loss is NaN or infinite; names the step.
    """
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(message("y", f"{len(y)} targets", f"as many as images, {len(x)}, and at least one"))
    max_steps = integer(max_steps, "max_steps", 0)
    if target_loss is not None and not target_loss > 0:
        raise ValueError(message("target_loss", target_loss, "more than 0"))
    batch_size = len(x) if batch_size is None else min(integer(batch_size, "batch_size", 1), len(x))
    rng = np.random.default_rng(seed)
    history: list[Row] = []
    reached, images, started = False, 0, time.perf_counter()
    # Overflow on the way to a non-finite loss is reported below, with the step, instead of as a warning.
    with _progress_bar(max_steps, progress) as bar, _sigint() as interrupted, np.errstate(all="ignore"):
        for step, (epoch, index) in enumerate(_minibatches(len(x), batch_size, rng)):
            batch = x[index] if augment is None else augment(x[index], rng)
            logits, back = model.train().forward(batch)
            loss, dloss = cross_entropy(logits, y[index])
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss} at step {step}; a smaller learning rate may help")
            history.append(Row(step, epoch, loss, _accuracy(logits, y[index])))
            images += len(index)
            bar(history[-1], images / (time.perf_counter() - started))
            if target_loss is not None:
                if batch_size == len(x) and augment is None:
                    reached = loss <= target_loss
                elif step and epoch != history[-2].epoch:
                    reached = evaluate(model, x, y)[0] <= target_loss
            if reached or step == max_steps or interrupted.is_set():
                break
            back(dloss(), need_dx=False)
            if lr_at is not None:
                optimizer.lr = lr_at(step)
            optimizer.step(model.gradients())
    seconds = time.perf_counter() - started
    loss, accuracy = evaluate(model, x, y)
    reached = target_loss is not None and loss <= target_loss
    return Run(history, step, loss, accuracy, reached, interrupted.is_set(), seconds, images / seconds)


def _accuracy(logits: np.ndarray, y: np.ndarray) -> float:
    labels = y if y.ndim == 1 else y.argmax(axis=1)
    return float(np.mean(logits.argmax(axis=1) == labels))


def _minibatches(n: int, batch_size: int, rng: np.random.Generator) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (epoch, indices) without end; a new order every epoch, none where one batch is everything."""
    epoch = 0
    while True:
        order = np.arange(n) if batch_size == n else rng.permutation(n)
        for start in range(0, n, batch_size):
            yield epoch, order[start : start + batch_size]
        epoch += 1


@contextmanager
def _progress_bar(max_steps: int, progress: bool) -> Iterator[Callable[[Row, float], None]]:
    if not progress:
        yield lambda row, rate: None
        return
    from tqdm import tqdm

    with tqdm(total=max_steps, unit="step", dynamic_ncols=True) as bar:

        def show(row: Row, rate: float) -> None:
            bar.set_postfix_str(
                f"loss {row.loss:.4g}, accuracy {row.accuracy:.1%}, {rate:,.0f} images/s", refresh=False
            )
            bar.update(row.step - bar.n)

        yield show


@contextmanager
def _sigint() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a flag to look at between steps; a second one interrupts at once."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield flag
        return

    def handler(signum, frame):
        flag.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)
