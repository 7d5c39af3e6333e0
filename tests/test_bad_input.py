"""Every bad array or option of the reliability list gets its exception, naming the argument and what came.

The table runs in this process, case by case, and once as a whole in a child (`python
tests/test_bad_input.py`), where a crash is seen as one.
"""

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
import torch

import fastcnn as fc
from fastcnn_kernels import table


def names():
    """Names the expressions below may use, made anew for each."""
    f32 = np.float32

    def like(shape, dtype=f32):
        return np.ones(shape, dtype)

    x, w, b, y = like((2, 4, 6, 6)), like((4, 2, 3, 3)), like(4), like((2, 4, 4, 4))
    return {
        "np": np,
        "fc": fc,
        "torch": torch,
        "sparse": scipy.sparse,
        "one": like,
        "x": x,
        "w": w,
        "b": b,
        "y": y,
        "conv": lambda x=x, w=w, b=None, groups=2, **options: fc.conv2d(x, w, b, groups=groups, **options),
        "back": lambda dy=y, x=x, w=w, **options: fc.conv2d_backward(dy, x, w, groups=2, **options),
        "huge": lambda *shape: np.broadcast_to(f32(1), shape),
        "structured": np.zeros((2, 4, 6, 6), [("a", "f4")]),
        "enter": lambda backend: fc.use_backend(backend).__enter__(),
    }


