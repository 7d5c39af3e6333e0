"""`import fastcnn` is light, and its names are all there."""

import tomllib
from pathlib import Path

import pytest

import fastcnn

HEAVY = ("numba", "llvmlite", "scipy", "sklearn", "matplotlib", "torch", "PIL", "tqdm", "safetensors")


def test_import_loads_nothing_heavy(python):
    script = f"import sys, fastcnn\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    assert python(script).strip() == "[]"


def test_asking_about_the_installation_loads_nothing_heavy(python):
    script = f"""
import contextlib, io, sys
import fastcnn as fc
with contextlib.redirect_stdout(io.StringIO()) as text:
    fc.show_config()
fc.backends(), fc.get_backend(), fc.get_num_threads()
assert "numpy" in text.getvalue()
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    assert python(script).strip() == "[]"


def test_every_public_name_exists():
    for name in fastcnn.__all__:
        assert getattr(fastcnn, name) is not None
    assert set(fastcnn.__all__) <= set(dir(fastcnn))
    with pytest.raises(AttributeError, match="has no attribute 'conv3d'"):
        fastcnn.conv3d  # noqa: B018


def test_version_is_the_package_version():
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text())["project"]
    assert "version" in project.get("dynamic", ()) or project["version"] == fastcnn.__version__


def test_show_config_tells_what_a_bug_report_needs(python):
    text = python("import fastcnn; fastcnn.show_config()", env={"FASTCNN_NUM_THREADS": "3"})
    for part in ("fastcnn: ", "python: ", "numpy: ", "numba: ", "cython: ", "CPU level: ", "threads: 3"):
        assert part in text
    assert "FASTCNN_NUM_THREADS: 3" in text


def test_show_config_survives_bad_environment_variables(python):
    env = {"FASTCNN_NUM_THREADS": "x", "FASTCNN_BACKEND": "y", "FASTCNN_CPU_LEVEL": "z"}
    text = python("import fastcnn; fastcnn.show_config()", env=env)
    for name in env:
        assert f"error: environment variable {name}" in text
