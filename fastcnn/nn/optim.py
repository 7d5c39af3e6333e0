"""Gradient descent."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from fastcnn.arrays import check_shape
from fastcnn.checks import integer, message


class SGD:
    """Stochastic gradient descent, as ``torch.optim.SGD`` without dampening; updates the parameters in place.

    Per parameter p with gradient g:  g += weight_decay p;  v = momentum v + g;  p -= lr v
    (with Nesterov momentum p -= lr (g + momentum v)). v starts at 0.

    Parameters
    ----------
    parameters : mapping of str to ndarray
        What ``model.parameters()`` returns.
    lr : float
        Learning rate; the attribute may be changed between steps.
    momentum, weight_decay : float
    nesterov : bool

    Raises
    ------
    ValueError
        If a number is negative, NaN or infinite, or `nesterov` is asked for without momentum.
    """

    def __init__(
        self,
        parameters: Mapping[str, np.ndarray],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            if not 0 <= value < float("inf"):
                raise ValueError(message(name, value, "a finite number of at least 0"))
        if nesterov and momentum == 0:
            raise ValueError(message("momentum", momentum, "more than 0 with nesterov"))
        self.parameters = parameters
        self.lr, self.momentum, self.weight_decay, self.nesterov = lr, momentum, weight_decay, nesterov
        self.velocity = {name: np.zeros_like(p) for name, p in parameters.items()} if momentum else {}

    def step(self, gradients: Mapping[str, np.ndarray]) -> None:
        """Move every parameter against its gradient.

        Parameters
        ----------
        gradients : mapping of str to ndarray
            What ``model.gradients()`` returns: the names and shapes of the parameters.

        Raises
        ------
        ValueError
            If a parameter has no gradient here, a gradient no parameter, or their shapes differ; nothing is moved.
        """
        if gradients.keys() != self.parameters.keys():
            expected = f"one for each of {', '.join(self.parameters)}"
            raise ValueError(message("gradients", ", ".join(gradients) or "none", expected))
        for name, p in self.parameters.items():
            check_shape(gradients[name], name, p.shape, "that of the parameter")
        for name, p in self.parameters.items():
            g = gradients[name]
            if self.weight_decay:
                g = g + self.weight_decay * p
            if self.momentum:
                v = self.velocity[name]
                v *= self.momentum
                v += g
                g = g + self.momentum * v if self.nesterov else v
            p -= self.lr * g


def cosine(lr: float, steps: int) -> Callable[[int], float]:
    """Learning rate by step: half a cosine from `lr` down to 0 at `steps` (arXiv 1608.03983, equation 5).

    Raises
    ------
    TypeError, ValueError
        If `steps` is not an integer of at least 0.
    """
    steps = integer(steps, "steps", 0)
    return lambda step: lr * (1 + math.cos(math.pi * min(step, steps) / steps if steps else math.pi)) / 2
