"""State that tests change is put back, and a Python of its own for what cannot be undone."""

import os
import subprocess
import sys

import pytest

from fastcnn import dispatch, picks, threads
from fastcnn_kernels import recall, table


@pytest.fixture(autouse=True)
def restored(monkeypatch, tmp_path_factory):
    """Backend and thread settings are those of a fresh process, before and after."""
    for setting in (dispatch.BACKEND, dispatch.ALGORITHM):
        monkeypatch.setattr(setting, "process_wide", None)
    monkeypatch.setattr(threads, "_number", None)
    recall.unsettle()
    monkeypatch.setenv("FASTCNN_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(picks, "_picks", None)
    monkeypatch.setattr(picks, "_warned", set())


@pytest.fixture
def rows(monkeypatch):
    """The table's list of rows, to insert fakes into."""
    monkeypatch.setattr(table, "KERNELS", list(table.KERNELS))
    for forget in (dispatch.forget, table._load.cache_clear):
        forget()
    yield table.KERNELS
    for forget in (dispatch.forget, table._load.cache_clear):
        forget()


@pytest.fixture
def python(tmp_path):
    """Run a script in a process of its own; returns what it printed."""

    def run(script, env=None, timeout=300):
        path = tmp_path / "script.py"
        path.write_text(script)
        done = subprocess.run(
            [sys.executable, str(path)],
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
