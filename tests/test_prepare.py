"""BatchNorm2d and ReLU6 against torch.nn, and prepared models against the models they were made from."""

import threading
import tracemalloc

import numpy as np
import pytest
import torch

import fastcnn as fc
from fastcnn.models import Essay, LeNet
from fastcnn.nn import BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, Prepared, ReLU, ReLU6, Sequential

RNG = np.random.default_rng(40)


def both(dtype="float64", **options):
    """A BatchNorm2d of ours and one of torch with the same random parameters."""
    ours, theirs = (
        BatchNorm2d(5, dtype=dtype, **options),
        torch.nn.BatchNorm2d(5, dtype=getattr(torch, dtype), **options),
    )
    for name, p in ours.params.items():
        p[...] = RNG.standard_normal(5)
        getattr(theirs, name).data.copy_(torch.from_numpy(p))
    return ours, theirs


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": None}, {"momentum": 0.7, "eps": 1e-2}, {"affine": False}, {"track_running_stats": False}],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batch_norm_equals_torch(options, dtype):
    ours, theirs = both(dtype, **options)
    tolerance = {"rtol": 0, "atol": 2e-5 if dtype == "float32" else 1e-12}
    for training in (True, True, False, True, False):
        ours.train(training)
        theirs.train(training)
        x, dy = ((3 + RNG.standard_normal((4, 5, 6, 7))).astype(dtype) for _ in range(2))
        tensor = torch.from_numpy(x).requires_grad_()
        expected = theirs(tensor)
        expected.backward(torch.from_numpy(dy))
        y, back = ours.forward(x)
        assert y.dtype == x.dtype
        np.testing.assert_allclose(y, expected.detach().numpy(), **tolerance)
        np.testing.assert_allclose(back(dy), tensor.grad.numpy(), **tolerance)
        for name in ours.params:
            scale = abs(getattr(theirs, name).grad.numpy()).max()
            np.testing.assert_allclose(
                ours.grads[name] / scale, getattr(theirs, name).grad.numpy() / scale, **tolerance
            )
            getattr(theirs, name).grad = None
        for name, buffer in ours.buffers.items():
            np.testing.assert_allclose(buffer, getattr(theirs, name).numpy(), **tolerance)
    assert back(dy, need_dx=False) is None


def test_batch_norm_call_is_forward():
    ours = BatchNorm2d(5, dtype="float64")
    x = RNG.standard_normal((2, 5, 3, 3))
    np.testing.assert_array_equal(ours.eval()(x), ours.forward(x)[0])
    before = ours.buffers["num_batches_tracked"].copy()
    ours.train()(x)
    assert ours.buffers["num_batches_tracked"] == before + 1


def test_batch_norm_errors():
    with pytest.raises(ValueError, match="more than one value per channel"):
        BatchNorm2d(2)(np.zeros((1, 2, 1, 1), "f4"))
    with pytest.raises(ValueError, match=r"x: got shape \(1, 3, 2, 2\), expected \(N, 2, H, W\)"):
        BatchNorm2d(2)(np.zeros((1, 3, 2, 2), "f4"))
    with pytest.raises(ValueError, match="num_features: got 0"):
        BatchNorm2d(0)
    with pytest.raises(ValueError, match="momentum: got 2"):
        BatchNorm2d(2, momentum=2)
    with pytest.raises(ValueError, match="eps: got -1"):
        BatchNorm2d(2, eps=-1)
    with pytest.raises(ValueError, match="track_running_stats"):
        BatchNorm2d(2, track_running_stats=False).inference_affine()


def test_relu6_equals_torch():
    x = np.array([-1, -0.0, 0.0, 1, 6, 7, np.nan, np.inf])
    tensor = torch.from_numpy(x).requires_grad_()
    expected = torch.nn.functional.relu6(tensor)
    expected.sum().backward()
    y, back = ReLU6().forward(x)
    np.testing.assert_array_equal(y, expected.detach().numpy())
    got = back(np.ones_like(x))
    assert back(x, need_dx=False) is None
    np.testing.assert_array_equal(got[:6], tensor.grad.numpy()[:6])


def network(dtype="float32", rng=0):
    """Every pattern that is fused, and some that are not."""
    rng = np.random.default_rng(rng)
    options = {"dtype": dtype, "rng": rng}
    model = Sequential(
        Conv2d(3, 16, 3, padding=1, bias=False, **options), BatchNorm2d(16, dtype=dtype), ReLU(), MaxPool2d(2),
        Sequential(Conv2d(16, 24, 3, padding=1, **options), BatchNorm2d(24, dtype=dtype), ReLU6()),
        Conv2d(24, 24, 3, stride=2, padding=1, groups=24, **options), BatchNorm2d(24, dtype=dtype),
        Conv2d(24, 32, 1, **options), MaxPool2d(3, 2), ReLU(),
        BatchNorm2d(32, dtype=dtype),
        Conv2d(32, 32, 3, padding=1, **options), ReLU(), MaxPool2d(2),
        Flatten(), Linear(32, 20, **options), ReLU6(), Linear(20, 7, **options),
    )  # fmt: skip
    for name, array in model._state().items():
        if "running" in name or "weight" in name or "bias" in name:
            array += rng.uniform(0.1, 0.5, array.shape).astype(dtype) * (1 if "var" in name else 0.3)
    return model


