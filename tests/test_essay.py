"""The essay's network: nodes and gradients against NumPy, central differences, torch; six corrections."""

# ruff: noqa: E743 - I and O are the essay's names

import numpy as np
import pytest
import torch

from fastcnn.models import Essay
from fastcnn.nn import SGD, cross_entropy, softmax
from fastcnn.training import train

N, M = 3, 5
PARAMETERS = ("K", "W1", "B1", "W2", "B2")
NODES = ("I", "C", "C_F", "H", "H_B", "R", "O", "O_B", "O_S", "O_L", "L")
# Sums of at most 400 terms of magnitude about 1 in float64: 400 u = 4e-14.
close = {"rtol": 1e-11, "atol": 1e-12}


@pytest.fixture
def model():
    model = Essay(M, dtype=np.float64, rng=0)
    rng = np.random.default_rng(1)
    for name in ("B1", "B2"):
        model.params[name][...] = rng.standard_normal(model.params[name].shape) / 2
    return model


@pytest.fixture
def I():
    return np.random.default_rng(2).random((N, 20, 20))


@pytest.fixture(params=["one-hot", "soft"])
def T(request):
    return np.eye(3) if request.param == "one-hot" else softmax(np.random.default_rng(3).standard_normal((N, 3)))


def patches(image):
    """The 3 x 3 patch around each pixel of one zero-padded image, written as two loops."""
    padded = np.zeros((22, 22))
    padded[1:21, 1:21] = image
    return np.array([[padded[y : y + 3, x : x + 3] for x in range(20)] for y in range(20)])


def plain_nodes(params, I, T):
    """The forward graph in plain NumPy, one image at a time, softmax as printed in the essay."""
    K, W1, B1, W2, B2 = (params[name] for name in PARAMETERS)
    images = []
    for image, t in zip(I, T, strict=True):
        C = (patches(image) * K).sum(axis=(2, 3))
        C_F = C.reshape(400)
        H = C_F @ W1
        H_B = H + B1
        R = 1 / 2 * (H_B + np.abs(H_B))
        O = R @ W2
        O_B = O + B2
        O_S = np.exp(O_B) / np.exp(O_B).sum()
        O_L = np.log(O_S)
        images.append(dict(zip(NODES, (image, C, C_F, H, H_B, R, O, O_B, O_S, O_L, -(t * O_L).sum()), strict=True)))
    nodes = {name: np.stack([image[name] for image in images]) for name in NODES}
    return nodes | {"L": nodes["L"].mean()}


def torch_graph(model, I, T):
    """The same graph in torch; every node keeps its gradient."""
    p = {name: torch.tensor(array, requires_grad=True) for name, array in model.params.items()}
    g = {"I": torch.tensor(I, requires_grad=True)}
    g["C"] = torch.nn.functional.conv2d(g["I"][:, None], p["K"][None, None], padding=1)[:, 0]
    g["C_F"] = g["C"].flatten(1)
    g["H"] = g["C_F"] @ p["W1"]
    g["H_B"] = g["H"] + p["B1"]
    g["R"] = torch.relu(g["H_B"])
    g["O"] = g["R"] @ p["W2"]
    g["O_B"] = g["O"] + p["B2"]
    g["O_S"] = torch.softmax(g["O_B"], -1)
    g["O_L"] = torch.log(g["O_S"])
    g["L"] = -(torch.tensor(T) * g["O_L"]).sum(-1).mean()
    for node in g.values():
        node.retain_grad()
    g["L"].backward()
    return g | p


def central_difference(function, x, step=1e-6):
    """Derivative of a function of an array: shape of the result, then shape of x."""
    columns = []
    for index in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            ends.append(np.asarray(function(moved)))
        columns.append((ends[0] - ends[1]) / (2 * step))
    return np.moveaxis(np.array(columns), 0, -1).reshape(*columns[0].shape, *x.shape)


def test_nodes_equal_plain_numpy(model, I, T):
    nodes, expected = model.nodes(I, T), plain_nodes(model.params, I, T)
    assert tuple(nodes) == NODES
    for name in NODES:
        assert nodes[name].shape == expected[name].shape
        np.testing.assert_allclose(nodes[name], expected[name], **close, err_msg=name)


