"""The command line: what it writes, prints and returns, and its one-line errors."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fastcnn import data, graph
from fastcnn.cli import main
from fastcnn.files import load_model, save_model
from fastcnn.models import Essay, LeNet

ESSAY_FILES = {"model.safetensors", "history.csv", "training.png", "kernel.png", "graph.png"}


@pytest.fixture(scope="module")
def essay_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "essay"
    argv = ["train", "essay", "--target-loss", "0.1", "--seed", "0", "--out", str(out), "--quiet"]
    assert main(argv) == 0
    return out


def test_train_essay_writes_its_files(essay_run):
    assert {path.name for path in essay_run.iterdir()} == ESSAY_FILES
    for path in essay_run.glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 500
            assert len(set(np.asarray(image.convert("L")).ravel().tolist())) > 20  # something is drawn
    with open(essay_run / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "epoch", "loss", "accuracy"]
    assert [int(row["step"]) for row in rows] == list(range(len(rows)))
    assert float(rows[-1]["loss"]) <= 0.1 < float(rows[-2]["loss"])
    model, header = load_model(essay_run / "model.safetensors")
    assert isinstance(model, Essay)
    assert header["classes"] == ["0", "1", "2"]
    assert header["facts"]["steps"] == len(rows) - 1
    assert header["facts"]["held_out_accuracy"] > 0.9


def test_train_prints_steps_loss_and_held_out_accuracy(tmp_path, capsys):
    assert main(["train", "essay", "--target-loss", "0.5", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "steps, training loss 0." in out
    assert "held-out" in out
    for part in ("loss", "accuracy", "images/s"):  # the progress bar
        assert part in err


def test_train_in_an_existing_folder_replaces_only_its_files(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "history.csv").write_text("old")
    assert main(["train", "essay", "--target-loss", "0.9", "--out", str(tmp_path), "--quiet"]) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "history.csv").read_text().startswith("step,")
    assert {path.name for path in tmp_path.iterdir()} == ESSAY_FILES | {"notes.txt"}


def test_step_limit_before_the_level_is_exit_3(tmp_path, capsys):
    argv = ["train", "essay", "--max-steps", "3", "--out", str(tmp_path), "--quiet", "--json"]
    assert main(argv) == 3
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "after 3 steps" in err
    assert "0.05 was not reached" in err
    result = json.loads(out)
    assert (result["steps"], result["reached"], result["target_loss"]) == (3, False, 0.05)
    assert {"loss", "held_out_accuracy", "images_per_second", "files"} <= result.keys()
    assert (tmp_path / "model.safetensors").exists()


def test_train_digits(tmp_path, capsys):
    argv = [
        "train",
        "digits",
        "--max-steps",
        "150",
        "--hidden",
        "32",
        "--out",
        str(tmp_path),
        "--quiet",
        "--json",
    ]
    assert main(argv) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["steps"] == 150
    assert result["held_out_accuracy"] > 0.6  # ten classes: chance is 0.1
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "history.csv", "training.png"}
    model, header = load_model(tmp_path / "model.safetensors")
    assert isinstance(model, LeNet)
    assert header["classes"] == [str(i) for i in range(10)]


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    """Held-out digits 0, 1, 2 as image files: as the data is, and as dark ink on light paper in colour."""
    folder, digits = tmp_path_factory.mktemp("drawings"), data.essay_digits()
    paths = []
    for label in range(3):
        image = digits.test_x[np.argmax(digits.test_y == label)]
        for name, pixels, mode in (("dark", image, "L"), ("light", 1 - image, "RGB")):
            picture = Image.fromarray((255 * pixels).round().astype(np.uint8)).convert(mode)
            paths.append(str(folder / f"{label}-{name}.png"))
            picture.resize((60, 60)).save(paths[-1])
    return paths


def test_predict_round_trip(essay_run, drawings, capsys):
    model = str(essay_run / "model.safetensors")
    assert main(["predict", model, *drawings, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [result["image"] for result in results] == drawings
    assert [result["class"] for result in results] == ["0", "0", "1", "1", "2", "2"]
    for result in results:
        assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert max(result["probabilities"], key=result["probabilities"].get) == result["class"]

    assert main(["predict", model, drawings[0]]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{drawings[0]}: 0 ")
    assert line.count("%") == 3


def test_background_decides_about_inversion(drawings):
    dark, light = (data.read_image(path, (20, 20)) for path in drawings[:2])
    np.testing.assert_allclose(dark, light, atol=0.02)
    inverted = data.read_image(drawings[0], (20, 20), "light")
    np.testing.assert_allclose(inverted, 1 - data.read_image(drawings[0], (20, 20), "dark"), atol=1e-6)


def test_transparent_paper_is_white(tmp_path):
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[5:15, 9:11, 3] = 255  # black ink on nothing
    Image.fromarray(pixels).save(tmp_path / "ink.png")
    image = data.read_image(tmp_path / "ink.png", (20, 20))
    assert image[10, 10] == 1
    assert image[0, 0] == 0


def test_info(capsys):
    assert main(["info"]) == 0
    assert "backends:" in capsys.readouterr().out
    assert main(["info", "--json", "--backend", "numpy"]) == 0
    assert {"versions", "backends"} <= json.loads(capsys.readouterr().out).keys()


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["train", "essay", "--backend", "fortran"], "backend: got 'fortran'"),
        (["train", "essay", "--threads", "0"], "got 0"),
        (["train", "essay", "--lr", "nan"], "lr: got nan"),
        (["train", "essay", "--lr", "-1"], "lr: got -1"),
        (["train", "essay", "--hidden", "0"], "hidden: got 0"),
        (["train", "essay", "--batch-size", "0"], "batch_size: got 0"),
        (["train", "essay", "--target-loss", "nan"], "target_loss: got nan"),
        (["train", "essay", "--lr", "5"], "at step"),
        (["train", "essay", "--seed", "-1"], "seed: got -1"),
        (["predict", "absent.safetensors", "x.png"], "absent.safetensors: No such file"),
        (["predict", "{model}", "absent.png"], "absent.png: No such file"),
        (["predict", "{model}", "{model}"], "not an image"),
        (["predict", "{model}", "{truncated}"], "image"),
        (["predict", "{truncated}", "{truncated}"], "not a safetensors file"),
    ],
)
def test_errors_are_one_line_and_exit_2(argv, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_model("m.safetensors", Essay(4, rng=0), ["0", "1", "2"])
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save("whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    argv = [word.format(model="m.safetensors", truncated="cut.png") for word in argv]
    assert main(argv if argv[0] == "predict" else [*argv, "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("fastcnn: error: ")
    assert text in err
    assert {path.name for path in tmp_path.iterdir()} == {"m.safetensors", "whole.png", "cut.png"}  # no empty folder


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["train", "letters"], "invalid choice: 'letters'"),
        (["compile"], "invalid choice: 'compile'"),
        ([], "required"),
        (["train", "essay", "--lr", "fast"], "invalid float value"),
        (["predict", "m.safetensors"], "IMAGE"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(argv, text, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert text in err


def test_a_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert main(["train", "essay", "--quiet", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"fastcnn: error: {tmp_path / 'out'}: File exists\n"


def test_missing_packages_are_named_with_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["train", "essay"]) == 2
    err = capsys.readouterr().err
    assert "scikit-learn, Pillow" in err
    assert "pip install 'fastcnn[train]'" in err
    assert err.count("\n") == 1


def python(*argv):
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, timeout=120, check=False)


def test_as_a_module_in_its_own_process():
    done = python("-m", "fastcnn", "info")
    assert (done.returncode, done.stderr) == (0, "")
    assert "versions:" in done.stdout
    done = python("-m", "fastcnn", "predict", "absent", "x.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fastcnn: error: absent: No such file or directory\n"


def test_help_imports_nothing_heavy():
    code = (
        "import sys, fastcnn.cli\n"
        "try: fastcnn.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numba', 'scipy', 'sklearn', 'matplotlib', 'torch', 'PIL'}\n"
        "print(*heavy & set(sys.modules), file=sys.stderr)"
    )
    done = python("-c", code)
    assert "examples:" in done.stdout
    assert done.stderr.strip() == ""


def test_graph_in_graphviz_language_holds_every_node_and_edge():
    """The text Graphviz would draw; whether ``dot`` is installed or not."""
    model, image, T = Essay(4, rng=0), np.ones((20, 20), np.float32), np.eye(3, dtype=np.float32)[0]
    dot = graph.to_dot(graph.describe(model, image, T))
    for name in ("I", "C", "C_F", "H", "H_B", "R", "O", "O_B", "O_S", "O_L", "L", "T", *model.params):
        assert f'"{name}" [label=<<b>{name}</b>' in dot
    assert dot.count("->") == 10 + 5 + 1
    assert "400 x 4" in dot
    assert "‖∂L/∂W1‖ = " in dot


def test_graph_by_matplotlib(tmp_path):
    nodes = graph.describe(Essay(4, rng=0), np.ones((20, 20), np.float32), np.eye(3, dtype=np.float32)[0])
    (tmp_path / "graph.png").write_bytes(graph.draw_with_matplotlib(nodes))
    with Image.open(tmp_path / "graph.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 1000
