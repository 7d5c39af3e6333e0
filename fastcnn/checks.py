"""What a user may ask for: options as plain integers, output-shape formulas, and their error texts.

Every message has the form "argument: got this, expected that". Arrays themselves are taken in by `arrays`.
"""

import operator
from functools import lru_cache
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np

#: Stride, padding and dilation have to be below it: the sums the kernels form of them then fit 64 bits.
OPTION_LIMIT = 2**31

#: Names of the activations that a convolution may apply.
ACTIVATIONS = ("relu", "relu6")

Shape = tuple[int, ...]
Pair = tuple[int, int]


def message(name: str, got: object, expected: str) -> str:
    """The one form of an error text."""
    return f"{name}: got {got}, expected {expected}"


def integer(value: Any, name: str, least: int, limit: int = OPTION_LIMIT) -> int:
    """Return `value` as an int of at least `least` and below `limit`, a power of 2; a bool is not an integer."""
    if type(value) is not int:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError(message(name, f"the bool {value}", "an integer"))
        try:
            value = int(operator.index(value))
        except TypeError:
            raise TypeError(message(name, f"{short(value)} ({type(value).__name__})", "an integer")) from None
    if value < least:
        raise ValueError(message(name, value, f"at least {least}"))
    if value >= limit:
        raise OverflowError(message(name, value, f"less than 2**{limit.bit_length() - 1}"))
    return value


def float_dtype(dtype: Any) -> np.dtype:
    """Return float32 or float64 as NumPy's dtype."""
    try:
        known = np.dtype(dtype)
    except TypeError:
        known = None
    if dtype is None or known not in (np.float32, np.float64):
        raise TypeError(message("dtype", short(dtype), "float32 or float64"))
    return known


