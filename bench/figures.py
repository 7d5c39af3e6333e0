"""Figures of a result of `peers`: a roofline, and each layer's ratio to PyTorch (or NumPy) as a bar."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bench import report

MARKERS = "ovs^D"
#: Okabe and Ito's colours, which most colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def write(folder: Path, data: dict[str, Any]) -> None:
    """Write roofline.png and bars.png."""
    folder.mkdir(parents=True, exist_ok=True)
    roofline(data).savefig(folder / "roofline.png", dpi=110)
    bars(data).savefig(folder / "bars.png", dpi=110)


def directions_of(data: dict[str, Any]) -> list[str]:
    """Directions in the order measured."""
    return list(dict.fromkeys(row["direction"] for row in data["rows"]))


def roofline(data: dict[str, Any]) -> Figure:
    """GFLOP/s over flops per byte, under the measured peak and copy bandwidth. Bytes count each array once."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    peaks, ours = data["peaks"], data["ours"][0]
    for number, direction in enumerate(directions_of(data)):
        rows = [row for row in data["rows"] if row["direction"] == direction]
        axes.scatter(
            [row["flops"] / row["bytes"] for row in rows],
            [row["flops"] / row["seconds"][ours] / 1e9 for row in rows],
            marker=MARKERS[number],
            color=COLOURS[number],
            s=28,
            alpha=0.8,
            label=direction,
        )
    intensities = [row["flops"] / row["bytes"] for row in data["rows"]]
    balance = peaks["flops"] / peaks["bytes"]
    intensity = np.geomspace(min(*intensities, balance) / 1.5, max(*intensities, 2 * balance) * 1.5, 200)
    roof = np.minimum(peaks["flops"], intensity * peaks["bytes"]) / 1e9
    label = f"{peaks['flops'] / 1e9:.0f} GFLOP/s, copy {peaks['bytes'] / 1e9:.0f} GB/s (measured)"
    axes.plot(intensity, roof, color="black", linewidth=1.2, label=label)
    axes.set(xscale="log", yscale="log", xlabel="flops per byte, every array counted once", ylabel="GFLOP/s")
    axes.set_title(f"fastcnn ({ours}), {data['dtype']}, {data['threads']} threads, {data['machine']['cpu']}")
    axes.grid(alpha=0.3, which="both", linewidth=0.4)
    axes.legend(loc="lower right")
    return figure


def bars(data: dict[str, Any]) -> Figure:
    """Time of PyTorch (NumPy for matrix products) over ours, log axis, a bar per layer and direction."""
    ours = data["ours"][0]
    directions = directions_of(data)
    names = list(dict.fromkeys((row["class"], row["layer"]) for row in data["rows"]))
    figure = Figure(figsize=(10, 1.6 + 0.14 * len(names) * (len(directions) + 0.7)), layout="constrained")
    axes = figure.subplots()
    height = 0.85 / len(directions)
    for number, direction in enumerate(directions):
        found = [
            (names.index((row["class"], row["layer"])), first_ratio(row, ours))
            for row in data["rows"]
            if row["direction"] == direction
        ]
        places = [place + (number - (len(directions) - 1) / 2) * height for place, _ in found]
        values = [value for _, value in found]
        axes.barh(places, np.array(values) - 1, height, left=1, color=COLOURS[number], label=direction)
        for place, value in zip(places, values, strict=True):
            axes.annotate(
                f"{value:.3g}",
                (value, place),
                xytext=(3 if value >= 1 else -3, 0),
                textcoords="offset points",
                ha="left" if value >= 1 else "right",
                va="center",
                fontsize=6,
            )
    axes.set_yticks(range(len(names)), [f"{name}  [{label}]" for label, name in names], fontsize=7)
    axes.set(xscale="log", ylim=(len(names) - 0.4, -0.6), xlabel="time of PyTorch NCHW (NumPy for products) / ours")
    axes.margins(x=0.08)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3, which="both", linewidth=0.4)
    axes.set_title(f"fastcnn ({ours}), {data['dtype']}, {data['threads']} threads, {data['machine']['cpu']}")
    axes.legend()
    return figure


def first_ratio(row: dict[str, Any], ours: str) -> float:
    """Ratio to the first peer of the report that took part."""
    return next(iter(report.ratios(row, ours).values()))
