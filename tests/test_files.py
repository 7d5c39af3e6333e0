"""Model files: round trip, damage, and writing that fails."""

import json
import os

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from fastcnn import files
from fastcnn.files import CheckpointError, load_model, save_model
from fastcnn.models import MODELS
from fastcnn.nn import Linear


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, MODELS["essay"](4, rng=0), ["0", "1", "2"], {"seed": 0})
    return path


def rewritten(path, *, header=None, tensors=None):
    """Write the file again with other header entries or tensors, and a checksum that fits."""
    with safe_open(path, framework="numpy") as file:
        old = json.loads(file.metadata()["fastcnn"])
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    text = json.dumps(old | (header or {}))
    kept = {name: array for name, array in (kept | (tensors or {})).items() if array is not None}
    path.write_bytes(save(kept, {"fastcnn": text, "sha256": files._digest(text, kept)}))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MODELS)
def test_round_trip(tmp_path, name, dtype):
    model, path = MODELS[name](7, dtype=dtype, rng=3), tmp_path / "m.safetensors"
    labels = [f"label {i}" for i in range(3 if name == "essay" else 10)]
    save_model(path, model, labels, {"steps": 5})
    loaded, header = load_model(path)
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert (header["classes"], header["facts"]) == (labels, {"steps": 5})
    assert loaded.parameters().keys() == model.parameters().keys()
    for key, p in loaded.parameters().items():
        assert p.dtype == dtype
        np.testing.assert_array_equal(p, model.parameters()[key])


def test_every_truncation_is_noticed(saved):
    whole = saved.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for size in {*range(0, header + 40, 7), header - 1, header, header + 1, *range(header, len(whole), 301)}:
        saved.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=str(saved)):
            load_model(saved)
    saved.write_bytes(whole + b"\0")
    with pytest.raises(CheckpointError, match=str(saved)):
        load_model(saved)


def test_flipped_bits_are_noticed(saved):
    whole = saved.read_bytes()
    for position in range(0, len(whole), 53):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        saved.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=str(saved)):
            load_model(saved)


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"B1": None}, "missing parameters: B1"),
        ({"B9": np.zeros(4, np.float32)}, "unknown parameters: B9"),
        ({"B1": None, "b1": np.zeros(4, np.float32)}, "missing parameters: B1"),
        ({"B1": np.zeros(5, np.float32)}, r"parameter B1: got float32 \(5,\), expected float32 \(4,\)"),
        ({"B1": np.zeros(4)}, r"parameter B1: got float64 \(4,\), expected float32 \(4,\)"),
    ],
)
def test_wrong_tensors_are_named(saved, tensors, text):
    rewritten(saved, tensors=tensors)
    with pytest.raises(CheckpointError, match=text) as caught:
        load_model(saved)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ({"version": 2}, "format version 2; this fastcnn reads version 1"),
        ({"version": "1"}, "format version '1'"),
        ({"model": "resnet"}, "unknown model 'resnet'; known are essay, lenet"),
        ({"model": ["essay"]}, "header is damaged"),
        ({"model": "lenet"}, "missing parameters"),
        ({"config": {"hidden": 5}}, "parameter W1"),
        ({"config": {"hidden": 10**12}}, "hidden"),
        ({"config": {"hidden": -1}}, "hidden: got -1"),
        ({"config": {"hidden": "4"}}, "hidden"),
        ({"config": {"hidden": 4, "dtype": "int8"}}, "dtype: got 'int8'"),
        ({"config": {"hidden": 4, "dtype": "float32", "rng": 3}}, "config"),
        ({"config": {"width": 4}}, "width"),
        ({"config": None}, "mapping"),
        ({"classes": 3}, "classes: got 3"),
        ({"classes": [1, 2]}, "classes"),
    ],
)
def test_wrong_headers_are_explained(saved, header, text):
    rewritten(saved, header=header)
    with pytest.raises(CheckpointError, match=text) as caught:
        load_model(saved)
    assert str(saved) in str(caught.value)


def test_foreign_files(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(save({"w": np.zeros(3)}))
    with pytest.raises(CheckpointError, match="not one of fastcnn's"):
        load_model(path)
    for text in ("[]", "{}", "no json", "null", "[" * 100_000):
        path.write_bytes(save({"w": np.zeros(3)}, {"fastcnn": text}))
        with pytest.raises(CheckpointError, match="header is damaged"):
            load_model(path)
    with pytest.raises(CheckpointError, match="not a regular file"):
        load_model(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(CheckpointError, match="not a regular file"):
        load_model(tmp_path / "fifo")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "absent")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file(saved, monkeypatch, step):
    def fail(*args):
        raise OSError(28, "No space left on device")

    before = saved.read_bytes()
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space"):
        save_model(saved, MODELS["essay"](4, rng=1), ["0", "1", "2"])
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]  # no temporary file is left


def test_only_known_models_are_saved(tmp_path):
    with pytest.raises(ValueError, match="Linear"):
        save_model(tmp_path / "m", Linear(2, 2), [])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("classes", [["a"], ["a", "a", "b"], "abc"])
def test_classes_have_to_be_one_label_for_each_output(tmp_path, classes):
    with pytest.raises(ValueError, match="classes: got"):
        save_model(tmp_path / "m", MODELS["essay"](4), classes)