def pair(value: Any, name: str, least: int) -> Pair:
    """Return an int, or a sequence of two, as a pair (vertical, horizontal)."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(message(name, short(value), "an integer or a pair of integers"))
        return integer(value[0], name, least), integer(value[1], name, least)
    value = integer(value, name, least)
    return value, value


def padding_option(value: Any) -> str | tuple[int, int, int, int]:
    """Return "same", or the padding as (top, bottom, left, right)."""
    if type(value) is int:
        value = integer(value, "padding", 0)
        return value, value, value, value
    if isinstance(value, str):
        if value not in ("same", "valid"):
            raise ValueError(message("padding", short(value), "'same', 'valid' or integers"))
        return "same" if value == "same" else (0, 0, 0, 0)
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(message("padding", short(value), "an integer, a pair or ((top, bottom), (left, right))"))
        return (*pair(value[0], "padding", 0), *pair(value[1], "padding", 0))
    return (*pair(value, "padding", 0), *pair(value, "padding", 0))


def activation_option(activation: Any) -> str | None:
    """Check the name of an activation."""
    if activation is None or (isinstance(activation, str) and activation in ACTIVATIONS):
        return activation
    expected = "one of None, " + ", ".join(map(repr, ACTIVATIONS))
    if not isinstance(activation, str):
        raise TypeError(message("activation", f"{short(activation)} ({type(activation).__name__})", expected))
    raise ValueError(message("activation", repr(activation), expected))


def max_pool_option(window: Any, shape: Shape) -> tuple[int, Shape]:
    """Return the window over which maxima are taken, 1 for None, and what is left of a result of `shape`."""
    if window is None:
        return 1, shape
    if integer(window, "max_pool", 1) != 2:
        raise ValueError(message("max_pool", window, "None or 2"))
    if min(shape[-2:]) < 2:
        raise ValueError(message("max_pool", window, f"None for a result of {shape[-2]} x {shape[-1]} pixels"))
    return 2, (*shape[:-2], shape[-2] // 2, shape[-1] // 2)


def mask_option(value: Any) -> tuple[bool, bool, bool]:
    """Return `output_mask` as three bools."""
    if not isinstance(value, (tuple, list)) or any(not isinstance(each, (bool, np.bool_)) for each in value):
        raise TypeError(message("output_mask", short(value), "a sequence of three bools"))
    if len(value) != 3:
        raise ValueError(message("output_mask", short(value), "a sequence of three bools"))
    return bool(value[0]), bool(value[1]), bool(value[2])


class Geometry(NamedTuple):
    """A convolution's options as the kernels take them, and what follows from them.

    Attributes
    ----------
    options : dict
        Keywords stride, padding, dilation, groups of the kernels.
    y_shape : tuple of int
        Shape of the result: (N, K, P, Q), or (K, P, Q) for an unbatched input.
    work : int
        Floating-point operations of the forward pass, and of each of the gradients of input and weights.
    token : object
        Stands for shapes and options where they have to be hashed.
    """

    options: dict[str, Any]
    y_shape: Shape
    work: int
    token: object


@lru_cache(maxsize=4096)
def conv2d_geometry(
    x: Shape,
    weight: Shape,
    stride: Pair,
    padding: str | tuple[int, int, int, int],
    dilation: Pair,
    groups: int,
) -> Geometry:
    """Check the shapes of a convolution and its options, which are normalised already; derive the rest."""
    _check_conv2d_shapes(x, weight, groups)
    size, kernel = x[-2:], weight[2:]
    if isinstance(padding, str):
        padding = _same_padding(kernel, stride, dilation)
    padded = size[0] + padding[0] + padding[1], size[1] + padding[2] + padding[3]
    extent = dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1
    if extent[0] > padded[0] or extent[1] > padded[1]:
        raise ValueError(message("weight", f"a dilated kernel of {extent}", f"at most the padded input size, {padded}"))
    out = [(padded[i] - extent[i]) // stride[i] + 1 for i in range(2)]
    y_shape = (*x[:-3], weight[0], *out)
    batch = x[0] if len(x) == 4 else 1
    work = 2 * batch * weight[0] * out[0] * out[1] * weight[1] * kernel[0] * kernel[1]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return Geometry(options, y_shape, work, object())


def _check_conv2d_shapes(x: Shape, weight: Shape, groups: int) -> None:
    if len(x) not in (3, 4):
        raise ValueError(message("x", f"shape {x}", "(N, C, H, W) or (C, H, W)"))
    if len(weight) != 4:
        raise ValueError(message("weight", f"shape {weight}", "(C_out, C_in/groups, kH, kW)"))
    if 0 in x[-3:]:
        raise ValueError(message("x", f"shape {x}", "C, H and W of at least 1"))
    if 0 in weight:
        raise ValueError(message("weight", f"shape {weight}", "every dimension to be at least 1"))
    channels = x[-3]
    if channels % groups:
        raise ValueError(message("groups", groups, f"a divisor of C = {channels}: x has shape {x}"))
    if weight[0] % groups:
        raise ValueError(message("groups", groups, f"a divisor of C_out = {weight[0]}: weight has shape {weight}"))
    if channels != weight[1] * groups:
        raise ValueError(
            message(
                "x",
                f"shape {x} with C = {channels}",
                f"C = weight.shape[1] * groups = {weight[1]} * {groups} = {weight[1] * groups}: "
                f"weight has shape {weight}",
            )
        )


def _same_padding(kernel: Shape, stride: Pair, dilation: Pair) -> tuple[int, int, int, int]:
    """Padding that keeps the size, split as torch does: the odd pixel comes after."""
    if stride != (1, 1):
        raise ValueError(message("stride", stride, "1 with padding='same'"))
    total = [dilation[i] * (kernel[i] - 1) for i in range(2)]
    if max(total) >= OPTION_LIMIT:
        raise OverflowError(message("dilation", dilation, f"padding='same' below 2**31, not {max(total)}"))
    return total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2


@lru_cache(maxsize=4096)
def matmul_shape(a: Shape, b: Shape) -> tuple[Shape, Shape]:
    """Return the broadcast batch dimensions and the result's shape of ``numpy.matmul(a, b)``."""
    for name, shape in (("a", a), ("b", b)):
        if not shape:
            raise ValueError(message(name, "shape ()", "at least one dimension"))
    if a[-1] != (inner := b[-2] if len(b) > 1 else b[0]):
        raise ValueError(message("b", f"shape {b} with inner dimension {inner}", f"{a[-1]}, the last of a's shape {a}"))
    try:
        batch = np.broadcast_shapes(a[:-2], b[:-2])
    except ValueError:
        expected = f"batch dimensions that broadcast with those of a's shape {a}"
        raise ValueError(message("b", f"shape {b}", expected)) from None
    return batch, (*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))


@lru_cache(maxsize=4096)
def linear_shape(x: Shape, weight: Shape) -> Shape:
    """Return the shape of ``linear(x, weight)``: x's with the last dimension replaced."""
    if len(weight) != 2:
        raise ValueError(message("weight", f"shape {weight}", "(out_features, in_features)"))
    if not x or x[-1] != weight[1]:
        raise ValueError(message("x", f"shape {x}", f"(..., in_features = {weight[1]}): weight has shape {weight}"))
    return (*x[:-1], weight[0])