def test_nodes_and_accumulated_gradients_equal_torch(model, I, T):
    nodes, gradients, expected = model.nodes(I, T), model.node_gradients(I, T), torch_graph(model, I, T)
    for name in NODES:
        np.testing.assert_allclose(nodes[name], expected[name].detach(), **close, err_msg=name)
    for name in (*NODES, *PARAMETERS):
        np.testing.assert_allclose(gradients[f"dL/d{name}"], expected[name].grad, **close, err_msg=name)


def test_gradients_of_parameters_and_image_equal_central_differences(model, I, T):
    gradients = model.node_gradients(I, T)

    def loss(name, value):
        if name == "I":
            return plain_nodes(model.params, value, T)["L"]
        return plain_nodes(model.params | {name: value}, I, T)["L"]

    for name in ("K", "B1", "W2", "B2"):
        expected = central_difference(lambda value, name=name: loss(name, value), model.params[name])
        np.testing.assert_allclose(gradients[f"dL/d{name}"], expected, rtol=1e-6, atol=1e-9, err_msg=name)
    # One direction through all entries of the two large arrays.
    for name, value in (("W1", model.params["W1"]), ("I", I)):
        d = np.random.default_rng(4).standard_normal(value.shape)
        slope = (loss(name, value + 1e-6 * d) - loss(name, value - 1e-6 * d)) / 2e-6
        assert (gradients[f"dL/d{name}"] * d).sum() == pytest.approx(slope, rel=1e-6)


# Piece -> the node as a function of one of its inputs, as the essay writes it; the other inputs are in `v`.
STEPS = {
    "dL/dO_L": lambda v, O_L: -(v["T"] * O_L).sum() / N,
    "dO_L/dO_S": lambda v, O_S: np.log(O_S),
    "dO_S/dO_B": lambda v, O_B: np.exp(O_B) / np.exp(O_B).sum(),
    "dO_B/dB2": lambda v, B2: v["O"] + B2,
    "dO_B/dO": lambda v, O: O + v["B2"],
    "dO/dW2": lambda v, W2: v["R"] @ W2,
    "dO/dR": lambda v, R: R @ v["W2"],
    "dR/dH_B": lambda v, H_B: 1 / 2 * (H_B + np.abs(H_B)),
    "dH_B/dB1": lambda v, B1: v["H"] + B1,
    "dH_B/dH": lambda v, H: H + v["B1"],
    "dH/dW1": lambda v, W1: v["C_F"] @ W1,
    "dH/dC_F": lambda v, C_F: C_F @ v["W1"],
    "dC/dK": lambda v, K: (patches(v["I"]) * K).sum(axis=(2, 3)),
}


@pytest.mark.parametrize("piece", STEPS)
def test_each_piece_equals_central_differences(model, I, T, piece):
    got = model.node_gradients(I, T)[piece]
    nodes = model.nodes(I, T)
    name = piece.split("/d")[1]
    for n in range(N):
        v = {key: value[n] for key, value in nodes.items() if key != "L"} | model.params | {"T": T[n]}
        expected = central_difference(lambda x, v=v: STEPS[piece](v, x), v[name])
        local = got if name in ("B2", "O", "R", "B1", "H", "C_F") else got[n]
        # The table's compact forms, written out as the full Jacobian (output index, then input indices).
        if piece in ("dO/dW2", "dH/dW1"):  # outer product: dO_j/dW2_ij = R_i
            local = np.eye(expected.shape[0])[:, None, :] * local[None, :, None]
        elif piece == "dR/dH_B":
            local = np.diag(local)
        elif piece in ("dO/dR", "dH/dC_F"):
            local = local.T
        np.testing.assert_allclose(local, expected, rtol=1e-6, atol=1e-8)


