"""Model files: safetensors with a JSON header of ours in its metadata; never pickle.

Metadata of a file: ``fastcnn``, a JSON object with version, model, config, classes and training facts; and
``sha256``, the digest of that text and of every tensor's name and bytes, in the order of the names.
"""

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

from fastcnn.atomic import write_atomic
from fastcnn.checks import message
from fastcnn.models import MODELS, Model

VERSION = 1


class CheckpointError(ValueError):
    """A model file that is damaged, from elsewhere, or from a newer version."""


def save_model(path: str | Path, model: Model, classes: list[str], facts: dict[str, Any] | None = None) -> None:
    """Write `model` to `path` so that the file is always either the old one or the whole new one.

    Parameters
    ----------
    path : str or Path
    model : Essay or LeNet
    classes : list of str
        Label of each class index.
    facts : dict, optional
        Anything JSON can hold about how the model was trained.

    Raises
    ------
    ValueError
        If `model` is none of `MODELS`, or `classes` are not one label for each of its outputs.
    OSError
        If the file cannot be written; a file that was there before is unchanged.
    """
    from safetensors.numpy import save

    names = [name for name, kind in MODELS.items() if type(model) is kind]
    if not names:
        raise ValueError(f"model: expected one of {', '.join(MODELS)}, got {type(model).__name__}")
    _check_classes(classes, model)
    tensors = {name: np.ascontiguousarray(array) for name, array in model.state_dict().items()}
    header = json.dumps(
        {
            "version": VERSION,
            "model": names[0],
            "config": model.config,
            "classes": classes,
            "facts": facts or {},
        }
    )
    write_atomic(path, save(tensors, {"fastcnn": header, "sha256": _digest(header, tensors)}))


def load_model(path: str | Path) -> tuple[Model, dict[str, Any]]:
    """Read a model that `save_model` wrote.

    Returns
    -------
    model : Essay or LeNet
    header : dict
        version, model, config, classes, facts.

    Raises
    ------
    CheckpointError
        If the file is not a sound one of this version; names the path, and the tensor where it is one.
    OSError
        If the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if not stat.S_ISREG(os.stat(path).st_mode):
        raise CheckpointError(f"{path}: not a regular file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, TypeError, AttributeError) as error:  # the last two: a dtype NumPy does not have
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({error})") from None
    if "fastcnn" not in metadata:
        raise CheckpointError(f"{path}: a safetensors file, but not one of fastcnn's models")
    try:
        header = json.loads(metadata["fastcnn"])
        version, kind = header["version"], MODELS.get(header["model"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is damaged ({error!r})") from None
    if version != VERSION:
        raise CheckpointError(f"{path}: format version {version!r}; this fastcnn reads version {VERSION}")
    if kind is None:
        raise CheckpointError(f"{path}: unknown model {header['model']!r}; known are {', '.join(MODELS)}")
    try:
        model = kind(**header["config"])
        model.load_state_dict(tensors)
        classes = header["classes"]
        if model.config != header["config"]:  # a keyword of the constructor that is no configuration
            raise ValueError(message("config", header["config"], f"{model.config}"))
        _check_classes(classes, model)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    if metadata.get("sha256") != _digest(metadata["fastcnn"], tensors):
        raise CheckpointError(f"{path}: the checksum does not match, the file is damaged")
    return model, header


def _check_classes(classes: Any, model: Model) -> None:
    outputs = len(list(model.parameters().values())[-1])  # the last bias has one value per class
    if not isinstance(classes, list) or not all(isinstance(label, str) for label in classes):
        raise ValueError(message("classes", classes, "a list of strings"))
    if len(classes) != outputs or len(set(classes)) != outputs:
        raise ValueError(message("classes", classes, f"{outputs} different labels"))


def _digest(header: str, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
