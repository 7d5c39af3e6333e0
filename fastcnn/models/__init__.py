"""Networks: the essay's, and a LeNet-like one for small digits."""

from fastcnn.models.essay import Essay
from fastcnn.models.lenet import LeNet

#: Name in a model file and on the command line -> class; ``MODELS[name](**model.config)`` builds it again.
MODELS: dict[str, type[Essay] | type[LeNet]] = {"essay": Essay, "lenet": LeNet}

Model = Essay | LeNet

__all__ = ["MODELS", "Essay", "LeNet", "Model"]