def test_multiplying_the_pieces_gives_the_five_gradients(model, I, T):
    """The essay's chains, piece by piece, upstream first, in einsum."""
    g = model.node_gradients(I, T)
    dO_B = np.einsum("ni,nij,njk->nk", g["dL/dO_L"], g["dO_L/dO_S"], g["dO_S/dO_B"])
    dO = dO_B @ g["dO_B/dO"]
    dH_B = dO @ g["dO/dR"].T * g["dR/dH_B"]
    dH = dH_B @ g["dH_B/dH"]
    dC = (dH @ g["dH/dC_F"].T).reshape(N, 20, 20)
    chains = {
        "B2": (dO_B @ g["dO_B/dB2"]).sum(axis=0),
        "W2": np.einsum("ni,nj->ij", g["dO/dW2"], dO),
        "B1": (dH_B @ g["dH_B/dB1"]).sum(axis=0),
        "W1": np.einsum("ni,nj->ij", g["dH/dW1"], dH),
        "K": np.einsum("nyx,nyxuv->uv", dC, g["dC/dK"]),
    }
    for name, gradient in chains.items():
        np.testing.assert_allclose(gradient, g[f"dL/d{name}"], **close, err_msg=name)


def test_module_back_is_the_same_chain(model, I, T):
    O_B, back = model.forward(I)
    loss, dloss = cross_entropy(O_B, T)
    assert loss == pytest.approx(model.nodes(I, T)["L"], rel=1e-12)
    expected = model.node_gradients(I, T)
    np.testing.assert_allclose(back(dloss()), expected["dL/dI"], **close)
    assert tuple(model.gradients()) == PARAMETERS
    for name, gradient in model.gradients().items():
        np.testing.assert_allclose(gradient, expected[f"dL/d{name}"], **close)
    assert back(dloss(), need_dx=False) is None


def test_gradients_stay_finite_where_softmax_underflows(model, I, T):
    model.params["B2"][...] = 2000, 0, -2000
    O_B, back = model.forward(I)
    back(cross_entropy(O_B, T)[1]())
    assert all(np.isfinite(gradient).all() for gradient in model.gradients().values())
    nodes = model.nodes(I, T)
    assert nodes["O_S"][0, 2] == 0
    assert np.isfinite(nodes["O_L"]).all()


# The six places where the essay's formulas do not hold as printed.


def test_correction_1_shapes_are_400(model, I):
    """Printed: C_F 1 x 20, W1 20 x m, b up to b_20,20. A 20 x 20 image has 400 entries."""
    nodes = model.nodes(I, np.eye(3))
    assert nodes["C"][0].size == 400
    with pytest.raises(ValueError, match="reshape"):
        nodes["C"][0].reshape(1, 20)
    with pytest.raises(ValueError, match="matmul"):
        nodes["C_F"] @ np.ones((20, M))
    assert (nodes["C_F"].shape, model.params["W1"].shape) == ((N, 400), (400, M))
    assert (model.params["B1"].shape, nodes["H_B"].shape) == ((M,), (N, M))
    np.testing.assert_array_equal(nodes["C_F"][0, 20:40], nodes["C"][0, 1])  # row-major


