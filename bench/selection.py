"""Which layers are timed: the cases of the kernel tests, and lists of layers in JSON files."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from fastcnn_kernels import table
from fastcnn_kernels.cases import Case
from fastcnn_kernels.conv2d.cases import HEADLINE, Layer, cases_of
from fastcnn_kernels.gemm import cases as gemm_cases

#: Direction of a layer -> op of the table.
OPS = {"fwd": "conv2d", "dx": "conv2d_grad_input", "dw": "conv2d_grad_weight"}

#: What ``pytest bench`` runs without --all-layers: the small networks' layers, and one layer of each class on which
#: the naive row, which also gives the reference, takes at most about 0.1 s.
QUICK = (
    "essay conv 1->1 20x20 batch 1",
    "essay conv 1->1 20x20 batch 64",
    "LeNet-5 conv1",
    "LeNet-5 conv2",
    "CIFAR ResNet-20 16x16 32",
    "MobileNetV2 28x28 192->32",
    "MobileNetV2 dw 3x3/2 192 28x28",
    "ResNeXt 3x3 32 groups of 16 14x14",
    "ResNet-18 14x14 256 batch 1",
    "MLPerf Tiny ResNet-8 32x32 16 batch 1",
)


def bench_cases(all_layers: bool) -> list[Case]:
    """Cases of ``pytest bench``: dense layers, and the quick selection of HEADLINE or all of it."""
    layers = [layer for layer in HEADLINE if all_layers or layer.name in QUICK]
    return gemm_cases.LAYERS + [case for layer in layers for case in cases_of(layer)]


def rows_of(case: Case, dtype: str) -> list[table.Kernel]:
    """Rows that can run here and take the case, in order of preference, the naive one last."""
    call = {name: np.empty(shape, dtype) for name, shape in case.shapes.items()} | case.options
    return [
        row
        for row in table.kernels_of(case.op)
        if dtype in row.dtypes and not table.unavailable(row.backend) and not row.refuses(**call)
    ]


def case_of(layer: Layer, direction: str) -> Case:
    """Case of a layer in one of the directions of `OPS`."""
    return next(case for case in cases_of(layer) if case.op == OPS[direction])


def read_layers(path: Path) -> list[Layer]:
    """Read a JSON list of layers; one without a class is of the class of the file's name.

    Raises
    ------
    ValueError
        If the file holds no layers, or a layer's P and Q are not what its other sizes give.
    """
    try:
        entries = json.loads(path.read_text())
        layers = [_layer(entry, path.stem) for entry in entries]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path.name}: not a list of convolution layers: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    if not layers:
        raise ValueError(f"{path.name}: holds no layers")
    return layers


def _layer(entry: dict[str, Any], group: str) -> Layer:
    """Layer of an entry of a file."""
    layer = Layer(
        name=entry["name"],
        group=entry.get("cls", group),
        **{letter: entry[letter] for letter in "NCHWKRS"},
        stride=(entry["stride_h"], entry["stride_w"]),
        # Negative: a stride that leaves the last rows unread, which padding by 0 does as well.
        padding=tuple(max(0, entry[name]) for name in ("pad_t", "pad_b", "pad_l", "pad_r")),
        dilation=(entry["dil_h"], entry["dil_w"]),
        groups=entry["groups"],
    )
    if layer.output != (entry["P"], entry["Q"]):
        raise ValueError(f"{layer.name}: output {entry['P']} x {entry['Q']} does not fit its sizes")
    return layer


def choose(files: list[Path], only: str) -> list[Layer]:
    """Layers of the files, or HEADLINE without any, whose name has `only` in it.

    Raises
    ------
    ValueError
        If there are none, or a file holds something else.
    """
    layers = [layer for path in files for layer in read_layers(path)] if files else HEADLINE
    chosen = [layer for layer in layers if only in layer.name]
    if not chosen:
        raise ValueError(f"--only {only!r}: no layer has this in its name")
    return chosen
