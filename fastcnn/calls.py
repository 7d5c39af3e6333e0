"""The kernel calls behind each public op: arguments checked, arrays prepared, result allocated, nothing run.

A function per op, with the op's parameters except `backend`. Each returns the steps for `dispatch` and the
result they fill. Both the op and `explain` start from here.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from fastcnn import checks
from fastcnn.arrays import allocate, array, check_dtype, check_shape, output, ready
from fastcnn.dispatch import Step
from fastcnn.prepacked import Conv2dWeight

Plan = tuple[list[Step], np.ndarray]
Gradients = tuple[list[Step], tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]]


def _conv2d_arguments(x, weight, stride, padding, dilation, groups):
    x, weight = array(x, "x"), array(weight, "weight")
    check_dtype(weight, "weight", x, "x")
    plain = _plain(stride) and _plain(padding) and _plain(dilation) and type(groups) is int
    geometry_of = _known_geometry if plain else _geometry
    return x, weight, geometry_of(x.shape, weight.shape, stride, padding, dilation, groups)


def _geometry(x_shape, weight_shape, stride, padding, dilation, groups):
    return checks.conv2d_geometry(
        x_shape,
        weight_shape,
        checks.pair(stride, "stride", 1),
        checks.padding_option(padding),
        checks.pair(dilation, "dilation", 1),
        checks.integer(groups, "groups", 1),
    )


def _plain(option: Any) -> bool:
    """Whether an option is made of nothing but integers: a cache cannot tell 1 from True inside a tuple."""
    if type(option) is not tuple:
        return type(option) is int
    plain = True
    for each in option:
        plain = plain and (type(each) is int or _plain(each))
    return plain


#: Plain options are looked up as they come.
_known_geometry = lru_cache(maxsize=4096)(_geometry)


def _bias(bias: Any, x: np.ndarray, weight: np.ndarray) -> np.ndarray | None:
    if bias is None:
        return None
    bias = array(bias, "bias")
    check_dtype(bias, "bias", x, "x")
    check_shape(bias, "bias", weight.shape[:1], f"one value per output: weight has shape {weight.shape}")
    return bias


def _batched(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 4 else image[None]


def conv2d(x, weight, bias, stride, padding, dilation, groups, activation, max_pool, out) -> Plan:
    """Steps and result of `ops.conv2d`."""
    packed = weight.packed if type(weight) is Conv2dWeight else None
    x, weight, geometry = _conv2d_arguments(x, weight, stride, padding, dilation, groups)
    bias = _bias(bias, x, weight)
    activation = checks.activation_option(activation)
    window, shape = checks.max_pool_option(max_pool, geometry.y_shape)
    result = output(out, shape, x, weight, bias)
    if result.size == 0:
        return [], result
    call = {
        "x": _batched(ready(x, "x")),
        "weight": ready(weight, "weight"),
        "bias": None if bias is None else ready(bias, "bias"),
        "out": _batched(result),
        **geometry.options,
        "activation": activation,
        "max_pool": window,
        "packed": packed,
    }
    key = (geometry.token, bias is None, activation, window, packed is None)
    return [("conv2d", geometry.work, call, key)], result


def conv2d_backward(dy, x, weight, stride, padding, dilation, groups, output_mask) -> Gradients:
    """Steps and results of `ops.conv2d_backward`."""
    x, weight, geometry = _conv2d_arguments(x, weight, stride, padding, dilation, groups)
    dy = array(dy, "dy")
    check_dtype(dy, "dy", x, "x")
    check_shape(dy, "dy", geometry.y_shape, "that of conv2d's result")
    want_dx, want_dw, want_db = checks.mask_option(output_mask)
    dx = allocate("dx", x.shape, x.dtype) if want_dx else None
    dw = allocate("dw", weight.shape, x.dtype) if want_dw else None
    db = allocate("db", weight.shape[:1], x.dtype) if want_db else None
    if dy.size == 0:
        return [], (dx, _zeroed(dw), _zeroed(db))
    steps: list[Step] = []
    if dx is not None or dw is not None or db is not None:
        dy = _batched(ready(dy, "dy"))
    if dx is not None:
        call = {"dy": dy, "weight": ready(weight, "weight"), "out": _batched(dx), **geometry.options}
        steps.append(("conv2d_grad_input", geometry.work, call, (geometry.token,)))
    if dw is not None:
        call = {"dy": dy, "x": _batched(ready(x, "x")), "out": dw, **geometry.options}
        steps.append(("conv2d_grad_weight", geometry.work, call, (geometry.token,)))
    if db is not None:
        steps.append(("conv2d_grad_bias", dy.size, {"dy": dy, "out": db}, None))
    return steps, (dx, dw, db)


def _zeroed(value: np.ndarray | None) -> np.ndarray | None:
    """Gradient of an empty batch."""
    if value is not None:
        value[...] = 0
    return value


def _matrices(value: np.ndarray, name: str) -> tuple[np.ndarray, bool]:
    """Return matrices (..., rows, columns) as a C-contiguous array, and whether it holds them transposed."""
    flags = value.flags
    if not flags.c_contiguous and flags.aligned:
        base = value.swapaxes(-1, -2)
        if base.flags.c_contiguous:
            return base, True
    return ready(value, name), False


def _stack(value: np.ndarray, batch: checks.Shape, name: str) -> tuple[np.ndarray, bool]:
    """Return matrices as (Z or 1, rows, columns), and whether they are transposed; Z counts the batch."""
    if value.ndim > 2 and math.prod(value.shape[:-2]) != 1 and value.shape[:-2] != batch:
        value = np.broadcast_to(value, (*batch, *value.shape[-2:]))
    base, transposed = _matrices(value, name)
    return base.reshape(-1, *base.shape[-2:]), transposed


def _product(
    a: np.ndarray,
    b: np.ndarray,
    batch: checks.Shape,
    result: np.ndarray,
    bias: np.ndarray | None,
    names: tuple[str, str],
) -> list[Step]:
    """Steps that fill `result` with ``a @ b + bias``; a and b have at least two dimensions."""
    rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    if result.size == 0:
        return []
    if inner == 0:
        result[...] = 0 if bias is None else bias
        return []
    a_name, b_name = names
    if a.ndim == b.ndim == 2:
        (a, transpose_a), (b, transpose_b) = _matrices(a, a_name), _matrices(b, b_name)
        a, b = a[None], b[None]
    else:
        a, transpose_a = _stack(a, batch, a_name)
        b, transpose_b = _stack(b, batch, b_name)
    out = result.reshape(-1, rows, columns)
    work = 2 * out.size * inner
    if len(b) == 1 and len(a) > 1 and not transpose_a:
        # One matrix for the whole batch: its rows are the rows of one tall matrix.
        a, out = a.reshape(1, -1, inner), out.reshape(1, -1, columns)
    call = {"a": a, "b": b, "bias": bias, "out": out, "transpose_a": transpose_a, "transpose_b": transpose_b}
    return [("matmul", work, call, (a.shape, b.shape, transpose_a, transpose_b, bias is None))]


def matmul(a, b, out) -> Plan:
    """Steps and result of `ops.matmul`."""
    a, b = array(a, "a"), array(b, "b")
    check_dtype(b, "b", a, "a")
    batch, shape = checks.matmul_shape(a.shape, b.shape)
    result = output(out, shape, a, b)
    if a.ndim == 1:
        a = a[None, :]
    if b.ndim == 1:
        b = b[:, None]
    return _product(a, b, batch, result, None, ("a", "b")), result


def linear(x, weight, bias, out) -> Plan:
    """Steps and result of `ops.linear`."""
    x, weight = array(x, "x"), array(weight, "weight")
    check_dtype(weight, "weight", x, "x")
    shape = checks.linear_shape(x.shape, weight.shape)
    bias = _bias(bias, x, weight)
    result = output(out, shape, x, weight, bias)
    if bias is not None:
        bias = ready(bias, "bias")
    return _product(_rows(x), ready(weight, "weight").T, (), result, bias, ("x", "weight")), result


def _rows(value: np.ndarray) -> np.ndarray:
    """Return (..., features) as (M, features)."""
    return value if value.ndim == 2 else value.reshape(math.prod(value.shape[:-1]), value.shape[-1])


def linear_backward(dy, x, weight, output_mask) -> Gradients:
    """Steps and results of `ops.linear_backward`."""
    x, weight, dy = array(x, "x"), array(weight, "weight"), array(dy, "dy")
    check_dtype(weight, "weight", x, "x")
    check_dtype(dy, "dy", x, "x")
    check_shape(dy, "dy", checks.linear_shape(x.shape, weight.shape), "that of linear's result")
    want_dx, want_dw, want_db = checks.mask_option(output_mask)
    dx = allocate("dx", x.shape, x.dtype) if want_dx else None
    dw = allocate("dw", weight.shape, x.dtype) if want_dw else None
    db = allocate("db", weight.shape[:1], x.dtype) if want_db else None
    rows = ready(_rows(dy), "dy")
    steps: list[Step] = []
    if dx is not None:
        steps += _product(rows, weight, (), dx, None, ("dy", "weight"))
    if dw is not None:
        steps += _product(rows.T, _rows(x), (), dw, None, ("dy", "x"))
    if db is not None:
        if dy.size == 0:
            _zeroed(db)
        else:
            call = {"dy": rows[:, :, None, None], "out": db}
            steps.append(("conv2d_grad_bias", dy.size, call, None))
    return steps, (dx, dw, db)
