"""Layers: parameters by name, one op call for inference, and a pair of functions for training."""

# ruff: noqa: D102 - what __call__ and forward of a layer do is described once, in Module

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike

from fastcnn import ops
from fastcnn.arrays import array, check_shape
from fastcnn.checks import integer, message, padding_option, pair
from fastcnn.nn.init import Rng, kaiming_uniform
from fastcnn_kernels.memory import empty

if TYPE_CHECKING:
    from fastcnn.nn.prepared import Prepared


class Back(Protocol):
    """The second result of `Module.forward`."""

    def __call__(self, dy: np.ndarray, need_dx: bool = True) -> np.ndarray | None:
        """Set the parameters' gradients and return dx; it may be None where `need_dx` is false."""


class Module:
    """A layer or a model.

    ``module(x)`` returns y. ``module.forward(x)`` returns ``(y, back)``; ``back(dy)`` returns dx and *sets*
    ``grads``: gradients are overwritten, never accumulated, so there is nothing to zero between steps. `back`
    uses the parameters as they are when it is called: update them after it, not before.

    Attributes
    ----------
    params, grads : dict of str to ndarray
        The module's own parameters, and their gradients once `back` has run.
    buffers : dict of str to ndarray
        What the module keeps besides parameters: no gradients, but part of `state_dict`.
    children : dict of str to Module
        Modules inside it; their parameters appear as ``child.name``.
    training : bool
        Whether layers that tell training from inference (`BatchNorm2d`) are training; see `train` and `eval`.
    """

    def __init__(self) -> None:
        self.params: dict[str, np.ndarray] = {}
        self.grads: dict[str, np.ndarray] = {}
        self.buffers: dict[str, np.ndarray] = {}
        self.children: dict[str, Module] = {}
        self.training = True

    def __call__(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Back]:
        """Return y and the function that takes dy back to dx."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """Put the module and its children into training mode, or out of it; returns the module."""
        self.training = mode
        for child in self.children.values():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """Put the module and its children into inference mode; returns the module."""
        return self.train(False)

    def layers(self) -> list["Module"]:
        """Modules whose calls, one after the other, are a call of this one; what `prepare` sees."""
        return [self]

    def prepare(self) -> "Prepared":
        """Return a copy for inference: layers fused, weights packed once, results of layers in kept memory.

        `Conv2d` takes in the `BatchNorm2d`, `ReLU`, `ReLU6` and ``MaxPool2d(2)`` that follow it. The module itself
        stays as it is: train on, and prepare again.

        Returns
        -------
        Prepared
        """
        from fastcnn.nn.prepared import Prepared  # it builds on this module

        return Prepared(self.layers())

    def parameters(self) -> dict[str, np.ndarray]:
        """Every parameter of the module and its children by dotted name: the arrays, not copies."""
        return self._collect("params")

    def gradients(self) -> dict[str, np.ndarray]:
        """Every gradient by dotted name, of the last call of `back`."""
        return self._collect("grads")

    def _collect(self, kind: str) -> dict[str, np.ndarray]:
        own = dict(getattr(self, kind))
        for name, child in self.children.items():
            own |= {f"{name}.{key}": array for key, array in child._collect(kind).items()}
        return own

    def _set_grads(self, **grads: np.ndarray | None) -> None:
        self.grads = {name: grad for name, grad in grads.items() if grad is not None}

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of every parameter and buffer by dotted name."""
        return {name: array.copy() for name, array in self._state().items()}

    def _state(self) -> dict[str, np.ndarray]:
        return self.parameters() | self._collect("buffers")

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Copy values into the parameters and buffers; nothing is changed unless everything fits.

        Raises
        ------
        ValueError
            If a name is missing or unknown, or a shape or dtype differs.
        """
        own = self._state()
        if missing := [name for name in own if name not in state]:
            raise ValueError(f"missing parameters: {', '.join(missing)}")
        if extra := [name for name in state if name not in own]:
            raise ValueError(f"unknown parameters: {', '.join(extra)}")
        for name, p in own.items():
            if (state[name].shape, state[name].dtype) != (p.shape, p.dtype):
                raise ValueError(
                    message(
                        f"parameter {name}",
                        f"{state[name].dtype} {state[name].shape}",
                        f"{p.dtype} {p.shape}",
                    )
                )
        for name, p in own.items():
            p[...] = state[name]


class Sequential(Module):
    """Layers one after the other; child names are "0", "1", ...

    Raises
    ------
    ValueError
        If a layer with parameters appears twice: the gradient of the second use would overwrite the first.
    """

    def __init__(self, *layers: Module):
        super().__init__()
        arrays = [id(p) for layer in layers for p in layer.parameters().values()]
        if len(set(arrays)) < len(arrays):
            raise ValueError("layers: a layer with parameters may appear only once")
        self.children = {str(i): layer for i, layer in enumerate(layers)}

    def layers(self):
        return [layer for child in self.children.values() for layer in child.layers()]

    def __call__(self, x):
        for layer in self.children.values():
            x = layer(x)
        return x

    def forward(self, x):
        backs = []
        for layer in self.children.values():
            x, layer_back = layer.forward(x)
            backs.append(layer_back)
        # dx of a layer is needed if the caller wants it, or if parameters lie below it.
        below = [any(m.parameters() for m in list(self.children.values())[:i]) for i in range(len(backs))]

        def back(dy, need_dx=True):
            for layer_back, parameters_below in zip(reversed(backs), reversed(below), strict=True):
                dy = layer_back(dy, need_dx or parameters_below)
                if dy is None:
                    break
            return dy

        return x, back


class Conv2d(Module):
    """2-D convolution: weight (out_channels, in_channels / groups, R, S), bias (out_channels,).

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or pair of int
    stride, padding, dilation, groups
        As `fastcnn.conv2d` takes them.
    bias : bool
        Starts at zero; the weights are `kaiming_uniform`.
    dtype : float32 or float64
    rng : int, numpy.random.Generator or None

    Raises
    ------
    TypeError, ValueError
        If an option is not an integer or out of range, `groups` does not divide the channels, or `dtype` is another.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: ops.PairOption,
        stride: ops.PairOption = 1,
        padding: ops.PaddingOption = 0,
        dilation: ops.PairOption = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: Rng = None,
    ):
        super().__init__()
        in_channels, out_channels = (
            integer(in_channels, "in_channels", 1),
            integer(out_channels, "out_channels", 1),
        )
        groups = integer(groups, "groups", 1)
        if in_channels % groups or out_channels % groups:
            raise ValueError(message("groups", groups, f"a divisor of {in_channels} and {out_channels} channels"))
        padding_option(padding)
        if padding == "same" and pair(stride, "stride", 1) != (1, 1):
            raise ValueError(message("padding", "'same'", f"an explicit padding with stride {stride}"))
        self.options: dict[str, Any] = {
            "stride": pair(stride, "stride", 1),
            "padding": padding,
            "dilation": pair(dilation, "dilation", 1),
            "groups": groups,
        }
        shape = (out_channels, in_channels // groups, *pair(kernel_size, "kernel_size", 1))
        self.params["weight"] = kaiming_uniform(shape, int(np.prod(shape[1:])), rng, dtype)
        if bias:
            self.params["bias"] = np.zeros(out_channels, dtype)

    def __call__(self, x):
        return ops.conv2d(x, self.params["weight"], self.params.get("bias"), **self.options)

    def forward(self, x):
        def back(dy, need_dx=True):
            mask = (need_dx, True, "bias" in self.params)
            dx, dw, db = ops.conv2d_backward(dy, x, self.params["weight"], **self.options, output_mask=mask)
            self._set_grads(weight=dw, bias=db)
            return dx

        return self(x), back


class Linear(Module):
    """Dense layer: weight (out_features, in_features), bias (out_features,); parameters as in `Conv2d`.

    Raises
    ------
    TypeError, ValueError
        If a size is not a positive integer, or `dtype` another one.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: Rng = None,
    ):
        super().__init__()
        shape = (integer(out_features, "out_features", 1), integer(in_features, "in_features", 1))
        self.params["weight"] = kaiming_uniform(shape, in_features, rng, dtype)
        if bias:
            self.params["bias"] = np.zeros(out_features, dtype)

    def __call__(self, x):
        return ops.linear(x, self.params["weight"], self.params.get("bias"))

    def forward(self, x):
        def back(dy, need_dx=True):
            mask = (need_dx, True, "bias" in self.params)
            dx, dw, db = ops.linear_backward(dy, x, self.params["weight"], output_mask=mask)
            self._set_grads(weight=dw, bias=db)
            return dx

        return self(x), back


class ReLU(Module):
    """max(x, 0); its derivative is 1 for x > 0 and 0 for x <= 0. NaN propagates."""

    def __call__(self, x):
        x = array(x, "x")
        return np.maximum(x, 0, out=empty(x.shape, x.dtype))

    def forward(self, x):
        x = array(x, "x")
        return self(x), _zero_where(x <= 0)


class ReLU6(Module):
    """min(max(x, 0), 6); its derivative is 1 for 0 < x < 6, else 0. NaN propagates."""

    def __call__(self, x):
        x = array(x, "x")
        return np.clip(x, 0, 6, out=empty(x.shape, x.dtype))

    def forward(self, x):
        x = array(x, "x")
        return self(x), _zero_where((x <= 0) | (x >= 6))


def _zero_where(off: np.ndarray) -> Back:
    """The `back` of an activation whose derivative is 0 there, and 1 elsewhere."""

    def back(dy, need_dx=True):
        check_shape(dy, "dy", off.shape, "that of the result")
        if not need_dx:
            return None
        dx = empty(dy.shape, dy.dtype)
        np.copyto(dx, dy)
        np.putmask(dx, off, 0)
        return dx

    return back


class Flatten(Module):
    """(N, ...) to (N, product of the rest), row-major."""

    def __call__(self, x):
        x = array(x, "x")
        if x.ndim == 0:
            raise ValueError(message("x", "shape ()", "(N, ...)"))
        return x.reshape(len(x), int(np.prod(x.shape[1:])))

    def forward(self, x):
        x = array(x, "x")
        y = self(x)

        def back(dy, need_dx=True):
            check_shape(dy, "dy", y.shape, "that of the result")
            return dy.reshape(x.shape) if need_dx else None

        return y, back
