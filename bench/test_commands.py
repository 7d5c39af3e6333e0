"""Every bench command once, on the smallest selection: it runs, and prints and stores what it says."""

import importlib
import json
import sys

import pytest

from bench import stored

TINY = "essay conv 1->1 20x20 batch 1"
COMMANDS = {
    "naive": ["--only", TINY, "--rounds", "1"],
    "regret": ["--only", TINY, "--rounds", "1"],
    "accuracy": ["--channels", "16"],
    "split": ["--only", "14x14", "--rounds", "1"],
    "peers": ["--only", TINY, "--rounds", "1"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_command(name, tmp_path, monkeypatch, capsys):
    path = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", [name, *COMMANDS[name], "--json", str(path)])
    status = importlib.import_module(f"bench.{name}").main()
    assert status in ((None, 0) if name != "regret" else (0, 1))  # one round says little of regret
    data = stored.read(path)
    assert data["kind"] == name
    assert data["rows"]
    assert capsys.readouterr().out


def test_a_stored_result_becomes_a_page_and_figures(tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    argv = [
        "peers",
        "--from-json",
        str(stored.RESULTS / "epyc" / "peers-float32.json"),
        "--html",
        str(page),
        "--png",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", argv)
    importlib.import_module("bench.peers").main()
    assert "ResNet-50 56x56 64" in page.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "roofline.png", "bars.png"}


@pytest.mark.parametrize("command", ["peers", "regret"])
@pytest.mark.parametrize(("text", "message"), [
    ("[]", "holds no layers"),
    ('[{"M": 3, "N": 4, "K": 5}]', "not a list of convolution layers: 'name'"),
    ("[3]", "not a list of convolution layers"),
    ("[", "Expecting value"),
])  # fmt: skip
def test_a_file_without_layers_is_named(text, message, command, tmp_path, monkeypatch, capsys):
    file = tmp_path / "layers.json"
    file.write_text(text)
    monkeypatch.setattr(sys, "argv", [command, "--layers", str(file)])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"bench.{command}").main()
    assert end.value.code == 2
    assert f"layers.json: {message}" in capsys.readouterr().err


def test_products_of_a_file(tmp_path, monkeypatch, capsys):
    file = tmp_path / "products.json"
    file.write_text(json.dumps([{"M": 3, "N": 4, "K": 5, "ta": False, "tb": False}]))
    monkeypatch.setattr(sys, "argv", ["peers", "--gemm", str(file), "--only", "3x4x5", "--rounds", "1"])
    importlib.import_module("bench.peers").main()
    assert "3x4x5" in capsys.readouterr().out


def test_tables_are_made_of_these_results():
    from bench.tables import BLOCK, DOCUMENTS, TABLES, render

    for name in TABLES:
        assert render(name).count("|") > 10
    placed = [match[2] for path in DOCUMENTS for match in BLOCK.finditer(path.read_text())]
    assert sorted(placed) == sorted(TABLES)


def test_overhead(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["overhead", "--rounds", "1"])
    importlib.import_module("bench.overhead").main()
    assert "fc.conv2d, cython" in capsys.readouterr().out
