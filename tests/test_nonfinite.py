"""NaN, Inf and denormals come out where direct summation puts them; a padded tap contributes nothing."""

import numpy as np
import pytest

from fastcnn_kernels import table
from fastcnn_kernels.conv2d import cases as conv2d_cases
from fastcnn_kernels.gemm import cases as gemm_cases
from kernel_checks import ROWS, random_layer, random_matmul, row_id, run, takes


def pattern(array):
    """0 finite, 1 NaN, 2 +Inf, 3 -Inf."""
    return np.select([np.isnan(array), np.isposinf(array), np.isneginf(array)], [1, 2, 3], 0)


@pytest.mark.parametrize("kernel", ROWS, ids=row_id)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # Inf - Inf, in the oracle
def test_pattern_equals_direct_summation(kernel, dtype):
    rng = np.random.default_rng(11)
    hit = count = 0
    while count < 120:
        cases = [*conv2d_cases.cases_of(random_layer(rng), bias=True), random_matmul(rng)]
        case = next(case for case in cases if case.op == kernel.op)
        arguments = case.arguments(dtype, rng, integers=True)
        if not takes(kernel, arguments):
            continue
        count += 1
        inputs = [name for name in case.shapes if name != "out"]
        poisoned = arguments[inputs[rng.integers(len(inputs))]].reshape(-1)
        poisoned[rng.integers(poisoned.size)] = rng.choice([np.nan, np.inf, -np.inf])
        expected = run(table.kernels_of(kernel.op)[-1], arguments)
        np.testing.assert_array_equal(pattern(run(kernel, arguments)), pattern(expected))
        hit += pattern(expected).any()
    assert hit > 60


@pytest.mark.parametrize("kernel", ROWS, ids=row_id)
def test_denormals_are_kept(kernel):
    rng = np.random.default_rng(12)
    layer = conv2d_cases.layer("denormal", "edge", 2, 3, 9, 4, 3, padding=1)
    others = (
        layer._replace(K=3, groups=3),
        conv2d_cases.layer("denormal, 1x1", "edge", 2, 6, 9, 7, 1),
        conv2d_cases.layer("denormal, dense", "edge", 2, 5, 3, 4, 3),
    )
    cases = [case for each in (layer, *others) for case in conv2d_cases.cases_of(each, bias=True)]
    products = [gemm_cases.matmul("denormal", "edge", 20, 40, 9, bias=bias) for bias in (True, False)]
    candidates = [case.arguments("float32", rng, integers=True) for case in [*cases, *products] if case.op == kernel.op]
    arguments = next(each for each in candidates if takes(kernel, each))
    tiny = np.float32(2.0**-140)
    first = next(name for name in ("x", "dy", "a") if name in arguments)
    scaled = {first, *({"bias"} & set(arguments))}
    small = {name: value * tiny if name in scaled and value is not None else value for name, value in arguments.items()}
    result = run(kernel, arguments)
    assert result.any()
    # Winograd's transforms round to multiples of the smallest denormal, a few hundred of them in a result
    error = 0 if kernel.algorithm == "direct" else 300 * np.float64(2.0**-149)
    np.testing.assert_allclose(run(kernel, small), result * tiny, rtol=0, atol=error)