STEPS = [
    "Conv2d + BatchNorm2d + relu + max_pool 2, weight (16, 3, 3, 3)",
    "Conv2d + BatchNorm2d + relu6, weight (24, 16, 3, 3)",
    "Conv2d + BatchNorm2d, weight (24, 1, 3, 3)",
    "Conv2d, weight (32, 24, 1, 1)",
    "MaxPool2d",
    "ReLU",
    "BatchNorm2d",
    "Conv2d + relu + max_pool 2, weight (32, 32, 3, 3)",
    "Flatten",
    "Linear + relu6, weight (20, 32)",
    "Linear, weight (7, 20)",
]


@pytest.mark.parametrize("backend", ["auto", "cython", "numba", "numpy"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-13)])
def test_prepared_equals_the_model(dtype, tolerance, backend):
    model = network(dtype).eval()
    prepared = model.prepare()
    assert prepared.steps == STEPS
    assert repr(prepared).count("\n") == len(STEPS)
    with fc.use_backend(backend):
        for N in (3, 1, 3, 0, 5):
            x = RNG.standard_normal((N, 3, 23, 22)).astype(dtype)
            expected, before = model(x), x.copy()
            got = prepared(x)
            assert got.dtype == dtype
            np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * (abs(expected).max() if N else 1))
            np.testing.assert_array_equal(x, before)
            out = np.full(got.shape, np.nan, dtype)
            assert prepared(x[..., ::-1][..., ::-1], out=out) is out
            np.testing.assert_array_equal(out, got)


def test_results_of_earlier_calls_stay():
    prepared = network().prepare()
    x = RNG.standard_normal((2, 2, 3, 23, 22)).astype("f4")
    first = prepared(x[0])
    kept = first.copy()
    prepared(x[1])
    np.testing.assert_array_equal(first, kept)


def test_it_is_a_snapshot_and_the_model_trains_on():
    model, x = network(), RNG.standard_normal((4, 3, 23, 22)).astype("f4")
    prepared = model.prepare()
    before = prepared(x)
    y, back = model.train().forward(x)
    back(np.ones_like(y))
    for name, p in model.parameters().items():
        p -= 0.1 * model.gradients()[name]
    np.testing.assert_array_equal(prepared(x), before)
    assert abs(model.eval()(x) - before).max() > 1e-2
    np.testing.assert_allclose(model.prepare()(x), model(x), rtol=0, atol=1e-4)
    with pytest.raises(RuntimeError, match="prepare it again"):
        prepared.forward(x)


def test_backend_and_algorithm_in_force_are_used():
    prepared, x = network().prepare(), RNG.standard_normal((2, 3, 23, 22)).astype("f4")
    prepared(x)
    with fc.use_algorithm("winograd2"), pytest.raises(ValueError, match="'winograd2' does not apply"):
        prepared(x)
    with fc.use_backend("numpy"):
        expected = prepared(x)
    np.testing.assert_allclose(prepared(x), expected, rtol=0, atol=1e-4)


def test_many_threads_and_shapes():
    model = network().eval()
    prepared, wrong = model.prepare(), []
    inputs = [RNG.standard_normal((1 + i % 12, 3, 23, 22)).astype("f4") for i in range(24)]
    expected = [model(x) for x in inputs]

    def call(first):
        for i in range(len(inputs)):
            x, y = inputs[(first + i) % 24], expected[(first + i) % 24]
            if not np.allclose(prepared(x), y, rtol=0, atol=1e-4):
                wrong.append(first)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("model", [Essay(rng=0), LeNet(rng=0)], ids=["essay", "lenet"])
def test_models_prepare(model):
    x = RNG.standard_normal((5, *model.input_shape)).astype("f4")
    prepared = model.prepare()
    assert isinstance(prepared, Prepared)
    np.testing.assert_allclose(prepared(x), model(x), rtol=0, atol=1e-5)


def test_modes_and_state_reach_every_layer(tmp_path):
    model = network()
    assert all(layer.training for layer in model.layers())
    assert not any(layer.training for layer in model.eval().layers())
    state = model.state_dict()
    assert "1.running_mean" in state
    assert "4.1.num_batches_tracked" in state
    other = network(rng=5)
    other.load_state_dict(state)
    x = RNG.standard_normal((2, 3, 23, 22)).astype("f4")
    np.testing.assert_array_equal(other.eval()(x), model(x))
    with pytest.raises(ValueError, match=r"missing parameters: 1\.running_mean"):
        other.load_state_dict({name: array for name, array in state.items() if name != "1.running_mean"})


def test_errors_name_the_argument():
    prepared = network().prepare()
    with pytest.raises(TypeError, match="x: got dtype int64"):
        prepared(np.zeros((1, 3, 23, 22), int))
    with pytest.raises(ValueError, match=r"x: got .*channels|weight"):
        prepared(np.zeros((1, 4, 23, 22), "f4"))
    with pytest.raises(ValueError, match=r"out: got shape \(1, 8\), expected shape \(1, 7\)"):
        prepared(np.zeros((1, 3, 23, 22), "f4"), out=np.zeros((1, 8), "f4"))


def test_repeated_calls_allocate_nothing_large():
    """Results of layers lie in kept memory; large workspaces come from the pool."""
    model = Sequential(Conv2d(8, 32, 3, padding=1, rng=0), ReLU(), Conv2d(32, 32, 5, padding=2, rng=0), MaxPool2d(2))
    prepared, x = model.prepare(), RNG.standard_normal((4, 8, 64, 64)).astype("f4")
    out = prepared(x)
    prepared(x, out=out)
    before = fc.memory_stats()["allocated"]
    tracemalloc.start()
    for _ in range(10):
        prepared(x, out=out)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fc.memory_stats()["allocated"] == before
    assert most < 1 << 20  # a result of the first layer has 2 MiB
