"""Layers, losses and SGD against torch in float64; what they refuse."""

import numpy as np
import pytest
import torch

from fastcnn.nn import (
    SGD,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    ReLU6,
    Sequential,
    cosine,
    cross_entropy,
    kaiming_normal,
    kaiming_uniform,
    log_softmax,
    one_hot,
    softmax,
)

F64 = {"dtype": np.float64, "rng": 0}
# Sums here have at most 1000 terms of magnitude about 1: 1000 u = 1e-13.
close = {"rtol": 1e-12, "atol": 1e-12}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def with_torch_parameters(layer, torch_layer):
    """Give a torch layer the parameters of ours."""
    torch_layer.double().load_state_dict({name: torch.tensor(p) for name, p in layer.parameters().items()})
    return torch_layer


CONV_OPTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (1, 2), "padding": "valid", "dilation": (2, 1)},
    {"padding": "same", "dilation": 2},
    {"groups": 2, "bias": False},
    {"groups": 4, "padding": 1},
]
LAYERS = [
    *((Conv2d(4, 8, 3, **o, **F64), torch.nn.Conv2d(4, 8, 3, **o), (2, 4, 9, 8)) for o in CONV_OPTIONS),
    (Conv2d(4, 8, (2, 3), **F64), torch.nn.Conv2d(4, 8, (2, 3)), (3, 4, 5, 7)),
    (Linear(7, 5, **F64), torch.nn.Linear(7, 5), (3, 7)),
    (Linear(7, 5, bias=False, **F64), torch.nn.Linear(7, 5, bias=False), (3, 7)),
    (ReLU(), torch.nn.ReLU(), (3, 4, 5)),
    (Flatten(), torch.nn.Flatten(), (3, 4, 5, 6)),
    (MaxPool2d(2), torch.nn.MaxPool2d(2), (2, 3, 7, 6)),
    (MaxPool2d(3, 2, 1), torch.nn.MaxPool2d(3, 2, 1), (2, 3, 7, 6)),
    (MaxPool2d((3, 2), (1, 3), (1, 0)), torch.nn.MaxPool2d((3, 2), (1, 3), (1, 0)), (2, 3, 5, 8)),
]


@pytest.mark.parametrize(("layer", "torch_layer", "shape"), LAYERS)
def test_layer_forward_and_gradients_equal_torch(layer, torch_layer, shape):
    with_torch_parameters(layer, torch_layer)
    x = normal(*shape)
    y, back = layer.forward(x)
    np.testing.assert_array_equal(layer(x), y)
    tx = torch.tensor(x, requires_grad=True)
    ty = torch_layer(tx)
    np.testing.assert_allclose(y, ty.detach(), **close)

    dy = normal(*y.shape, seed=1)
    ty.backward(torch.tensor(dy))
    np.testing.assert_allclose(back(dy), tx.grad, **close)
    assert layer.gradients().keys() == dict(torch_layer.named_parameters()).keys()
    for name, p in torch_layer.named_parameters():
        np.testing.assert_allclose(layer.gradients()[name], p.grad, **close)


def test_back_overwrites_gradients():
    layer = Linear(3, 2, **F64)
    _, back = layer.forward(normal(4, 3))
    back(normal(4, 2))
    once = layer.gradients()["weight"].copy()
    back(normal(4, 2))
    np.testing.assert_array_equal(layer.gradients()["weight"], once)


def test_relu_gradient_is_zero_at_zero_and_nan_passes():
    y, back = ReLU().forward(np.array([-1.0, -0.0, 0.0, 2.0, np.nan]))
    np.testing.assert_array_equal(y, [0, 0, 0, 2, np.nan])
    np.testing.assert_array_equal(back(np.full(5, np.inf))[:4], [0, 0, 0, np.inf])


def test_max_pool_ties_go_to_the_first_maximum():
    _, back = MaxPool2d(2).forward(np.ones((1, 1, 2, 2)))
    np.testing.assert_array_equal(back(np.ones((1, 1, 1, 1)))[0, 0], [[1, 0], [0, 0]])


@pytest.mark.parametrize("special", [np.nan, -np.inf, np.inf])
def test_max_pool_with_special_values_and_padding_equals_torch(special):
    x = normal(1, 2, 6, 6)
    x[0, 0, :3, :3] = special
    x[0, 1, 4, 4] = special
    y, back = MaxPool2d(3, 2, 1).forward(x)
    tx = torch.tensor(x, requires_grad=True)
    ty = torch.nn.functional.max_pool2d(tx, 3, 2, 1)
    np.testing.assert_array_equal(y, ty.detach())
    ty.backward(torch.ones_like(ty))
    np.testing.assert_array_equal(back(np.ones_like(y)), tx.grad)


def small_network():
    rng = np.random.default_rng(0)
    f64 = {"dtype": np.float64, "rng": rng}
    return Sequential(
        Conv2d(1, 4, 3, padding=1, **f64),
        ReLU(),
        MaxPool2d(2),
        Sequential(Flatten(), Linear(36, 8, **f64), ReLU()),
        Linear(8, 3, **f64),
    )


