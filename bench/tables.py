"""The tables of `DOCUMENTS`, written from the stored results: ``<!-- table: NAME -->`` to ``<!-- end table -->``."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from bench import accuracy, naive, regret, report, roofline, split, stored

HERE = Path(__file__).parent
DOCUMENTS = (HERE.parent / "README.md", HERE / "RESULTS.md")
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end table -->)", re.DOTALL)


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    rows = [head, ["---"] + ["---:"] * (len(head) - 1), *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def origin(data: dict[str, Any]) -> str:
    """Return one line on where a result comes from."""
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    machine = data["machine"]
    return (
        f"{data['dtype']}, {data['threads']} threads, {machine['cpu']}, CPU level {machine['cpu_level']}, "
        f"least of {data['rounds']} rounds, {data['date']} ({versions})\n"
    )


def naive_table(data: dict[str, Any]) -> str:
    """Speed of each twin over the naive NumPy row: geometric means per direction."""
    lines = naive.summary(data["rows"], data.get("peaks"))
    backends = list(lines[0]["ratios"])
    body = [[line["direction"], str(line["layers"]), *(f"{line['ratios'][name]:.1f}x" for name in backends)]
            for line in lines]  # fmt: skip
    return f"{markdown(['direction', 'layers', *backends], body)}\n{origin(data)}"


def ratio_table(data: dict[str, Any]) -> str:
    """Speed of the first backend over each peer: geometric means, a line per class, a column per direction and peer."""
    summary = report.summary(data, data["ours"][0])
    columns = [
        (direction, peer)
        for direction in dict.fromkeys(row["direction"] for row in data["rows"])
        for peer in report.PEERS
        if any(line["direction"] == direction and peer in line["ratios"] for line in summary)
    ]
    body = []
    for label in dict.fromkeys(line["class"] for line in summary):
        lines = {line["direction"]: line for line in summary if line["class"] == label}
        cells = [lines.get(direction, {"ratios": {}})["ratios"].get(peer) for direction, peer in columns]
        layers = max(line["layers"] for line in lines.values())
        body.append([label, str(layers), *("" if cell is None else f"{cell:.2f}" for cell in cells)])
    head = ["class", "layers", *(f"{direction}: {peer}" for direction, peer in columns)]
    ratio = report.twins(data)
    between = "" if ratio is None else f"Speed of the Numba twin over the Cython twin: {ratio:.2f}. "
    if "prepacked" in data["ours"]:
        means = report.summary(data, "prepacked")[-1]["ratios"]
        packed = ", ".join(f"{peer} {means[peer]:.2f}" for peer in report.PEERS if peer in means)
        between += f"Forward with weights packed once, all layers: {packed}. "
    return f"{markdown(head, body)}\n{between}Layers: {', '.join(data['layers'])}. {origin(data)}"


def is_headline(data: dict[str, Any]) -> bool:
    """Whether a result is that of the headline layers in float32."""
    return (data["layers"], data["dtype"]) == (["headline"], "float32")


def headline_table(data: dict[str, Any]) -> str:
    """The ratios of the headline layers in float32."""
    return ratio_table(data) if is_headline(data) else ""


def other_peers_table(data: dict[str, Any]) -> str:
    """The ratios of other layers, or in double precision."""
    return "" if is_headline(data) else ratio_table(data)


def roofline_table(data: dict[str, Any]) -> str:
    """The largest layer of each class over the machine's measured peak and copy bandwidth; float32 only."""
    if not is_headline(data):
        return ""
    body = [
        [
            line["class"],
            f"{line['layer']}, {line['direction']}",
            f"{line['flops'] / 1e9:.1f}",
            f"{line['of_flops']:.0%}",
            f"{line['bytes'] / 1e9:.1f}",
            f"{line['of_bytes']:.0%}",
        ]
        for line in roofline.hardware_view(data)
    ]
    peaks = data["peaks"]
    measured = f"Measured: {peaks['flops'] / 1e9:.0f} GFLOP/s, copy {peaks['bytes'] / 1e9:.1f} GB/s. "
    head = ["class", "layer", "GFLOP/s", "of peak", "GB/s", "of copy"]
    return f"{markdown(head, body)}\n{measured}{origin(data)}"


