"""How near the machine's limits: one layer of each class of a stored result, over measured peak and bandwidth.

The limit of a layer is the smaller of peak flops and (flops per byte) x copy bandwidth; bytes count every array once.
A layer whose arrays fit the caches can exceed the second, one computed with fewer multiplications the first.
"""

import argparse
from pathlib import Path
from typing import Any

from bench import stored


def least_seconds(row: dict[str, Any], peaks: dict[str, float]) -> float:
    """Seconds of a layer at the machine's limits."""
    return max(row[name] / peaks[name] for name in ("flops", "bytes"))


def hardware_view(data: dict[str, Any], every: bool = False) -> list[dict[str, Any]]:
    """Rows of the layer with the most flops of each class, or of `every` layer.

    Returns
    -------
    list of dict
        ``layer``, ``class``, ``direction``, ``flops`` and ``bytes`` per second, each also as a fraction of the
        measured peak (``of_flops``, ``of_bytes``), and ``of_limit``.
    """
    ours, peaks = data["ours"][0], data["peaks"]
    largest: dict[str, dict[str, Any]] = {}
    for row in data["rows"]:
        if row["class"] not in largest or row["flops"] > largest[row["class"]]["flops"]:
            largest[row["class"]] = row
    lines = []
    for row in data["rows"]:
        if every or row["layer"] == largest[row["class"]]["layer"]:
            speed = {name: row[name] / row["seconds"][ours] for name in ("flops", "bytes")}
            fractions = {f"of_{name}": speed[name] / peaks[name] for name in speed}
            head = {name: row[name] for name in ("layer", "class", "direction")}
            lines.append({**head, **speed, **fractions, "of_limit": least_seconds(row, peaks) / row["seconds"][ours]})
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.roofline", description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path, help="what bench.peers stored")
    parser.add_argument("--every", action="store_true", help="every layer, not one of each class")
    args = parser.parse_args()
    try:
        data = stored.read(args.result)
    except OSError as error:
        parser.error(str(error))
    peaks = data["peaks"]
    print(f"peak {peaks['flops'] / 1e9:.0f} GFLOP/s, copy {peaks['bytes'] / 1e9:.1f} GB/s, {data['ours'][0]}")
    for line in hardware_view(data, args.every):
        print(
            f"{line['class']:14} {line['layer']:40} {line['direction']:6} "
            f"{line['flops'] / 1e9:7.1f} GFLOP/s {line['of_flops']:5.0%} of peak  "
            f"{line['bytes'] / 1e9:6.1f} GB/s {line['of_bytes']:5.0%} of copy  {line['of_limit']:5.0%} of the limit"
        )


if __name__ == "__main__":
    main()