def small_torch_network():
    nn = torch.nn
    inner = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU())
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), inner, nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("momentum", "weight_decay", "nesterov"),
    [(0, 0, False), (0.9, 0, False), (0.9, 0.1, False), (0.8, 0.1, True)],
)
def test_training_steps_equal_torch(momentum, weight_decay, nesterov):
    ours = small_network()
    theirs = with_torch_parameters(ours, small_torch_network())
    optimizer = SGD(ours.parameters(), 0.1, momentum, weight_decay, nesterov)
    torch_optimizer = torch.optim.SGD(theirs.parameters(), 0.1, momentum, weight_decay=weight_decay, nesterov=nesterov)
    for step in range(5):
        x, labels = normal(6, 1, 6, 6, seed=step), np.arange(6) % 3
        logits, back = ours.forward(x)
        loss, dloss = cross_entropy(logits, labels)
        assert back(dloss(), need_dx=False) is None  # nobody needs the gradient of the images
        optimizer.step(ours.gradients())

        torch_optimizer.zero_grad()
        torch_loss = torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(labels))
        torch_loss.backward()
        torch_optimizer.step()
        assert loss == pytest.approx(torch_loss.item(), rel=1e-10)
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(ours.parameters()[name], p.detach(), rtol=1e-9, atol=1e-11)


def test_dx_below_the_first_parameters_is_skipped_only_if_not_needed():
    model = Sequential(Flatten(), Linear(4, 3, **F64), Linear(3, 2, **F64))
    x, dy = normal(2, 2, 2), normal(2, 2)
    _, back = model.forward(x)
    dx = back(dy)
    with_dx = model.gradients()
    assert dx.shape == x.shape
    assert back(dy, need_dx=False) is None
    for name, grad in model.gradients().items():
        np.testing.assert_array_equal(grad, with_dx[name])
    assert set(with_dx) == {"1.weight", "1.bias", "2.weight", "2.bias"}


def test_a_layer_with_parameters_may_appear_once():
    layer = Linear(2, 2)
    with pytest.raises(ValueError, match="only once"):
        Sequential(layer, ReLU(), layer)
    relu = ReLU()
    assert Sequential(relu, Linear(2, 2), relu)(np.ones((1, 2), np.float32)).shape == (1, 2)


def test_state_dict_round_trip_and_refusals():
    model, other = small_network(), small_network()
    for p in other.parameters().values():
        p += 1
    state = other.state_dict()
    model.load_state_dict(state)
    for name, p in model.parameters().items():
        np.testing.assert_array_equal(p, state[name])
        assert p is not state[name]
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"missing parameters: 4\.bias"):
        model.load_state_dict({k: v for k, v in state.items() if k != "4.bias"})
    with pytest.raises(ValueError, match="unknown parameters: extra"):
        model.load_state_dict(state | {"extra": np.zeros(1)})
    with pytest.raises(ValueError, match=r"parameter 4\.bias: got float64 \(2,\), expected float64 \(3,\)"):
        model.load_state_dict(state | {"4.bias": np.zeros(2)})
    with pytest.raises(ValueError, match=r"parameter 4\.bias: got float32"):
        model.load_state_dict(state | {"4.bias": np.zeros(3, np.float32)})
    for name, p in model.parameters().items():
        np.testing.assert_array_equal(p, before[name])


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Conv2d(3, 4, 3, groups=2), ValueError),
        (lambda: Conv2d(0, 4, 3), ValueError),
        (lambda: Conv2d(3, 4, 0), ValueError),
        (lambda: Conv2d(3, 4, 3, stride=0), ValueError),
        (lambda: Conv2d(3, 4, 3, stride=1.5), TypeError),
        (lambda: Conv2d(3, 4, 3, padding="some"), ValueError),
        (lambda: Linear(0, 4), ValueError),
        (lambda: MaxPool2d(0), ValueError),
        (lambda: MaxPool2d(2, padding=2), ValueError),
        (lambda: MaxPool2d(True), TypeError),
        (lambda: MaxPool2d(3)(np.ones((1, 1, 2, 2))), ValueError),
        (lambda: MaxPool2d(3)(np.ones((4, 4))), ValueError),
        (lambda: Flatten()(np.float32(1)), ValueError),
        (lambda: ReLU()(["a"]), TypeError),
        (lambda: MaxPool2d(2).forward(None), TypeError),
        (lambda: Conv2d(3, 4, 3, dtype=np.float16), TypeError),
        (lambda: Linear(3, 4, dtype="int32"), TypeError),
        (lambda: BatchNorm2d(3, dtype=None), TypeError),
        (lambda: cosine(0.1, -1), ValueError),
    ],
)
def test_layers_refuse(make, error):
    with pytest.raises(error, match="got"):
        make()


def test_log_softmax_and_softmax_of_huge_logits():
    logits = np.array([[1e4, 0, -1e4], [-1e5, -1e5, -1e5]])
    np.testing.assert_allclose(log_softmax(logits), torch.log_softmax(torch.tensor(logits), -1), **close)
    np.testing.assert_allclose(softmax(logits), torch.softmax(torch.tensor(logits), -1), **close)