def test_correction_2_softmax_sums_three_classes(model, I):
    """Printed: the sum runs over i = 0..3, four terms. Three scores need i = 1..3 to give probabilities."""
    nodes = model.nodes(I, np.eye(3))
    e = np.exp(nodes["O_B"])
    np.testing.assert_allclose(nodes["O_S"].sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(nodes["O_S"], e / e.sum(axis=1, keepdims=True), **close)
    printed = e / (1 + e.sum(axis=1, keepdims=True))  # with a zeroth score, here 0; any would do
    assert (printed.sum(axis=1) < 0.999).all()


def test_correction_3_half_encloses_both_terms(model, I):
    """Printed in the loss: 1/2 a + abs(a). ReLU is 1/2 (a + abs(a))."""
    nodes = model.nodes(I, np.eye(3))
    a = nodes["H_B"]
    assert (a > 0).any()
    assert (a < 0).any()
    relu = torch.relu(torch.tensor(a)).numpy()
    np.testing.assert_array_equal(nodes["R"], relu)
    printed = a / 2 + np.abs(a)
    assert (np.abs(printed - relu) > 1e-3).all()


def test_correction_4_softmax_derivative_stays_a_matrix(model, I, T):
    """Printed: one column O_i - O_i^2 - sum_{j != i} O_i O_j, which is 0; it is diag(O) - O O^T."""
    nodes, g = model.nodes(I, T), model.node_gradients(I, T)
    O = nodes["O_S"]
    others = O.sum(axis=1, keepdims=True) - O
    printed = O - O * O - O * others
    np.testing.assert_allclose(printed, 0, atol=1e-15)  # whatever is upstream, its gradient would vanish
    expected = torch_graph(model, I, T)["O_B"].grad
    assert expected.abs().max() > 0.01
    for n in range(N):
        np.testing.assert_allclose(g["dO_S/dO_B"][n], np.diag(O[n]) - np.outer(O[n], O[n]), **close)
    np.testing.assert_allclose(np.einsum("ni,nij->nj", g["dL/dO_S"], g["dO_S/dO_B"]), expected, **close)


def test_correction_5_relu_derivative_is_a_step(model, I, T):
    """Printed: dR/dH_B = 1/2 (H_B + abs(H_B)), which is R itself. It is 1/2 (1 + sign(H_B)), and 0 at 0."""
    g, expected = model.node_gradients(I, T), torch_graph(model, I, T)
    H_B = model.nodes(I, T)["H_B"]
    np.testing.assert_array_equal(g["dR/dH_B"], (1 + np.sign(H_B)) / 2)
    np.testing.assert_allclose(g["dL/dR"] * g["dR/dH_B"], expected["H_B"].grad, **close)
    printed = (H_B + np.abs(H_B)) / 2
    assert not np.allclose(g["dL/dR"] * printed, expected["H_B"].grad, rtol=0.01)

    for name in ("W1", "B1"):
        model.params[name][...] = 0  # H_B is exactly 0
    assert (model.node_gradients(I, T)["dR/dH_B"] == 0).all()
    assert (torch_graph(model, I, T)["H_B"].grad == 0).all()


def test_correction_6_kernel_derivative_is_the_input_patches(model, I, T):
    """Printed: dC/dK is the matrix of C. It is the 3 x 3 patches of I."""
    g, expected = model.node_gradients(I, T), torch_graph(model, I, T)["K"].grad
    assert g["dC/dK"].shape == (N, 20, 20, 3, 3)
    for n in range(N):
        np.testing.assert_array_equal(g["dC/dK"][n], patches(I[n]))
    np.testing.assert_allclose(np.einsum("nyx,nyxuv->uv", g["dL/dC"], g["dC/dK"]), expected, **close)
    of_C = np.array([patches(image) for image in model.nodes(I, T)["C"]])  # C in place of the input
    assert not np.allclose(np.einsum("nyx,nyxuv->uv", g["dL/dC"], of_C), expected, rtol=0.01)


def test_descent_stops_at_the_loss_level_and_counts_its_steps(model, I):
    T = np.eye(3)
    run = train(model, I, T, SGD(model.parameters(), 0.01), max_steps=10_000, target_loss=0.1)
    assert run.reached
    assert run.loss <= 0.1 < run.history[-2].loss  # not a step earlier, not a step later
    assert run.steps == run.history[-1].step == len(run.history) - 1 > 3
    assert model.nodes(I, T)["L"] == pytest.approx(run.loss, rel=1e-12)


def test_descent_is_the_essays_update(model, I, T):
    expected = {name: p - 0.05 * model.node_gradients(I, T)[f"dL/d{name}"] for name, p in model.params.items()}
    run = train(model, I, T, SGD(model.parameters(), 0.05), max_steps=1)
    assert run.steps == 1
    assert not run.reached
    for name, p in model.params.items():
        np.testing.assert_allclose(p, expected[name], **close)


@pytest.mark.parametrize("shape", [(20, 20), (2, 20, 21), (2, 1, 20, 20)])
def test_wrong_images_are_refused(model, shape):
    with pytest.raises(ValueError, match=r"I: got shape"):
        model(np.zeros(shape))


def test_wrong_targets_and_widths_are_refused(model, I):
    with pytest.raises(ValueError, match="T: got shape"):
        model.nodes(I, np.eye(3)[:2])
    for hidden, error in ((0, ValueError), (4097, ValueError), (2.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="hidden"):
            Essay(hidden)
    with pytest.raises(ValueError, match="dtype"):
        Essay(4, dtype=np.float16)
