"""The network of the essay "Exploring Architectures - CNN II", node by node, with the essay's names.

    I -> C = I (x) K -> C_F = flatten C -> H = C_F W1 -> H_B = H + B1 -> R = 1/2 (H_B + abs(H_B))
      -> O = R W2 -> O_B = O + B2 -> O_S = softmax(O_B) -> O_L = log O_S -> L = -sum_i T_i O_L,i

(x) is the cross-correlation with a 3 x 3 kernel and zero padding 1. Every array has a leading batch dimension
N, and L is the mean over the batch, so that each gradient carries 1/N. m is the hidden width.

The essay's formulas are implemented with six corrections (tests/test_essay.py shows each): the flattened
image has 400 entries, not 20; softmax sums over three classes, i = 1..3; ReLU's 1/2 encloses both terms;
dO_S/dO_B is the matrix diag(O_S) - O_S O_S^T; dR/dH_B is 1/2 (1 + sign(H_B)); dC/dK is the patches of I.
"""

# ruff: noqa: D102 - __call__ is described in Module; I and O are the essay's names

import numpy as np
from numpy.typing import DTypeLike

from fastcnn import ops
from fastcnn.checks import message
from fastcnn.models.config import model_config
from fastcnn.nn import Module, kaiming_uniform, log_softmax
from fastcnn.nn.init import Rng

SIZE = 20  # height and width of I
CLASSES = 3
OPERATIONS = {
    "I": "input image",
    "C": "convolution I ⊗ K",
    "C_F": "flatten C",
    "H": "C_F · W1",
    "H_B": "H + B1",
    "R": "ReLU(H_B)",
    "O": "R · W2",
    "O_B": "O + B2",
    "O_S": "softmax(O_B)",
    "O_L": "log(O_S)",
    "L": "cross entropy -Σ T O_L",
}


