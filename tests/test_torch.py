"""The public ops against torch.nn.functional and autograd: random layers, forward and all gradients."""

import numpy as np
import pytest
import torch

import fastcnn as fc
from fastcnn_kernels import table
from fastcnn_kernels.conv2d.cases import cases_of
from kernel_checks import error_bound, random_layer


def torch_conv2d(x, weight, bias, dy, layer):
    """Result and gradients of torch; asymmetric padding by torch.nn.functional.pad."""
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, weight, bias)]
    top, bottom, left, right = layer.padding
    padded = torch.nn.functional.pad(tensors[0], (left, right, top, bottom))
    y = torch.nn.functional.conv2d(padded, *tensors[1:], layer.stride, 0, layer.dilation, layer.groups)
    y.backward(torch.from_numpy(dy))
    return [y.detach().numpy(), *(tensor.grad.numpy() for tensor in tensors)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_500_random_layers_forward_and_gradients(dtype):
    rng = np.random.default_rng(20)
    for _ in range(500):
        layer = random_layer(rng)
        cases = cases_of(layer, bias=True)
        x, weight, bias = (cases[0].arguments(dtype, rng)[name] for name in ("x", "weight", "bias"))
        dy = rng.standard_normal(cases[0].shapes["out"]).astype(dtype)
        expected = torch_conv2d(x, weight, bias, dy, layer)
        arrays = {"x": x, "weight": weight, "bias": bias, "dy": dy}
        bounds = []
        for case, result in zip(cases, expected, strict=True):
            arguments = {name: arrays[name] for name in case.shapes if name != "out"}
            bounds.append(error_bound(case.op, arguments | case.options | {"out": result}, case.terms))
        top, bottom, left, right = layer.padding
        options = {
            "stride": layer.stride,
            "padding": ((top, bottom), (left, right)),
            "dilation": layer.dilation,
            "groups": layer.groups,
        }
        for backend in table.BACKENDS:
            with fc.use_algorithm("direct"):  # the bound is that of plain sums
                y = fc.conv2d(x, weight, bias, backend=backend, **options)
                got = [y, *fc.conv2d_backward(dy, x, weight, backend=backend, **options)]
            for name, ours, theirs, bound in zip(("y", "dx", "dw", "db"), got, expected, bounds, strict=True):
                # both may be wrong by the bound, in opposite directions
                assert (abs(ours - theirs) <= 2 * bound).all(), f"{name} of {layer} on {backend}"


@pytest.mark.parametrize("backend", table.BACKENDS)
@pytest.mark.parametrize("padding", ["same", "valid", 2, (1, 2)])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_padding_forms_are_those_of_torch(backend, padding):
    rng = np.random.default_rng(21)
    x, weight = rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((4, 3, 4, 3))
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(x), torch.from_numpy(weight), padding=padding, dilation=(1, 2)
    )
    got = fc.conv2d(x, weight, padding=padding, dilation=(1, 2), backend=backend)
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("backend", table.BACKENDS)
def test_gradients_equal_central_differences(backend):
    """Convolution is bilinear: central differences have no error but rounding, whatever the step."""
    rng = np.random.default_rng(22)
    for _ in range(100):
        layer = random_layer(rng)
        case = cases_of(layer)[0]
        x, weight = (case.arguments("float64", rng)[name] for name in ("x", "weight"))
        dy = rng.standard_normal(case.shapes["out"])
        (top, bottom, left, right), groups = layer.padding, layer.groups
        options = (layer.stride, ((top, bottom), (left, right)), layer.dilation, groups)
        dx, dw, _ = fc.conv2d_backward(dy, x, weight, *options, backend=backend)
        for array, gradient, at in ((x, dx, 0), (weight, dw, 1)):
            direction = rng.standard_normal(array.shape)
            sides = []
            for step in (0.5, -0.5):
                moved = [x, weight]
                moved[at] = array + step * direction
                sides.append((dy * fc.conv2d(*moved, None, *options, backend=backend)).sum())
            scale = (abs(gradient) * abs(direction)).sum() + abs(sides[0]) + abs(sides[1])
            assert abs(sides[0] - sides[1] - (gradient * direction).sum()) <= 1e-10 * scale