T, V, O, M = TypeError, ValueError, OverflowError, MemoryError
ARRAY = "expected a float32 or float64 array"
# (id, expression, exception, regular expression its message matches)
CASES = [
    ("none", "conv(None)", T, f"x: got None, {ARRAY}"),
    ("none weight", "conv(w=None)", T, f"weight: got None, {ARRAY}"),
    ("ragged list", "fc.matmul([[1.0], [1.0, 2.0]], x)", T, f"a: got a list that is no regular.*{ARRAY}"),
    ("object", "conv(x.astype(object))", T, f"x: got dtype object, {ARRAY}"),
    ("complex", "conv(x.astype(complex))", T, f"x: got dtype complex128, {ARRAY}"),
    ("int", "conv(w=w.astype(int))", T, f"weight: got dtype int64, {ARRAY}"),
    ("list of ints", "fc.matmul([[1]], [[1]])", T, f"a: got dtype int64, {ARRAY}"),
    ("bool array", "conv(x.astype(bool))", T, f"x: got dtype bool, {ARRAY}"),
    ("float16", "conv(x.astype('f2'))", T, f"x: got dtype float16, {ARRAY}"),
    ("longdouble", "conv(x.astype('g'))", T, f"x: got dtype {np.dtype('g')}, {ARRAY}"),
    ("string", "conv('image')", T, f"x: got dtype <U5, {ARRAY}"),
    ("string array", "conv(x.astype(str))", T, f"x: got dtype <U.*, {ARRAY}"),
    ("bytes", "conv(b'image')", T, f"x: got dtype .S5, {ARRAY}"),
    ("structured", "conv(structured)", T, f"x: got dtype .*'a'.*, {ARRAY}"),
    ("datetime", "conv(x.astype('M8[s]'))", T, rf"x: got dtype datetime64\[s\], {ARRAY}"),
    ("dict", "conv({})", T, f"x: got dtype object, {ARRAY}"),
    ("mixed dtypes", "conv(w=w.astype('f8'))", T, "weight: got dtype float64, expected float32, .* of x"),
    ("bias dtype", "conv(b=b.astype('f8'))", T, "bias: got dtype float64, expected float32, .* of x"),
    ("matmul dtypes", "fc.matmul(one(2), one(2, 'f8'))", T, "b: got dtype float64, expected float32, .* a"),
    ("linear dtypes", "fc.linear(one((1, 2), 'f8'), one((3, 2)))", T, "weight: .*float32, expected float64"),
    ("dy dtype", "back(y.astype('f8'))", T, "dy: got dtype float64, expected float32, the dtype of x"),
    ("masked", "conv(np.ma.masked_less(x, 0))", T, r"x: got a MaskedArray, .*\.filled"),
    ("sparse matrix", "fc.matmul(sparse.eye(3), one((3, 3)))", T, r"a: got a sparse dia.*\.toarray"),
    ("sparse array", "fc.matmul(sparse.eye_array(3), one((3, 3)))", T, "a: got a sparse dia_array"),
    ("torch grad", "conv(torch.ones(2, 4, 6, 6, requires_grad=True))", T, r"x: got a Tensor .*\.detach"),
    ("torch device", "conv(w=torch.ones(4, 2, 3, 3, device='meta'))", T, f"weight: got a Tensor.*{ARRAY}"),
    ("torch bfloat16", "conv(torch.ones(2, 4, 6, 6).bfloat16())", T, f"x: got a Tensor.*{ARRAY}"),
    ("torch int", "conv(torch.ones(2, 4, 6, 6).int())", T, f"x: got dtype int32, {ARRAY}"),
    ("torch sparse", "fc.matmul(torch.eye(2).to_sparse(), one((2, 2)))", T, f"a: got a Tensor.*{ARRAY}"),
    ("float stride", "conv(stride=1.5)", T, r"stride: got 1.5 \(float\), expected an integer"),
    ("whole float stride", "conv(stride=1.0)", T, r"stride: got 1.0 \(float\), expected an integer"),
    ("string stride", "conv(stride='2')", T, r"stride: got '2' \(str\), expected an integer"),
    ("None stride", "conv(stride=None)", T, r"stride: got None \(NoneType\), expected an integer"),
    ("float in a pair", "conv(stride=(1, 2.5))", T, r"stride: got 2.5 \(float\), expected an integer"),
    ("bool stride", "conv(stride=True)", T, "stride: got the bool True, expected an integer"),
    ("bool padding", "conv(padding=True)", T, "padding: got the bool True, expected an integer"),
    ("bool dilation", "conv(dilation=(1, np.True_))", T, "dilation: got the bool True, expected an integer"),
    ("bool groups", "conv(x[:, :2], groups=True)", T, "groups: got the bool True, expected an integer"),
    ("float padding", "conv(padding=((0, 1), (0.5, 1)))", T, "padding: got 0.5 .float., expected an integer"),
    ("array stride", "conv(stride=np.array([1, 2]))", T, "stride: got array.*, expected an integer"),
    ("mask of ints", "back(output_mask=(1, 0, 1))", T, r"output_mask: got \(1, 0, 1\), .*three bools"),
    ("mask None", "back(output_mask=None)", T, "output_mask: got None, .*three bools"),
    ("threads x", "fc.set_num_threads('x')", T, r"n: got 'x' \(str\), expected an integer"),
    ("threads bool", "fc.set_num_threads(True)", T, "n: got the bool True, expected an integer"),
    ("threads float", "fc.set_num_threads(2.0)", T, r"n: got 2.0 \(float\), expected an integer"),
    ("out dtype", "conv(out=one((2, 4, 4, 4), 'f8'))", T, "out: got dtype float64, expected float32"),
    ("out list", "conv(out=[])", T, r"out: got \[\] \(list\), expected a numpy.ndarray"),
    ("out tensor", "conv(out=torch.ones(2, 4, 4, 4))", T, r"out: .*\(Tensor\), expected a numpy.ndarray"),
    ("out masked", "conv(out=np.ma.ones((2, 4, 4, 4), 'f4'))", T, "out: .*MaskedArray.*numpy.ndarray"),
    ("backend type", "conv(backend=3)", T, r"backend: got 3 \(int\), expected the name of a backend"),
    ("backend list", "fc.set_backend(['numpy'])", T, r"backend: .*\(list\), expected the name of a backend"),
    ("x ndim", "conv(x[0, 0])", V, r"x: got shape \(6, 6\), expected \(N, C, H, W\) or \(C, H, W\)"),
    ("x 0-D", "conv(np.float32(1))", V, r"x: got shape \(\), expected"),
    ("x 5-D", "conv(x[None])", V, r"x: got shape \(1, 2, 4, 6, 6\), expected"),
    ("weight ndim", "conv(w=w[0])", V, r"weight: got shape \(2, 3, 3\), expected \(C_out, C_in/groups"),
    ("channels", "conv(groups=1)", V, r"x: got shape \(2, 4, 6, 6\).*2 \* 1 = 2: weight .*\(4, 2, 3, 3\)"),
    ("bias shape", "conv(b=b[:3])", V, r"bias: got shape \(3,\), expected shape \(4,\).*\(4, 2, 3, 3\)"),
    ("bias ndim", "conv(b=b[:, None])", V, r"bias: got shape \(4, 1\), expected shape \(4,\)"),
    ("bias scalar", "conv(b=1.0, x=x.astype('f8'), w=w.astype('f8'))", V, r"bias: got shape \(\), expected"),
    ("groups 0", "conv(groups=0)", V, "groups: got 0, expected at least 1"),
    ("groups -1", "conv(groups=-1)", V, "groups: got -1, expected at least 1"),
    ("C by groups", "conv(groups=3)", V, r"groups: got 3, expected a divisor of C = 4: .*\(2, 4, 6, 6\)"),
    ("K by groups", "conv(w=w[:3])", V, r"groups: got 2, expected a divisor of C_out = 3: .*\(3, 2, 3, 3\)"),
    ("stride 0", "conv(stride=0)", V, "stride: got 0, expected at least 1"),
    ("stride -1", "conv(stride=(1, -1))", V, "stride: got -1, expected at least 1"),
    ("dilation 0", "conv(dilation=0)", V, "dilation: got 0, expected at least 1"),
    ("negative padding", "conv(padding=-1)", V, "padding: got -1, expected at least 0"),
    ("negative side", "conv(padding=((0, -2), (0, 0)))", V, "padding: got -2, expected at least 0"),
    ("stride triple", "conv(stride=(1, 1, 1))", V, r"stride: got \(1, 1, 1\), expected .*pair"),
    ("stride single", "conv(stride=(1,))", V, r"stride: got \(1,\), expected .*pair"),
    ("dilation empty", "conv(dilation=[])", V, r"dilation: got \[\], expected .*pair"),
    ("padding quadruple", "conv(padding=(1, 1, 1, 1))", V, r"padding: got \(1, 1, 1, 1\), expected"),
    ("padding side triple", "conv(padding=((1, 1, 1), (1, 1)))", V, r"padding: got \(1, 1, 1\), expected"),
    ("padding string", "conv(padding='full')", V, "padding: got 'full', expected 'same', 'valid' or"),
    ("same, stride 2", "conv(padding='same', stride=2)", V, r"stride: got \(2, 2\), expected 1 with"),
    ("kernel size 0", "conv(w=w[:, :, :0])", V, r"weight: got shape \(4, 2, 0, 3\), expected"),
    ("kernel larger", "conv(x[:, :, :2])", V, r"weight: .*\(3, 3\), .* the padded input size, \(2, 6\)"),
    ("dilated larger", "conv(dilation=3, padding=(0, 1))", V, r"weight: .*\(7, 7\), .* input size, \(6, 8\)"),
    ("C = 0", "conv(x[:, :0])", V, r"x: got shape \(2, 0, 6, 6\), expected C, H and W of at least 1"),
    ("K = 0", "conv(w=w[:0])", V, r"weight: got shape \(0, 2, 3, 3\), expected every dimension"),
    ("C/groups = 0", "conv(w=w[:, :0])", V, r"weight: got shape \(4, 0, 3, 3\), expected every dimension"),
    ("H = 0", "conv(x[:, :, :0], padding=2)", V, r"x: got shape \(2, 4, 0, 6\), expected C, H and W"),
    ("W = 0", "conv(x[..., :0], padding=2)", V, r"x: got shape \(2, 4, 6, 0\), expected C, H and W"),
    ("inner", "fc.matmul(one((2, 3)), one((4, 5)))", V, r"b: got shape \(4, 5\).* 4, expected 3,.*\(2, 3\)"),
    ("inner 1-D", "fc.matmul(one(3), one(4))", V, r"b: got shape \(4,\) .* 4, expected 3, .*\(3,\)"),
    ("batches", "fc.matmul(one((2, 3, 4)), one((3, 4, 5)))", V, r"b: got shape \(3, 4, 5\).*\(2, 3, 4\)"),
    ("0-D a", "fc.matmul(2.0, [1.0])", V, r"a: got shape \(\), expected at least one dimension"),
    ("0-D b", "fc.matmul([1.0], 2.0)", V, r"b: got shape \(\), expected at least one dimension"),
    ("linear in", "fc.linear(one((2, 3)), one((5, 4)))", V, r"x: got shape \(2, 3\).* = 4.*\(5, 4\)"),
    ("linear 0-D", "fc.linear(np.float32(1), one((5, 4)))", V, r"x: got shape \(\), expected"),
    ("linear weight", "fc.linear(one(3), one(3))", V, r"weight: got shape \(3,\), expected"),
    ("linear bias", "fc.linear(one(4), one((5, 4)), one(4))", V, r"bias: got shape \(4,\), .*shape \(5,\)"),
    ("linear dy", "fc.linear_backward(one((2, 4)), one((2, 4)), one((5, 4)))", V, r"dy: .*\(2, 4\).*2, 5\)"),
    ("dy shape", "back(y[..., :3])", V, r"dy: got shape \(2, 4, 4, 3\), expected shape \(2, 4, 4, 4\)"),
    ("dy unbatched", "back(y[0])", V, r"dy: got shape \(4, 4, 4\), expected shape \(2, 4, 4, 4\)"),
    ("mask of two", "back(output_mask=(True, False))", V, r"output_mask: got \(True, False\), expected"),
    ("out shape", "conv(out=one((2, 4, 4, 5)))", V, r"out: got shape \(2, 4, 4, 5\), .*\(2, 4, 4, 4\)"),
    ("out unbatched", "conv(out=y[0])", V, r"out: got shape \(4, 4, 4\), expected shape \(2, 4, 4, 4\)"),
    ("out read-only", "y.setflags(write=False), conv(out=y)", V, "out: got a read-only array, .*writeable"),
    ("out overlapping itself",
     "conv(out=np.lib.stride_tricks.as_strided(y, y.shape, (256, 64, 8, 4)))",
     V, r"out: got strides \(256, 64, 8, 4\), overlapping itself"),
    ("out with stride 0", "conv(out=np.lib.stride_tricks.as_strided(y, y.shape, (0, 64, 16, 4)))", V, "self"),
    ("out byte-swapped", "conv(out=y.astype('>f4'))", V, "out: got an array of swapped bytes, .*native"),
    ("threads 0", "fc.set_num_threads(0)", V, "n: got 0, expected an integer from 1 to 1024"),
    ("threads -1", "fc.set_num_threads(-1)", V, "n: got -1, expected an integer from 1 to 1024"),
    ("threads 1e9", "fc.set_num_threads(10**9)", V, "n: got 1000000000, expected an integer from 1 to 1024"),
    ("threads 1e30", "fc.set_num_threads(10**30)", V, "n: got 10+, expected an integer from 1 to 1024"),
    ("backend", "conv(backend='cuda')", V, "backend: got 'cuda', expected one of auto, cython, numba, numpy"),
    ("backend, empty batch", "conv(x[:0], backend='cuda')", V, "backend: got 'cuda', expected one of"),
    ("set_backend", "fc.set_backend('')", V, "backend: got '', expected one of auto"),
    ("use_backend", "enter('Numba')", V, "backend: got 'Numba', expected one of auto"),
    ("explain", "fc.explain('conv3d', x, w)", V, "op: got 'conv3d', expected one of conv2d, "),
    ("explain checks", "fc.explain('conv2d', x, w, stride=0)", V, "stride: got 0"),
    ("stride 2**31", "conv(stride=2**31)", O, r"stride: got 2147483648, expected less than 2\*\*31"),
    ("padding 2**31", "conv(padding=(0, 2**31))", O, r"padding: got 2147483648, expected less than 2\*\*31"),
    ("padding 2**70", "conv(padding=2**70)", O, r"padding: got \d+, expected less than 2\*\*31"),
    ("dilation 2**31", "conv(dilation=2**31)", O, r"dilation: got 2147483648, expected less than 2\*\*31"),
    ("same past 2**31", "conv(padding='same', dilation=2**30)", O, r"dilation: .*2\*\*31, not 2147483648"),
    ("y past 2**63", "conv(padding=2**31 - 1)", O, r"out: got shape .* of \d+ bytes, .*2\*\*63 bytes"),
    ("matmul past 2**63", "fc.matmul(huge(2**40, 1), huge(1, 2**40))", O, r"out: got shape .*2\*\*63 bytes"),
    ("linear past 2**63", "fc.linear(huge(2**60, 1), huge(4, 1))", O, r"out: got shape .*2\*\*63 bytes"),
    ("y too large", "conv(padding=2**23)", M, r"out: got shape .* of \d+ bytes, .*allocate"),
    ("matmul too large", "fc.matmul(huge(2**50, 1), huge(1, 1))", M, r"out: got .* of 4503599627370496 b"),
    ("copy too large", "fc.matmul(huge(1, 2**50), huge(2**50, 1))", M, r"a: got .* of 4503599627370496 b"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "expression", "error", "pattern"), CASES, ids=[row[0] for row in CASES])
