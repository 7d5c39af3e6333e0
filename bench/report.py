"""Ratios, means and losers of a result of `peers`: time of a peer over ours, so that more is better."""

from typing import Any

from bench.stored import geomean

#: Column -> the contestants of which the fastest counts.
PEERS = {
    "PyTorch": ("PyTorch",),
    "best PyTorch": ("PyTorch", "PyTorch channels_last"),
    "ONNX Runtime": ("ONNX Runtime",),
    "NumPy": ("NumPy",),
    "im2col + BLAS": ("im2col + BLAS",),
}


def ratios(row: dict[str, Any], ours: str) -> dict[str, float]:
    """Speed of `ours` over each peer of `PEERS` that took part; none if ours did not: "prepacked" is forward only."""
    seconds = row["seconds"]
    if ours not in seconds:
        return {}
    return {
        peer: min(seconds[name] for name in names) / seconds[ours]
        for peer, names in PEERS.items()
        if all(name in seconds for name in names)
    }


def summary(data: dict[str, Any], ours: str) -> list[dict[str, Any]]:
    """Geometric means per class and direction; the class "all" comes last.

    Returns
    -------
    list of dict
        ``class``, ``direction``, number of ``layers``, and ``ratios`` by peer.
    """
    rows = [row for row in data["rows"] if ours in row["seconds"]]
    classes = list(dict.fromkeys(row["class"] for row in rows))
    lines = []
    for label in [*classes, "all"] if len(classes) > 1 else classes:
        for direction in dict.fromkeys(row["direction"] for row in rows):
            found = [
                ratios(row, ours)
                for row in rows
                if row["direction"] == direction and (label in (row["class"], "all"))
            ]  # fmt: skip
            if found:
                means = {
                    peer: geomean(each[peer] for each in found if peer in each)
                    for peer in PEERS
                    if any(peer in each for each in found)
                }
                lines.append({"class": label, "direction": direction, "layers": len(found), "ratios": means})
    return lines


def losers(data: dict[str, Any], ours: str, below: float) -> list[tuple[str, str, str, float]]:
    """(layer, direction, peer, ratio) of every ratio below the limit, worst first."""
    found = [
        (row["layer"], row["direction"], peer, ratio)
        for row in data["rows"]
        for peer, ratio in ratios(row, ours).items()
        if ratio < below
    ]
    return sorted(found, key=lambda each: each[3])


def twins(data: dict[str, Any]) -> float | None:
    """Speed of the Numba twin over the Cython twin, geometric mean; None if one did not run."""
    seconds = [row["seconds"] for row in data["rows"]]
    if not all({"numba", "cython"} <= set(each) for each in seconds):
        return None
    return geomean(each["cython"] / each["numba"] for each in seconds)


def line(row: dict[str, Any], ours: str) -> str:
    """One layer and direction: GFLOP/s of every contestant, ratios of `ours`."""
    speeds = "  ".join(f"{name} {row['flops'] / value / 1e9:.4g}" for name, value in row["seconds"].items())
    ours_over = "  ".join(f"{peer} {ratio:.2f}" for peer, ratio in ratios(row, ours).items())
    return f"{row['layer']:40} {row['direction']:3}  GFLOP/s: {speeds}\n{'':45} {ours} over: {ours_over}"


def text(data: dict[str, Any]) -> str:
    """Means of every backend, and the losers of the first."""
    parts = []
    for ours in data["ours"]:
        parts.append(f"\n{ours}: geometric means of peer's time over ours")
        for each in summary(data, ours):
            means = "  ".join(f"{peer} {ratio:.2f}" for peer, ratio in each["ratios"].items())
            parts.append(f"  {each['class']:30} {each['direction']:6} {each['layers']:3} layers  {means}")
    if (ratio := twins(data)) is not None:
        parts.append(f"\nNumba over Cython, geometric mean: {ratio:.2f}")
    ours = data["ours"][0]
    for low, high in ((0.0, 0.9), (0.9, 1.0)):
        found = [each for each in losers(data, ours, high) if each[3] >= low]
        parts.append(f"\n{ours} loses, ratio {low} to {high}: {len(found)}")
        parts += [f"  {layer:40} {direction:6} {peer:16} {ratio:.2f}" for layer, direction, peer, ratio in found]
    return "\n".join(parts)