class Essay(Module):
    """The essay's network with parameters K (3, 3), W1 (400, m), B1 (m,), W2 (m, 3), B2 (3,).

    As a `Module` it maps images I (N, 20, 20) to O_B (N, 3), and `cross_entropy` is the rest of the graph.

    Parameters
    ----------
    hidden : int
        m, from 1 to 4096.
    dtype : float32 or float64
    rng : int, numpy.random.Generator or None
        Kaiming-uniform K, W1 and W2; the biases start at zero.

    Raises
    ------
    ValueError
        If `hidden` is out of range or `dtype` is another one.
    """

    def __init__(self, hidden: int = 32, *, dtype: DTypeLike = np.float32, rng: Rng = None):
        super().__init__()
        self.config = model_config(hidden, dtype)
        self.input_shape = (SIZE, SIZE)
        rng = np.random.default_rng(rng)
        self.params = {
            "K": kaiming_uniform((3, 3), 9, rng, dtype),
            "W1": kaiming_uniform((SIZE * SIZE, hidden), SIZE * SIZE, rng, dtype),
            "B1": np.zeros(hidden, dtype),
            "W2": kaiming_uniform((hidden, CLASSES), hidden, rng, dtype),
            "B2": np.zeros(CLASSES, dtype),
        }

    def __call__(self, I):
        return self._to_O_B(I)["O_B"]

    def forward(self, I):
        """Return O_B and `back`, the chain from dL/dO_B to the five parameters."""
        nodes = self._to_O_B(I)

        def back(dO_B, need_dx=True):
            chain = self._chain(nodes, dO_B, need_dx)
            self.grads = {name: chain[f"dL/d{name}"] for name in self.params}
            return chain.get("dL/dI")

        return nodes["O_B"], back

    def nodes(self, I: np.ndarray, T: np.ndarray) -> dict[str, np.ndarray]:
        """Evaluate every node of the forward graph.

        Parameters
        ----------
        I : ndarray (N, 20, 20)
        T : ndarray (N, 3)
            True distribution per image, one-hot or soft.

        Returns
        -------
        dict of str to ndarray
            I, C (N, 20, 20); C_F (N, 400); H, H_B, R (N, m); O, O_B, O_S, O_L (N, 3); L ().

        Raises
        ------
        ValueError
            If a shape does not fit.
        """
        nodes = self._to_O_B(I)
        if T.shape != nodes["O_B"].shape:
            raise ValueError(message("T", f"shape {T.shape}", f"{nodes['O_B'].shape}"))
        # O_L comes first because log(softmax) is stable in one step and O_S = exp(O_L) loses nothing.
        O_L = log_softmax(nodes["O_B"])
        return nodes | {"O_S": np.exp(O_L), "O_L": O_L, "L": -np.sum(T * O_L) / O_L.dtype.type(len(I))}

    def node_gradients(self, I: np.ndarray, T: np.ndarray) -> dict[str, np.ndarray]:
        """Evaluate every piece of the backward graph, and dL/d of every node and parameter.

        Parameters
        ----------
        I : ndarray (N, 20, 20)
        T : ndarray (N, 3)

        Returns
        -------
        dict of str to ndarray
            The local pieces: dO_L/dO_S, dO_S/dO_B (N, 3, 3); dO_B/dB2, dO_B/dO (3, 3); dO/dW2 = R (N, m);
            dO/dR = W2; dR/dH_B (N, m), the diagonal; dH_B/dB1, dH_B/dH (m, m); dH/dW1 = C_F (N, 400);
            dH/dC_F = W1; dC/dK (N, 20, 20, 3, 3), the patch of I under each pixel of C.
            The accumulated gradients: dL/dX, of the shape of X, for X = L, O_L, O_S, O_B, O, R, H_B, H, C_F,
            C, I, K, W1, B1, W2, B2.
        """
        nodes = self.nodes(I, T)
        O_S, dtype = nodes["O_S"], nodes["O_S"].dtype
        identity = np.eye(CLASSES, dtype=dtype)
        dO_L = -T / dtype.type(len(I))
        with np.errstate(divide="ignore"):  # a class whose probability underflows to 0 has an infinite 1 / O_S
            pieces = {
                "dO_L/dO_S": np.where(identity == 1, 1 / O_S[:, :, None], 0).astype(dtype),
                "dO_S/dO_B": O_S[:, :, None] * identity - O_S[:, :, None] * O_S[:, None, :],
                "dO_B/dB2": identity,
                "dO_B/dO": identity,
                "dO/dW2": nodes["R"],
                "dO/dR": self.params["W2"],
                "dR/dH_B": _relu_derivative(nodes["H_B"]),
                "dH_B/dB1": np.eye(len(self.params["B1"]), dtype=dtype),
                "dH_B/dH": np.eye(len(self.params["B1"]), dtype=dtype),
                "dH/dW1": nodes["C_F"],
                "dH/dC_F": self.params["W1"],
                "dC/dK": np.lib.stride_tricks.sliding_window_view(
                    np.pad(I, ((0, 0), (1, 1), (1, 1))), (3, 3), axis=(1, 2)
                ),
                "dL/dL": np.ones((), dtype),
                "dL/dO_L": dO_L,
                "dL/dO_S": np.divide(dO_L, O_S, out=np.zeros_like(O_S), where=T != 0),
            }
        # dO_L/dO_S dO_S/dO_B = identity - (1,1,1)^T O_S in closed form, because 1 / O_S may be infinite.
        dO_B = dO_L - dO_L.sum(axis=1, keepdims=True) * O_S
        return pieces | self._chain(nodes, dO_B, need_dx=True)

    def _to_O_B(self, I: np.ndarray) -> dict[str, np.ndarray]:
        if I.ndim != 3 or I.shape[1:] != self.input_shape:
            raise ValueError(message("I", f"shape {I.shape}", f"(N, {SIZE}, {SIZE})"))
        K, W1, B1, W2, B2 = self.params.values()
        C = ops.conv2d(I[:, None], K[None, None], padding=1)[:, 0]
        C_F = C.reshape(len(I), SIZE * SIZE)
        H = ops.matmul(C_F, W1)
        H_B = H + B1
        R = (H_B + np.abs(H_B)) / 2
        O = ops.matmul(R, W2)
        return {"I": I, "C": C, "C_F": C_F, "H": H, "H_B": H_B, "R": R, "O": O, "O_B": O + B2}

    def _chain(self, nodes: dict[str, np.ndarray], dO_B: np.ndarray, need_dx: bool) -> dict[str, np.ndarray]:
        """Multiply the pieces from dL/dO_B down to I and the five parameters, upstream first."""
        K, W1, _, W2, _ = self.params.values()
        dO = dO_B
        dR = ops.matmul(dO, W2.T)
        dH_B = dR * _relu_derivative(nodes["H_B"])
        dH = dH_B
        dC_F = ops.matmul(dH, W1.T)
        dC = dC_F.reshape(nodes["C"].shape)
        gradients = {
            "dL/dO_B": dO_B,
            "dL/dB2": dO_B.sum(axis=0),
            "dL/dO": dO,
            "dL/dW2": ops.matmul(nodes["R"].T, dO),
            "dL/dR": dR,
            "dL/dH_B": dH_B,
            "dL/dB1": dH_B.sum(axis=0),
            "dL/dH": dH,
            "dL/dW1": ops.matmul(nodes["C_F"].T, dH),
            "dL/dC_F": dC_F,
            "dL/dC": dC,
        }
        dI, dK, _ = ops.conv2d_backward(
            dC[:, None], nodes["I"][:, None], K[None, None], padding=1, output_mask=(need_dx, True, False)
        )
        four_d = {"dL/dK": (dK, K), "dL/dI": (dI, nodes["I"])}
        return gradients | {name: d.reshape(like.shape) for name, (d, like) in four_d.items() if d is not None}


def _relu_derivative(H_B: np.ndarray) -> np.ndarray:
    """Derivative of ReLU, 1/2 (1 + sign(H_B)), with 0 instead of 1/2 at exactly 0, as PyTorch."""
    return (H_B > 0).astype(H_B.dtype)
