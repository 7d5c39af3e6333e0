"""Layers, losses, optimizers and initialisation on top of `fastcnn.ops`.

One convention throughout: ``layer(x)`` is inference and returns ``y``; ``layer.forward(x)`` returns
``(y, back)``, and ``back(dy)`` returns ``dx`` and sets the gradients of the layer's parameters.
"""

from fastcnn.nn.init import kaiming_normal, kaiming_uniform
from fastcnn.nn.losses import cross_entropy, log_softmax, one_hot, softmax
from fastcnn.nn.modules import Conv2d, Flatten, Linear, Module, ReLU, ReLU6, Sequential
from fastcnn.nn.norm import BatchNorm2d
from fastcnn.nn.optim import SGD, cosine
from fastcnn.nn.pooling import MaxPool2d
from fastcnn.nn.prepared import Prepared

__all__ = [
    "SGD",
    "BatchNorm2d",
    "Conv2d",
    "Flatten",
    "Linear",
    "MaxPool2d",
    "Module",
    "Prepared",
    "ReLU",
    "ReLU6",
    "Sequential",
    "cosine",
    "cross_entropy",
    "kaiming_normal",
    "kaiming_uniform",
    "log_softmax",
    "one_hot",
    "softmax",
]
