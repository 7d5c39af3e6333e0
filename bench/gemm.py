"""Matrix products beside numpy.matmul, dense layers beside torch.nn.functional.linear."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fastcnn as fc
from bench import answers, timing
from bench.contestants import Contestant
from fastcnn_kernels import oracle

SQUARES = (64, 128, 256, 512, 1024, 2048)
BATCHES = (1, 8, 64)
#: (inputs, outputs): LeNet-5's first, ResNet-50's last, a square one, VGG's second.
DENSE = ((400, 120), (2048, 1000), (1024, 1024), (4096, 4096))


def measure(path: Path, dtype: str, backends: list[str], rounds: int, only: str) -> Iterator[dict[str, Any]]:
    """Check and time every product and dense layer whose name has `only` in it; rows as those of `peers`."""
    rng = np.random.default_rng(0)
    for label, name, M, N, L, ta, tb in products(path):
        if only in name:
            a = rng.standard_normal((L, M) if ta else (M, L), np.float32).astype(dtype)
            b = rng.standard_normal((N, L) if tb else (L, N), np.float32).astype(dtype)
            a, b = a.T if ta else a, b.T if tb else b
            contestants = {backend: Contestant(partial(fc.matmul, a, b, backend=backend)) for backend in backends}
            contestants["NumPy"] = Contestant(partial(np.matmul, a, b))
            yield _row(name, label, "matmul", (a, b, None), contestants, rounds)
    for inputs, outputs in DENSE:
        for batch in BATCHES:
            name = f"linear {inputs}->{outputs} batch {batch}"
            if only in name:
                shapes = ((batch, inputs), (outputs, inputs), (outputs,))
                given = [rng.standard_normal(shape, np.float32).astype(dtype) for shape in shapes]
                contestants = {backend: Contestant(partial(fc.linear, *given, backend=backend)) for backend in backends}
                tensors = [torch.from_numpy(each) for each in given]
                contestants["PyTorch"] = Contestant(partial(torch.nn.functional.linear, *tensors))
                x, weight, bias = given
                yield _row(name, f"linear batch {batch}", "linear", (x, weight.T, bias), contestants, rounds)


def products(path: Path) -> Iterator[tuple[str, str, int, int, int, bool, bool]]:
    """(class, name, M, N, L, a transposed, b transposed) of the file's products and the squares."""
    for entry in json.loads(path.read_text()):
        M, N, L, ta, tb = (entry[key] for key in ("M", "N", "K", "ta", "tb"))
        yield path.stem, f"{M}x{N}x{L}{' ta' * ta}{' tb' * tb}", M, N, L, ta, tb
    for n in SQUARES:
        yield "square", f"square {n}", n, n, n, False, False


def _row(name, label, direction, arrays, contestants, rounds) -> dict[str, Any]:
    """Check and time; `arrays` are a, b and bias or None of ``a @ b + bias``."""
    wide = [None if each is None else each.astype(np.float64) for each in arrays]
    reference, magnitude = _product(*wide), _product(*(None if each is None else abs(each) for each in wide))
    a, b, bias = arrays
    bound = oracle.error_bound(a.dtype.name, a.shape[1] + (bias is not None), magnitude)
    for who, contestant in contestants.items():
        answers.assert_within(contestant.answer(), reference, bound, f"{who} on {name}")
    nbytes = (a.size + b.size + reference.size + (0 if bias is None else bias.size)) * a.itemsize
    return {
        "layer": name,
        "class": label,
        "direction": direction,
        "flops": 2 * reference.size * a.shape[1],
        "bytes": nbytes,
        "seconds": timing.take_turns({who: each.call for who, each in contestants.items()}, rounds),
    }


def _product(a, b, bias):
    return a @ b if bias is None else a @ b + bias