def test_exception_and_text(case, expression, error, pattern):
    with pytest.raises(error, match=pattern) as caught:
        eval(expression, names())
    assert type(caught.value) is error


def test_no_case_crashes_the_process():
    command = [sys.executable, __file__]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert done.stdout.splitlines()[-1] == f"{len(CASES)} cases"


def test_unavailable_backend_gives_its_reason(rows, monkeypatch):
    reasons = {"cython": "no such module", "numba": "", "numpy": ""}
    monkeypatch.setattr(table, "unavailable", reasons.get)
    space = names()
    for expression in ("fc.set_backend('cython')", "enter('cython')", "conv(backend='cython')"):
        with pytest.raises(RuntimeError, match="'cython' is not available: no such module"):
            eval(expression, space)
    assert fc.backends() == {"cython": "no such module", "numba": "available", "numpy": "available"}


@pytest.mark.parametrize(
    "expression",
    [
        "conv(stride=np.int64(2), padding=np.uint8(1), dilation=np.array(1), groups=np.int16(2))",
        "conv(stride=[2, 2], padding=[1, 1], dilation=(1, np.int8(1)))",
        "conv(stride=(2, 2), padding=((1, 1), (1, 1)))",
    ],
)
def test_any_integer_is_accepted(expression):
    space = names()
    expected = eval("conv(stride=2, padding=1)", space)
    np.testing.assert_array_equal(eval(expression, space), expected)


if __name__ == "__main__":
    for case, expression, error, pattern in CASES:
        print(case, flush=True)  # the last line names the case that crashed
        with pytest.raises(error, match=pattern):
            eval(expression, names())
    print(len(CASES), "cases")