def accuracy_table(data: dict[str, Any]) -> str:
    """Relative L2 error, and the worst error in units of u M, by algorithm and number of channels."""
    cells = {(row["algorithm"], row["stride"], row["direction"], row["C"]): row for row in data["rows"]}
    channels = list(dict.fromkeys(C for *_, C in cells))
    body = []
    for algorithm, stride, direction in dict.fromkeys(key[:3] for key in cells):
        line = [cells[algorithm, stride, direction, C] for C in channels]
        name = algorithm if stride == 1 else f"{algorithm}, stride {stride}"
        body.append([f"{name}, {direction}", *(f"{row['l2']:.1e} ({row['worst']:.1f})" for row in line)])
    gates = ", ".join(f"{algorithm} {gate:.0e}" for algorithm, gate in accuracy.GATES.items())
    head = ["relative L2 error (worst, u M)", *(f"C = {C}" for C in channels)]
    return f"{markdown(head, body)}\nGates: {gates}. {origin(data)}"


def regret_table(data: dict[str, Any]) -> str:
    """Time of the kernel that the cost model takes over the fastest one's."""
    body = [
        [line["direction"], str(line["layers"]), f"{line['mean']:.3f}", f"{line['worst']:.2f}", str(line["right"])]
        for line in regret.summary(data["rows"])
    ]
    head = ["direction", "layers", "geometric mean", "worst", "best kernel picked"]
    return f"{markdown(head, body)}\nLayers: {', '.join(data['layers'])}. {origin(data)}"


def split_table(data: dict[str, Any]) -> str:
    """Phases of a Winograd convolution on one core."""
    body = []
    for row in data["rows"]:
        for phase, line in split.phases_of(row, data["peaks"]).items():
            speed = [f"{line['share']:.0%}", f"{line['flops'] / 1e9:.1f}", f"{line['of_flops']:.0%}"]
            body.append([f"{row['layer']}: {phase}", *speed, f"{line['bytes'] / 1e9:.1f}", f"{line['of_bytes']:.0%}"])
    head = ["layer: phase", "time", "GFLOP/s", "of peak", "GB/s", "of copy"]
    peaks = data["peaks"]
    measured = f"One core: {peaks['flops'] / 1e9:.0f} GFLOP/s, copy {peaks['bytes'] / 1e9:.1f} GB/s. "
    return f"{markdown(head, body)}\n{measured}{origin(data)}"


#: Marker -> kind of the stored results, and what makes the table of one.
TABLES = {
    "naive": ("naive", naive_table),
    "headline": ("peers", headline_table),
    "peers": ("peers", other_peers_table),
    "gemm": ("gemm", ratio_table),
    "roofline": ("peers", roofline_table),
    "accuracy": ("accuracy", accuracy_table),
    "regret": ("regret", regret_table),
    "split": ("split", split_table),
}


def render(name: str) -> str:
    """Return the text between the markers of a table: one table for each stored result of its kind.

    Raises
    ------
    ValueError
        If there is no such table.
    """
    if name not in TABLES:
        raise ValueError(f"no table is called {name!r}; there are {', '.join(TABLES)}")
    kind, table = TABLES[name]
    results = [stored.read(path) for path in sorted(stored.RESULTS.glob("*/*.json"))]
    parts = [text for data in results if data["kind"] == kind and (text := table(data))]
    return "\n" + "\n".join(parts) + "\n" if parts else ""


def main() -> int:
    """Command line; the exit status is 1 with --check and a document out of date, 2 if there is nothing to write."""
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a document is out of date")
    args = parser.parse_args()
    try:
        texts = {path: path.read_text() for path in DOCUMENTS}
        wanted = {path: BLOCK.sub(lambda match: match[1] + render(match[2]) + match[3], texts[path]) for path in texts}
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    outdated = [path for path in DOCUMENTS if wanted[path] != texts[path]]
    if args.check and outdated:
        print(f"out of date: {', '.join(path.name for path in outdated)}; run python -m bench.tables", file=sys.stderr)
        return 1
    for path in outdated:
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