@pytest.mark.parametrize("kind", ["indices", "soft", "unnormalised"])
def test_cross_entropy_and_gradient_equal_torch(kind):
    logits = 10 * normal(6, 4)
    target = {
        "indices": np.array([0, 3, 1, 1, 2, 0]),
        "soft": softmax(normal(6, 4, seed=1)),
        "unnormalised": np.abs(normal(6, 4, seed=2)),
    }[kind]
    loss, back = cross_entropy(logits, target)
    t = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(t, torch.tensor(target))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(back(), t.grad, **close)


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        ([0, 3], ValueError, "values from 0 to 3, expected 0 to 2"),
        ([-1, 0], ValueError, "values from -1 to 0, expected 0 to 2"),
        ([0.0, 1.0], TypeError, "dtype float64, expected integer class indices"),
        ([0, 1, 2], ValueError, "shape"),
        (np.ones((2, 4)), ValueError, "shape"),
        (np.ones((2, 3), complex), TypeError, "complex"),
        (np.ones((2, 3, 1)), ValueError, "shape"),
    ],
)
def test_cross_entropy_refuses(target, error, text):
    with pytest.raises(error, match=text):
        cross_entropy(np.zeros((2, 3)), target)


def test_cross_entropy_of_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="logits"):
        cross_entropy(np.zeros((0, 3)), np.zeros(0, int))


def test_one_hot():
    np.testing.assert_array_equal(one_hot([2, 0], 3), [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay"])
def test_sgd_refuses_bad_numbers(name, bad):
    with pytest.raises(ValueError, match=name):
        SGD({}, **{"lr": 0.1, name: bad})


def test_sgd_refuses_nesterov_without_momentum_and_foreign_gradients():
    with pytest.raises(ValueError, match="nesterov"):
        SGD({}, 0.1, nesterov=True)
    with pytest.raises(ValueError, match="gradients: got none, expected one for each of w"):
        SGD({"w": np.ones(1)}, 0.1).step({})


def test_cosine_schedule():
    rate = cosine(0.2, 10)
    assert [rate(0), rate(5), rate(10), rate(11)] == pytest.approx([0.2, 0.1, 0, 0])
    assert cosine(0.2, 0)(0) == 0


@pytest.mark.parametrize("layer", [ReLU(), ReLU6(), MaxPool2d(2), Flatten()])
def test_layers_take_lists(layer):
    x = [[[[1.0, -2.0], [9.0, 4.0]]]]
    y, back = layer.forward(x)
    assert np.array_equal(layer(x), y)
    assert back(y).shape == (1, 1, 2, 2)


@pytest.mark.parametrize("draw", [kaiming_uniform, kaiming_normal])
def test_kaiming_is_seeded_and_has_its_variance(draw):
    shape, fan_in = (200, 50, 3, 3), 450
    w = draw(shape, fan_in, 7, np.float64)
    np.testing.assert_array_equal(w, draw(shape, fan_in, 7, np.float64))
    np.testing.assert_array_equal(w.astype(np.float32), draw(shape, fan_in, np.random.default_rng(7)))
    assert not np.array_equal(w, draw(shape, fan_in, 8, np.float64))
    # 90,000 draws: the sample variance is within 2 % of 2 / fan_in (its standard error is under 0.5 %).
    assert w.var() == pytest.approx(2 / fan_in, rel=0.02)
    if draw is kaiming_uniform:
        assert np.abs(w).max() <= np.sqrt(6 / fan_in)


def test_layers_are_float32_unless_told():
    layers = Conv2d(1, 2, 3), Linear(2, 3)
    assert {p.dtype for layer in layers for p in layer.parameters().values()} == {np.dtype(np.float32)}


def test_a_layer_may_appear_once_in_nested_sequentials_too():
    shared = Linear(3, 3)
    with pytest.raises(ValueError, match="only once"):
        Sequential(shared, Sequential(shared))


@pytest.mark.parametrize("layer", [ReLU(), Flatten(), MaxPool2d(2)])
def test_back_refuses_a_gradient_of_another_shape(layer):
    y, back = layer.forward(np.ones((2, 3, 4, 4), np.float32))
    with pytest.raises(ValueError, match="dy: got shape"):
        back(np.ones((1, *y.shape[1:]), np.float32))


def test_sgd_refuses_a_gradient_of_another_shape_and_moves_nothing():
    p = {"a": np.ones(3), "b": np.ones((2, 3))}
    with pytest.raises(ValueError, match="b: got shape"):
        SGD(p, lr=1).step({"a": np.ones(3), "b": np.ones(3)})
    assert (p["a"] == 1).all()


def test_same_padding_and_a_stride_are_refused_when_the_layer_is_made():
    with pytest.raises(ValueError, match="padding: got 'same'"):
        Conv2d(1, 1, 3, stride=2, padding="same")


@pytest.mark.parametrize("logits", [[[0, -np.inf]], [[3e38, -3e38]]])
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_class_of_no_probability_costs_nothing_unless_it_is_the_target(logits):
    loss, _ = cross_entropy(np.array(logits, np.float32), np.array([0]))
    assert loss == 0
