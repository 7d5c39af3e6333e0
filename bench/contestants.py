"""Who takes part, on one layer and direction: this library, PyTorch, ONNX Runtime, and im2col + BLAS in NumPy.

Every call gets the same values and returns a new output, which its library allocates. Packing of weights that a
library can do when it is given a model (ONNX Runtime, and "prepacked" of ours) is not timed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

import fastcnn as fc
from bench import im2col
from fastcnn_kernels.conv2d.cases import Layer

#: Direction -> index in the tuple of gradients, of ours and of PyTorch's.
GRADIENTS = {"dx": 0, "dw": 1}
FORMATS = {"PyTorch": torch.contiguous_format, "PyTorch channels_last": torch.channels_last}
#: Ours with weights packed beforehand; forward only.
PREPACKED = "prepacked"
#: From this many bytes on, ONNX Runtime's copy of the result into a NumPy array costs more than it takes to avoid it.
COPY_FREE = 1 << 18


class Contestant(NamedTuple):
    """A call to time, and what makes a NumPy array of what it returns."""

    call: Callable[[], Any]
    array: Callable[[Any], np.ndarray] = np.asarray

    def answer(self) -> np.ndarray:
        """Call once; the result as NCHW."""
        return self.array(self.call())


class Data(NamedTuple):
    """A layer and its three arrays: x (N, C, H, W), weight (K, C/groups, R, S), dy (N, K, P, Q)."""

    layer: Layer
    x: np.ndarray
    weight: np.ndarray
    dy: np.ndarray

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> "Data":
        """Apply `function` to every array."""
        return Data(self.layer, *map(function, self[1:]))


def draw(layer: Layer, dtype: str) -> Data:
    """Random data, the same in every run."""
    rng = np.random.default_rng(0)
    shapes = (
        (layer.N, layer.C, layer.H, layer.W),
        (layer.K, layer.C // layer.groups, layer.R, layer.S),
        (layer.N, layer.K, *layer.output),
    )
    return Data(layer, *(rng.standard_normal(shape, np.float32).astype(dtype) for shape in shapes))


def build(data: Data, direction: str, backends: list[str], spinning: bool) -> dict[str, Contestant]:
    """All contestants by name, ours (by backend, or `PREPACKED`) first."""
    taking_part = [backend for backend in backends if backend != PREPACKED or direction == "fwd"]
    contestants = {backend: ours(data, direction, backend) for backend in taking_part}
    contestants |= {name: pytorch(data, direction, layout) for name, layout in FORMATS.items()}
    if direction == "fwd" and data.x.dtype == np.float32:  # its convolution knows no float64
        contestants["ONNX Runtime"] = onnx_runtime(data, spinning)
    contestants["im2col + BLAS"] = Contestant(partial(im2col.DIRECTIONS[direction], data.layer, *data[1:]))
    return contestants


def ours(data: Data, direction: str, backend: str) -> Contestant:
    """The public op."""
    layer = data.layer
    top, bottom, left, right = layer.padding
    options: dict[str, Any] = {
        "stride": layer.stride,
        "padding": ((top, bottom), (left, right)),
        "dilation": layer.dilation,
        "groups": layer.groups,
        "backend": "auto" if backend == PREPACKED else backend,
    }
    if direction == "fwd":
        weight = fc.prepack_conv2d(data.weight) if backend == PREPACKED else data.weight
        return Contestant(partial(fc.conv2d, data.x, weight, **options))
    index = GRADIENTS[direction]
    mask = (index == 0, index == 1, False)
    call = partial(fc.conv2d_backward, data.dy, data.x, data.weight, output_mask=mask, **options)
    return Contestant(call, lambda gradients: gradients[index])


def pytorch(data: Data, direction: str, layout: torch.memory_format = torch.contiguous_format) -> Contestant:
    """PyTorch's convolution. Unequal padding, which it does not know, is a pad before it; gradients get x padded."""
    layer = data.layer
    x, weight, dy = (torch.from_numpy(array).to(memory_format=layout) for array in data[1:])
    top, bottom, left, right = layer.padding
    even = (top, left) == (bottom, right)
    padding = [top, left] if even else [0, 0]
    outside = (0, 0, 0, 0) if even else (left, right, top, bottom)

    def padded() -> torch.Tensor:
        return torch.nn.functional.pad(x, outside) if any(outside) else x

    if direction == "fwd":
        where = (None, layer.stride, padding, layer.dilation, layer.groups)
        return Contestant(lambda: torch.conv2d(padded(), weight, *where))
    image, index = padded(), GRADIENTS[direction]
    mask = [index == 0, index == 1, False]
    options = (layer.stride, padding, layer.dilation, False, [0, 0], layer.groups, mask)
    inside = np.s_[:, :, outside[2] :, outside[0] :]

    def array(gradient: torch.Tensor) -> np.ndarray:
        return np.asarray(gradient) if index else np.asarray(gradient)[inside][:, :, : layer.H, : layer.W]

    return Contestant(lambda: torch.ops.aten.convolution_backward(dy, image, weight, None, *options)[index], array)


def onnx_runtime(data: Data, spinning: bool) -> Contestant:
    """A session of a single Conv with constant weights.

    Its threads spin for more than 30 ms after work, which would disturb the next contestant: off unless `spinning`.
    """
    layer = data.layer
    top, bottom, left, right = layer.padding
    node = helper.make_node(
        "Conv",
        ["x", "weight"],
        ["y"],
        strides=layer.stride,
        pads=[top, left, bottom, right],
        dilations=layer.dilation,
        group=layer.groups,
    )
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, data.x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, data.dy.shape)],
        [numpy_helper.from_array(data.weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = fc.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    if data.dy.nbytes < COPY_FREE:
        return Contestant(partial(session.run, ["y"], {"x": data.x}), lambda results: results[0])
    value = onnxruntime.OrtValue.ortvalue_from_numpy(data.x)
    return Contestant(partial(session.run_with_ort_values, ["y"], {"x": value}), lambda results: results[0].numpy())
