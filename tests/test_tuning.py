"""Choice by measurement: which kernel wins, who goes before it, and a file that may be damaged in any way."""

import json
import os
import subprocess
import sys
import threading
import time
import types
import warnings

import numpy as np
import pytest

import fastcnn as fc
from fastcnn import picks, tuning
from fastcnn.cli import main
from fastcnn.config import config
from fastcnn.files import save_model
from fastcnn.models import LeNet
from fastcnn_kernels import table

X, W = np.ones((1, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache directory, where only fakes compute conv2d."""
    monkeypatch.setenv("FASTCNN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fake(rows, monkeypatch):
    """Replace the kernels of conv2d by ones that sleep for given milliseconds, and fill their output with them."""
    module = types.ModuleType("fake_kernels")
    monkeypatch.setitem(sys.modules, "fake_kernels", module)
    rows[:] = [kernel for kernel in rows if kernel.op != "conv2d"]

    def insert(name, backend="numba", alone=None, **options):
        milliseconds = float(name.removeprefix("takes"))

        def kernel(*, out, num_threads, **call):
            time.sleep((alone if alone is not None and num_threads == 1 else milliseconds) / 1e3)
            out.fill(milliseconds)

        setattr(module, name, kernel)
        rows.append(table.Kernel(name, "conv2d", backend, "fake_kernels", name, **options))

    return insert


def names(*args, **kwargs):
    return fc.explain("conv2d", *args, **kwargs).kernels


def test_the_fastest_kernel_is_taken_from_then_on(fake):
    for name in ("takes4", "takes1", "takes2"):
        fake(name)
    assert names(X, W) == ["takes4"]
    for _ in range(2):  # a known call, too
        assert (fc.conv2d(X, W) == 4).all()
    out = np.zeros((1, 3, 3, 3), "f4")
    tuned = fc.tune("conv2d", X, W, out=out)
    assert not out.any()
    (measured,) = tuned.calls
    assert (measured.pick.kernel, measured.modelled) == ("takes1", "takes4")
    assert list(dict.fromkeys(kernel for kernel, _ in measured.times)) == ["takes1", "takes2", "takes4"]
    assert 0.001 <= measured.pick.seconds < 0.002
    assert measured.modelled_seconds >= 0.004
    assert "takes1, the cost model takes takes4" in str(tuned)
    assert names(X, W) == ["takes1"]
    assert (fc.conv2d(X, W) == 1).all()
    assert (fc.conv2d(X, W) == 1).all()
    assert "takes4 declined: measured: takes1 is faster" in str(fc.explain("conv2d", X, W))
    assert names(X, W, stride=2) == names(np.ones((1, 2, 6, 5), "f4"), W) == ["takes4"]  # other calls


def test_what_is_asked_for_goes_before_what_was_measured(fake):
    fake("takes3", backend="cython", algorithm="winograd4")
    fake("takes1", backend="numba")
    fc.tune("conv2d", X, W)
    assert names(X, W) == ["takes1"]
    assert names(X, W, backend="cython") == ["takes3"]
    with fc.use_algorithm("winograd4"):
        assert names(X, W) == ["takes3"]
    assert fc.tune("conv2d", X, W, backend="cython").calls[0].pick.kernel == "takes3"


def test_only_what_can_compute_the_call_is_measured(fake):
    fake("takes5", refuses=lambda **_: "slow")
    fake("takes1", cannot=lambda **_: "wrong")
    fake("takes2", dtypes=("float64",))
    fake("takes3", backend="numpy")
    fake("takes4")
    measured = fc.tune("conv2d", X, W).calls[0]
    assert {kernel for kernel, _ in measured.times} == {"takes5", "takes4"}
    fake("takes6", backend="numpy")
    assert fc.tune("conv2d", X, W, backend="numpy").calls[0].pick.kernel == "takes3"


def test_one_thread_may_be_faster_than_all(fake, monkeypatch):
    fake("takes3", alone=1)
    fc.set_num_threads(2)
    assert fc.tune("conv2d", X, W).calls[0].pick.threads == 1
    seen = []
    monkeypatch.setattr(fc.threads, "acquire", lambda work, least: seen.append(least) or 1)
    fc.conv2d(X, W)
    fc.set_num_threads(3)  # another setting, not measured
    fc.conv2d(X, W)
    assert seen == [np.inf, fc.threads.PARALLEL_WORK["numba"]]


def test_every_op_can_be_tuned():
    rng = np.random.default_rng(60)
    x, w = rng.standard_normal((2, 8, 12, 12)), rng.standard_normal((8, 8, 3, 3))
    dy = fc.conv2d(x, w, padding=1)
    assert [step.call.split()[0] for step in fc.tune("conv2d_backward", dy, x, w, padding=1).calls] == [
        "conv2d_grad_input", "conv2d_grad_weight", "conv2d_grad_bias",
    ]  # fmt: skip
    assert len(fc.tune("matmul", x[0, 0], x[0, 1]).calls) == 1
    assert len(fc.tune("linear_backward", x[0, 0], x[0, 1], x[0, 2]).calls) == 3
    assert str(fc.tune("conv2d", x[:0], w)) == "no kernel: the result needs no computation"
    np.testing.assert_allclose(fc.conv2d_backward(dy, x, w, padding=1)[0],
                               fc.conv2d_backward(dy, x, w, padding=1, backend="numpy")[0], atol=1e-9)  # fmt: skip
    with pytest.raises(ValueError, match="op: got 'conv3d'"):
        fc.tune("conv3d", x)


def test_measuring_needs_the_threads(fake):
    fake("takes1")
    with fc.threads.busy, pytest.raises(RuntimeError, match="another thread is inside a kernel"):
        fc.tune("conv2d", X, W)


SCRIPT = """
import numpy as np, fastcnn as fc
from fastcnn import picks, tuning
tuning_measure, count = tuning.measure, []
tuning.measure = lambda step, backend: count.append(step) or tuning_measure(step, backend)
x, w = np.ones((2, 8, 20, 20), "f4"), np.ones((8, 8, 3, 3), "f4")
for _ in range(3):
    assert (fc.conv2d(x, w, backend="cython") == 72).all()
with fc.use_algorithm("direct"):
    fc.conv2d(x, w[:5], backend="cython")
print(len(count), len(picks.known()))
"""


def test_environment_variable_measures_each_shape_once_ever(python, folder):
    assert python(SCRIPT).split() == ["0", "0"]
    assert not folder.exists()
    assert python(SCRIPT, {"FASTCNN_TUNE": "1"}).split() == ["1", "1"]
    assert python(SCRIPT, {"FASTCNN_TUNE": "1"}).split() == ["0", "1"]
    assert python(SCRIPT, {"FASTCNN_TUNE": "0"}).split() == ["0", "1"]
    script = (
        "import numpy as np, fastcnn as fc\ntry:\n    fc.matmul(np.eye(2), np.eye(2))\nexcept ValueError as e: print(e)"
    )
    text = python(script, {"FASTCNN_TUNE": "yes"})
    assert text == "environment variable FASTCNN_TUNE: got 'yes', expected 0 or 1\n"


def good_file(fake):
    fake("takes2")
    fake("takes1")
    fc.tune("conv2d", X, W)
    return picks.path()


def fresh_process():
    """Forget what this process knows, as a new one would not."""
    picks._picks = None
    picks._warned.clear()
    fc.dispatch.forget()


def test_a_new_process_reads_the_file(fake):
    good_file(fake)
    fresh_process()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names(X, W) == ["takes1"]
        assert (fc.conv2d(X, W) == 1).all()


def changed(change):
    """A damage that edits the JSON."""

    def damage(path):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


def of_pick(**entries):
    return changed(lambda content: next(iter(content["picks"].values())).update(entries))


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "not JSON": lambda path: path.write_text("tuning"),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe{}"),
    "a list": lambda path: path.write_text("[]"),
    "deeply nested": lambda path: path.write_text("[" * 100_000),
    "entries missing": changed(lambda content: content.pop("machine")),
    "entries unknown": changed(lambda content: content.update(extra=1)),
    "a name twice": lambda path: path.write_text(path.read_text().replace("{", '{"format": 1,', 1)),
    "another format": changed(lambda content: content.update(format=2)),
    "another version": changed(lambda content: content.update(fastcnn="0.0.1")),
    "another machine": changed(lambda content: content["machine"].update(cpu="Z80")),
    "picks no object": changed(lambda content: content.update(picks=[1])),
    "pick no object": changed(lambda content: content["picks"].update({"conv2d x": 3})),
    "unknown kernel": of_pick(kernel="conv2d_fortran"),
    "kernel of another op": of_pick(kernel="matmul_numpy"),
    "kernel no text": of_pick(kernel=["takes1"]),
    "no threads": of_pick(threads=0),
    "threads no integer": of_pick(threads=True),
    "negative time": of_pick(seconds=-1.0),
    "time NaN": lambda path: path.write_text(path.read_text().replace('"seconds": 0', '"seconds": NaN, "x": 0')),
    "time infinite": lambda path: path.write_text(path.read_text().replace('"seconds": 0', '"seconds": 1e999, "x": 0')),
    "huge": lambda path: os.truncate(path, picks.LARGEST_FILE + 1),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "a FIFO": lambda path: (path.unlink(), os.mkfifo(path)),
    "a dangling loop": lambda path: (path.unlink(), path.symlink_to(path)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_or_foreign_file_is_ignored_with_one_warning(damage, fake):
    path = good_file(fake)
    damage(path)
    fresh_process()
    with pytest.warns(RuntimeWarning, match="tuning file .*: the cost model chooses") as caught:
        assert names(X, W) == ["takes2"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a second warning
        assert (fc.conv2d(X, W) == 2).all()
    assert len(caught) == 1


@pytest.mark.filterwarnings("ignore:tuning file:RuntimeWarning")
@pytest.mark.parametrize("damage", ["empty", "another version", "unknown kernel"])
def test_measuring_again_mends_the_file(damage, fake):
    path = good_file(fake)
    DAMAGES[damage](path)
    fresh_process()
    fc.tune("conv2d", X, W)
    fresh_process()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names(X, W) == ["takes1"]


def test_a_folder_that_cannot_be_written(fake, folder):
    fake("takes2")
    fake("takes1")
    folder.write_text("a file where the folder should be")
    with pytest.warns(RuntimeWarning, match="cannot be"):
        fc.tune("conv2d", X, W)
    assert names(X, W) == ["takes1"]


def test_processes_and_threads_write_together(folder):
    script = """
import sys
from fastcnn import picks
for i in range(20):
    picks.remember({f"matmul {sys.argv[1]} {i}": picks.Pick("matmul_numpy", 1, 1e-3)})
"""
    running = [subprocess.Popen([sys.executable, "-c", script, str(n)]) for n in range(4)]
    threads = [
        threading.Thread(target=picks.remember, args=({f"matmul here {i}": picks.Pick("matmul_numpy", 1, 1e-3)},))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    fresh_process()
    assert len(picks.known()) == 88
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".lock"]


def test_clear_tuning(fake):
    path = good_file(fake)
    assert f"1 picks, {path}" in str(config())
    fc.clear_tuning()
    assert not path.exists()
    assert names(X, W) == ["takes2"]
    fc.clear_tuning()  # nothing there


def test_folder_follows_the_system(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTCNN_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert picks.path().parent == tmp_path / "fastcnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert picks.path().parent == tmp_path / ".cache" / "fastcnn"


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, LeNet(8, rng=0), [str(i) for i in range(10)])
    return str(path)


def test_command_line(model_file, capsys, monkeypatch):
    monkeypatch.setattr(tuning, "FEWEST_TURNS", 1)
    monkeypatch.setattr(tuning, "BUDGET", 0)
    assert main(["tune", model_file, "--batch", "2", "--backend", "cython", "--quiet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ops = [entry["call"].split()[0] for entry in found]
    assert ops.count("conv2d") == ops.count("conv2d_grad_weight") == 3
    assert ops.count("conv2d_grad_input") == 2  # nothing lies below the first layer
    assert ops.count("matmul") == 6
    assert all(entry["kernel"].endswith("cython") and entry["times"] for entry in found)
    assert len(picks.known()) == len(found)
    assert main(["tune", model_file, "--batch", "1", "--backend", "cython"]) == 0
    captured = capsys.readouterr()
    assert "model of costs" in captured.out
    assert str(picks.path()) in captured.out
    assert "call/s" in captured.err or "s/call" in captured.err


def test_command_line_errors(model_file, capsys, tmp_path):
    assert main(["tune", model_file, "--batch", "0"]) == 2
    assert "--batch: got 0, expected at least 1" in capsys.readouterr().err
    assert main(["tune", str(tmp_path / "none.safetensors")]) == 2
    assert "none.safetensors" in capsys.readouterr().err
