"""A model prepared for inference: neighbours fused into one kernel call, weights packed, calls settled per shape."""

import copy
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from fastcnn import ops
from fastcnn.arrays import array, deliver, output, ready
from fastcnn.nn.modules import Conv2d, Linear, Module, ReLU, ReLU6
from fastcnn.nn.norm import BatchNorm2d
from fastcnn.nn.pooling import MaxPool2d
from fastcnn.prepacked import prepack_conv2d

#: A step settled for one shape of input: it fills memory of its own and returns that. `bind` returns it with the result
#: of its first call.
Run = Callable[[np.ndarray], np.ndarray]
ACTIVATIONS = {ReLU: "relu", ReLU6: "relu6"}
#: Shapes of input whose calls and results a thread keeps; the oldest is forgotten.
KEPT_SHAPES = 8


class Prepared:
    """A model for inference only, made by `Module.prepare`; ``prepared(x)`` is ``model.eval()(x)`` up to rounding.

    It keeps copies of the weights as they were: to train, go on with the model and prepare again. Calls from several
    threads may run at once.

    Attributes
    ----------
    steps : list of str
        What a call runs, in order: one line for each kernel call or layer.
    """

    def __init__(self, layers: list[Module]):
        self._steps = list(_fused(layers))
        self.steps = [str(step) for step in self._steps]
        self._kept = threading.local()  # of each thread: ``plans``, by input shape and dtype

    def __call__(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the model's result for `x`.

        Parameters
        ----------
        x : ndarray of the model's input shape and dtype
        out : ndarray of the result's shape and dtype, optional
            Where the result goes.

        Raises
        ------
        TypeError, ValueError
            As the layers do, and if `out` cannot take the result.
        """
        x = ready(array(x, "x"), "x")
        plans = self._kept.__dict__.setdefault("plans", {})
        key = x.shape, x.dtype.char
        y = x
        if key in plans:
            for run in plans[key]:
                y = run(y)
        else:
            plan = []
            for step in self._steps:
                run, y = step.bind(y)
                plan.append(run)
            if len(plans) >= KEPT_SHAPES:
                del plans[next(iter(plans))]
            plans[key] = plan
        result = output(out, y.shape, x)
        result[...] = y  # y lies in memory that the next call overwrites
        return deliver(result, out)

    def forward(self, x: np.ndarray) -> Any:
        """Refuse to train.

        Raises
        ------
        RuntimeError
            Always: there are no gradients here.
        """
        raise RuntimeError("a prepared model has no gradients: train the model it was made from, and prepare it again")

    def __repr__(self) -> str:
        """The steps, a line each."""
        return "\n".join(["Prepared:", *self.steps])


class _Convolution:
    """Conv2d and what it takes in of the layers behind it."""

    def __init__(self, conv: Conv2d, norm: BatchNorm2d | None, activation: str | None, max_pool: int | None):
        weight, bias = conv.params["weight"], conv.params.get("bias")
        if norm is not None:
            scale, shift = norm.inference_affine()
            bias = (shift + (0 if bias is None else scale * bias)).astype(weight.dtype)
            weight = (weight * scale[:, None, None, None]).astype(weight.dtype)
        self._weight = prepack_conv2d(weight)
        self._bias = None if bias is None else bias.copy()
        self._options = conv.options | {"activation": activation, "max_pool": max_pool}
        taken = ["BatchNorm2d" if norm else None, activation, f"max_pool {max_pool}" if max_pool else None]
        self._name = f"{' + '.join(['Conv2d', *filter(None, taken)])}, weight {weight.shape}"

    def __str__(self) -> str:
        return self._name

    def bind(self, x: np.ndarray) -> tuple[Run, np.ndarray]:
        given = {"weight": self._weight, "bias": self._bias, **self._options}
        y = ops.conv2d(x, **given)
        return partial(ops.conv2d, **given, out=y), y


class _Dense:
    """Linear, and its activation."""

    def __init__(self, layer: Linear, activation: str | None):
        self._weight = layer.params["weight"].copy()
        self._bias = layer.params["bias"].copy() if "bias" in layer.params else None
        self._activate = {"relu": _relu, "relu6": _relu6}.get(activation or "")
        self._name = f"{' + '.join(filter(None, ['Linear', activation]))}, weight {self._weight.shape}"

    def __str__(self) -> str:
        return self._name

    def bind(self, x: np.ndarray) -> tuple[Run, np.ndarray]:
        y = ops.linear(x, self._weight, self._bias)
        run, activate = partial(ops.linear, weight=self._weight, bias=self._bias, out=y), self._activate
        if activate is None:
            return run, y
        return lambda x: activate(run(x)), activate(y)


class _Other:
    """Any other layer, called as it is."""

    def __init__(self, layer: Module):
        self._layer = copy.deepcopy(layer).eval()

    def __str__(self) -> str:
        return type(self._layer).__name__

    def bind(self, x: np.ndarray) -> tuple[Run, np.ndarray]:
        return self._layer, self._layer(x)


def _relu(y: np.ndarray) -> np.ndarray:
    return np.maximum(y, 0, out=y)


def _relu6(y: np.ndarray) -> np.ndarray:
    return np.clip(y, 0, 6, out=y)


def _fused(layers: list[Module]) -> Iterator[_Convolution | _Dense | _Other]:
    """Group layers into steps; exact types only, as a subclass may do something else."""
    rest = list(layers)

    def take(kind: type[Module], if_: Callable[[Any], bool] = lambda layer: True) -> Any:
        return rest.pop(0) if rest and type(rest[0]) is kind and if_(rest[0]) else None

    def take_activation() -> str | None:
        return next((name for kind, name in ACTIVATIONS.items() if take(kind)), None)

    while rest:
        if conv := take(Conv2d):
            norm = take(BatchNorm2d, lambda layer: bool(layer.buffers))
            activation = take_activation()
            pool = take(
                MaxPool2d, lambda layer: (layer.window, layer.stride, layer.padding) == ((2, 2), (2, 2), (0, 0))
            )
            yield _Convolution(conv, norm, activation, 2 if pool else None)
        elif dense := take(Linear):
            yield _Dense(dense, take_activation())
        else:
            yield _Other(rest.pop(0))
