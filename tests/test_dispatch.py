"""Which kernel runs, why the others did not, and who decides."""

import sys
import threading
import types

import numpy as np
import pytest

import fastcnn as fc
from fastcnn import dispatch
from fastcnn_kernels import table

X, W = np.ones((1, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float32)


@pytest.fixture
def fake(rows, monkeypatch):
    """Put rows of a kernel that fills its output with a number in front of the table."""
    module = types.ModuleType("fake_kernels")
    monkeypatch.setitem(sys.modules, "fake_kernels", module)

    def insert(name, value, **options):
        setattr(module, name, lambda *, out, **call: out.fill(value))
        options = {"op": "conv2d", "backend": "numpy"} | options
        rows.insert(0, table.Kernel(name=name, module="fake_kernels", function=name, **options))

    return insert


def test_first_row_that_takes_the_call_runs(fake):
    fake("second", 2)
    fake("first", 1)
    assert (fc.conv2d(X, W) == 1).all()
    assert fc.explain("conv2d", X, W).kernels == ["first"]


def test_row_that_refuses_is_passed_over_with_its_reason(fake):
    fake("second", 2)
    fake("first", 1, refuses=lambda *, stride, **_: "stride is not 1" if stride != (1, 1) else "")
    assert (fc.conv2d(X, W) == 1).all()
    assert (fc.conv2d(X, W, stride=2) == 2).all()
    explanation = fc.explain("conv2d", X, W, stride=2)
    assert explanation.kernels == ["second"]
    assert explanation.choices[0].declined == [("first", "stride is not 1")]
    assert str(explanation) == "conv2d: second\n  first declined: stride is not 1"


def test_row_without_the_dtype_declines(fake):
    fake("only32", 1, dtypes=("float32",))
    assert fc.explain("conv2d", X, W).kernels == ["only32"]
    explanation = fc.explain("conv2d", X.astype("f8"), W.astype("f8"), backend="numpy")
    assert explanation.choices[0].declined[0] == ("only32", "takes float32, not float64")
    assert explanation.kernels == ["conv2d_numpy"]


def test_refusal_sees_the_ops_keywords_but_no_thread_count(fake):
    seen = []
    fake("curious", 1, refuses=lambda **call: seen.append(sorted(call)) or "")
    fc.conv2d(X, W)
    assert seen == [
        ["activation", "bias", "dilation", "groups", "max_pool", "out", "packed", "padding", "stride", "weight", "x"]
    ]


def test_named_backend_without_a_kernel_lists_all_reasons(fake, rows):
    rows.clear()
    fake("last", 3, backend="numba")
    fake("picky", 2, refuses=lambda **_: "too early")
    fake("sorted", 1, refuses=lambda **_: "too small")
    with pytest.raises(RuntimeError, match="conv2d: backend 'numpy' has no kernel") as caught:
        fc.conv2d(X, W, backend="numpy")
    for part in ("sorted: too small", "picky: too early", "last: backend 'numpy' was asked for"):
        assert part in str(caught.value)
    explanation = fc.explain("conv2d", X, W, backend="numpy")
    assert explanation.kernels == [None]
    assert "no kernel takes this call" in str(explanation)


def test_broken_kernel_module_is_an_error_not_a_refusal(rows):
    rows.insert(0, table.Kernel("broken", "conv2d", "numpy", "fastcnn_kernels.no_such_module", "conv2d"))
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        fc.conv2d(X, W)


@pytest.mark.parametrize("backend", table.BACKENDS)
def test_every_backend_has_a_row_for_every_op(backend):
    assert fc.backends()[backend] == "available"
    y = fc.conv2d(X, W)
    for call in (
        ("conv2d", X, W),
        ("conv2d_backward", y, X, W),
        ("matmul", X, X.swapaxes(-1, -2)),
        ("linear", X, X[0, 0]),
        ("linear_backward", X, X, X[0, 0]),
    ):
        for dtype in ("float32", "float64"):
            arrays = [array.astype(dtype) for array in call[1:]]
            for kernel in fc.explain(call[0], *arrays, backend=backend).kernels:
                assert kernel.endswith(f"_{backend}")


def test_last_row_of_each_op_is_the_oracle_and_takes_everything():
    for op in {kernel.op for kernel in table.KERNELS}:
        last = table.kernels_of(op)[-1]
        assert (last.backend, last.refuses) == ("numpy", table.takes_everything)
    assert len({kernel.name for kernel in table.KERNELS}) == len(table.KERNELS)


def test_backward_explains_each_kernel_and_honours_the_mask():
    y = fc.conv2d(X, W)
    names = fc.explain("conv2d_backward", y, X, W, output_mask=(True, False, True), backend="numpy").kernels
    assert names == ["conv2d_grad_input_numpy", "conv2d_grad_bias_numpy"]
    assert fc.conv2d_backward(y, X, W, output_mask=(False, True, False))[::2] == (None, None)
    names = fc.explain("linear_backward", X, X, X[0, 0], backend="numpy").kernels
    assert names == ["matmul_numpy", "matmul_numpy", "conv2d_grad_bias_numpy"]
    assert fc.linear_backward(X, X, X[0, 0], output_mask=(False, False, False)) == (None, None, None)


def test_explain_runs_nothing_and_takes_the_ops_arguments(fake):
    fake("never", 9, refuses=lambda **_: "")
    out = np.zeros((1, 3, 5, 5), np.float32)
    assert fc.explain("conv2d", X, weight=W, padding=1, out=out).kernels == ["never"]
    assert not out.any()
    assert str(fc.explain("conv2d", X[:0], W)) == "no kernel: the result needs no computation"
    with pytest.raises(TypeError, match="unexpected keyword argument 'strides'"):
        fc.explain("conv2d", X, W, strides=2)


def kernel_in_use():
    (name,) = fc.explain("conv2d", X, W).kernels
    return name.rpartition("_")[2]


def test_argument_beats_context_beats_process_beats_auto():
    assert fc.get_backend() == "auto"
    fc.set_backend("numpy")
    assert kernel_in_use() == fc.get_backend() == "numpy"
    with fc.use_backend("cython"):
        assert kernel_in_use() == fc.get_backend() == "cython"
        with fc.use_backend("numpy"):
            assert kernel_in_use() == "numpy"
        assert kernel_in_use() == "cython"
        assert fc.explain("conv2d", X, W, backend="numpy").kernels == ["conv2d_numpy"]
        assert fc.explain("conv2d", X, W, backend="numba").kernels[0].endswith("_numba")
        with fc.use_backend("numba"):
            assert fc.explain("conv2d", X, W, backend="auto").kernels[0].endswith("_cython")
    assert kernel_in_use() == "numpy"
    fc.set_backend("auto")
    assert fc.get_backend() == "auto"


def test_use_backend_ends_with_an_exception():
    with pytest.raises(KeyError), fc.use_backend("numpy"):
        raise KeyError
    assert fc.get_backend() == "auto"


def test_use_backend_is_not_seen_by_other_threads():
    seen = []
    with fc.use_backend("numpy"):
        thread = threading.Thread(target=lambda: seen.append(fc.get_backend()))
        thread.start()
        thread.join()
    assert seen == ["auto"]
    fc.set_backend("numpy")
    thread = threading.Thread(target=lambda: seen.append(fc.get_backend()))
    thread.start()
    thread.join()
    assert seen == ["auto", "numpy"]


SHOW = """
import fastcnn as fc, numpy as np
x = np.ones((1, 1, 3, 3), np.float32)
def attempt(run):
    try:
        return run()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
print(attempt(fc.get_backend))
print(attempt(lambda: fc.explain("conv2d", x, x).kernels))
print(attempt(lambda: fc.conv2d(x, x).item()))
"""


@pytest.mark.parametrize("backend", table.BACKENDS)
def test_environment_variable_chooses(python, backend):
    lines = python(SHOW, env={"FASTCNN_BACKEND": backend}).splitlines()
    assert lines[::2] == [backend, "9.0"]
    assert lines[1].endswith(f"_{backend}']")


def test_environment_variable_empty_is_auto(python):
    assert python(SHOW, env={"FASTCNN_BACKEND": ""}).splitlines()[0] == "auto"


def test_bad_environment_variable_is_named(python):
    lines = python(SHOW, env={"FASTCNN_BACKEND": "cuda"}).splitlines()
    text = "ValueError: environment variable FASTCNN_BACKEND: got 'cuda', expected one of auto, cython, numba, numpy"
    assert lines == [text] * 3


def test_bad_cpu_level_is_named(python):
    text = python(SHOW, env={"FASTCNN_CPU_LEVEL": "z80", "FASTCNN_BACKEND": "cython"}).splitlines()[2]
    assert text.startswith("ValueError: environment variable FASTCNN_CPU_LEVEL='z80'")


def test_one_selection_loop_serves_run_and_explain(monkeypatch):
    row = table.kernels_of("conv2d")[-1]
    monkeypatch.setattr(dispatch, "select", lambda op, choice, algorithm, call: (row, []))
    assert fc.explain("conv2d", X, W).kernels == [row.name]
    assert (fc.conv2d(X, W) == 18).all()


def test_explain_leaves_out_alone():
    out = np.full((2, 3), 7.0)
    assert fc.explain("matmul", np.empty((2, 0)), np.empty((0, 3)), out=out).kernels == []
    assert (out == 7).all()
