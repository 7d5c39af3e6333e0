"""Which of a backend's two convolution kernels takes a layer: a case on each side of each limit."""

import numpy as np
import pytest

import fastcnn as fc
from fastcnn_kernels.conv2d.direct import blocking


def kernels(C, K, size, taps, groups, batch=1):
    """Names of the rows chosen for forward, dx and dw."""
    x = np.zeros((batch, C, size, size), np.float32)
    w = np.zeros((K, C // groups, taps, taps), np.float32)
    y = np.zeros((batch, K, size - taps + 1, size - taps + 1), np.float32)
    chosen = fc.explain("conv2d", x, w, groups=groups).kernels
    return chosen + fc.explain("conv2d_backward", y, x, w, groups=groups).kernels[:2]


@pytest.mark.parametrize(
    ("C", "K", "taps", "groups", "direct"),
    [
        (4, blocking.FEW_ROWS, 3, 1, True),
        (4, blocking.FEW_ROWS + 1, 3, 1, False),
        (8, 4 * blocking.FEW_ROWS_OF_A_GROUP, 1, 4, True),
        (8, 4 * blocking.FEW_ROWS_OF_A_GROUP + 4, 1, 4, False),
        (15, blocking.ROWS_WITH_TAPS, 3, 1, True),
        (14, blocking.ROWS_WITH_TAPS, 3, 1, False),
        (15, blocking.ROWS_WITH_TAPS + 1, 3, 1, False),
        (128, blocking.ROWS_WITH_TAPS, 1, 1, False),
    ],
)
def test_forward(C, K, taps, groups, direct):
    assert kernels(C, K, 20, taps, groups)[0] == ("conv2d_direct_cython" if direct else "conv2d_cython")


def test_input_gradient_counts_the_channels_of_its_result():
    assert kernels(blocking.FEW_ROWS, 100, 20, 1, 1)[1] == "conv2d_grad_input_direct_cython"
    assert kernels(blocking.FEW_ROWS + 1, 100, 20, 1, 1)[1] == "conv2d_grad_input_cython"


@pytest.mark.parametrize(
    ("C", "K", "size", "taps", "groups", "direct"),
    [
        (blocking.SHORT_LENGTH, 500, 3, 1, 1, True),
        (blocking.SHORT_LENGTH + 1, 500, 3, 1, 1, False),
        (100, blocking.LARGEST_GRADIENT // 100, 20, 1, 1, True),
        (100, blocking.LARGEST_GRADIENT // 100 + 1, 20, 1, 1, False),
        (40, 10, 15, 1, 1, True),
        (40, 10, 14, 1, 1, False),
        (80, 80, 3, 3, 2, True),
    ],
)
def test_weight_gradient(C, K, size, taps, groups, direct):
    expected = "conv2d_grad_weight_direct_cython" if direct else "conv2d_grad_weight_cython"
    assert kernels(C, K, size, taps, groups)[2] == expected


def test_reason_is_given():
    text = str(fc.explain("conv2d", np.zeros((1, 64, 9, 9)), np.zeros((128, 64, 3, 3))))
    assert "conv2d_direct_cython declined: 128 channels a group share each packed pixel, over sums of 576" in text
