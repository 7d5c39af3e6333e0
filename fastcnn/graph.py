"""The essay's computational graph as a picture: per node shape, values or norm, and the gradient's norm."""

import importlib.util
import io
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from fastcnn.models.essay import OPERATIONS, Essay

#: Node -> (its input along the main chain, the parameter or constant that joins there).
INPUTS = {
    "C": ("I", "K"),
    "C_F": ("C", ""),
    "H": ("C_F", "W1"),
    "H_B": ("H", "B1"),
    "R": ("H_B", ""),
    "O": ("R", "W2"),
    "O_B": ("O", "B2"),
    "O_S": ("O_B", ""),
    "O_L": ("O_S", ""),
    "L": ("O_L", "T"),
}
TITLE = "The essay's computational graph for one image"
GREY, RED = "#555555", "#b03020"
COLOURS = {"input": "#e8eef7", "parameter": "#fdeecf", "node": "#ffffff", "loss": "#f9dcd9"}


@dataclass
class Node:
    """A box of the picture."""

    name: str
    kind: str
    lines: list[str]
    gradient: str


def describe(model: Essay, I: np.ndarray, T: np.ndarray) -> list[Node]:
    """Describe every node, parameter and constant of the graph for one image.

    Parameters
    ----------
    model : Essay
    I : ndarray (20, 20)
    T : ndarray (3,)

    Returns
    -------
    list of Node
        The main chain from I to L, then K, W1, B1, W2, B2 and T.
    """
    values = {name: array[0] if array.ndim else array for name, array in model.nodes(I[None], T[None]).items()}
    values |= model.params | {"T": T}
    gradients = model.node_gradients(I[None], T[None])
    nodes = []
    for name in [*OPERATIONS, *model.params, "T"]:
        kind = "parameter" if name in model.params else "input" if name in "IT" else "node"
        what = OPERATIONS.get(name, "true distribution" if name == "T" else "parameter")
        value, gradient = values[name], gradients.get(f"dL/d{name}")
        shape = " x ".join(map(str, value.shape)) or "scalar"
        nodes.append(
            Node(
                name,
                "loss" if name == "L" else kind,
                [what, shape, _value(value)],
                "constant" if gradient is None else f"‖∂L/∂{name}‖ = {np.linalg.norm(gradient):.3g}",
            )
        )
    return nodes


def _value(value: np.ndarray) -> str:
    if value.size <= 3:
        return "  ".join(f"{number:.3g}" for number in value.reshape(-1))
    return f"norm {np.linalg.norm(value):.3g}"


def draw_graph(path: str | Path, model: Essay, I: np.ndarray, T: np.ndarray) -> None:
    """Write the picture as PNG: by Graphviz if its program and package are there, else by matplotlib.

    Parameters
    ----------
    path : str or Path
    model : Essay
    I : ndarray (20, 20)
    T : ndarray (3,)
    """
    nodes = describe(model, I, T)
    if shutil.which("dot") and importlib.util.find_spec("graphviz"):
        import graphviz

        png = graphviz.Source(to_dot(nodes)).pipe(format="png")
    else:
        png = draw_with_matplotlib(nodes)
    Path(path).write_bytes(png)


def to_dot(nodes: list[Node]) -> str:
    """Describe the picture in Graphviz's language."""
    lines = [
        "digraph essay { rankdir=TB; dpi=110; nodesep=0.6; ranksep=0.35; labelloc=t;",
        'fontsize=18; fontname="Helvetica";',
        f'label="{TITLE}\\n ";',
        'node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=12, margin="0.2,0.08"];',
        'edge [fontname="Helvetica", fontsize=11, color="#555555", fontcolor="#555555"];',
    ]
    for node in nodes:
        text = "".join(f"<br/>{line}" for line in node.lines)
        label = f'<b>{node.name}</b>{text}<br/><font color="{RED}">{node.gradient}</font>'
        lines.append(f'"{node.name}" [label=<{label}>, fillcolor="{COLOURS[node.kind]}"];')
    for name, (before, joining) in INPUTS.items():
        lines.append(f'"{before}" -> "{name}" [label="  ∂{name}/∂{before}", weight=10];')
        if joining:
            label = "" if joining == "T" else f"  ∂{name}/∂{joining}"
            lines.append(f'"{joining}" -> "{name}" [label="{label}"];')
    return "\n".join([*lines, "}"])


def draw_with_matplotlib(nodes: list[Node]) -> bytes:
    """Draw the main chain in two columns from top to bottom, each parameter beside the node it enters."""
    from matplotlib.figure import Figure

    chain, rows, width, height, step = list(OPERATIONS), 6, 2.5, 1.2, 1.75  # inches
    place = {name: (5.1 + 7.5 * (i // rows), (rows - i % rows) * step - 0.85) for i, name in enumerate(chain)}
    for name, (_, joining) in INPUTS.items():
        if joining:
            place[joining] = (place[name][0] - 3.7, place[name][1])
    figure = Figure(figsize=(14.1, rows * step + 0.5), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 14.1), ylim=(0, rows * step + 0.5))
    axes.axis("off")
    axes.text(0.15, rows * step + 0.1, TITLE, fontsize=17, va="center")
    for node in nodes:
        _box(axes, node, *place[node.name], width, height)
    for name, (before, joining) in INPUTS.items():
        (x, y), (x0, y0) = place[name], place[before]
        if x == x0:
            _arrow(axes, [(x0, y0 - height / 2), (x, y + height / 2)])
            axes.text(x + 0.12, (y + y0) / 2, f"∂{name}/∂{before}", va="center", color=GREY, fontsize=11)
        else:  # from the foot of one column to the head of the next, around the boxes
            turn, top = x0 + width / 2 + 0.6, y + height / 2 + 0.3
            _arrow(axes, [(x0 + width / 2, y0), (turn, y0), (turn, top), (x, top), (x, y + height / 2)])
            axes.text(turn + 0.12, (y + y0) / 2, f"∂{name}/∂{before}", va="center", color=GREY, fontsize=11)
        if joining:
            x0, y0 = place[joining]
            _arrow(axes, [(x0 + width / 2, y0), (x - width / 2, y)])
            if joining != "T":  # T is a constant
                axes.text((x + x0) / 2, y + 0.16, f"∂{name}/∂{joining}", ha="center", color=GREY, fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _box(axes, node: Node, x: float, y: float, width: float, height: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner, pad = (x - width / 2 + 0.1, y - height / 2 + 0.1), "round,pad=0.1"
    axes.add_patch(
        FancyBboxPatch(corner, width - 0.2, height - 0.2, pad, facecolor=COLOURS[node.kind], edgecolor="#444444")
    )
    axes.text(x, y + 0.4, node.name, ha="center", va="center", fontsize=14, weight="bold")
    for i, line in enumerate(node.lines):
        axes.text(x, y + 0.15 - 0.21 * i, line, ha="center", va="center", fontsize=10.5)
    axes.text(x, y + 0.15 - 0.63, node.gradient, ha="center", va="center", fontsize=10.5, color=RED)


def _arrow(axes, points: list[tuple[float, float]]) -> None:
    for start, end in pairwise(points):
        style = "-|>" if end == points[-1] else "-"
        line = {
            "arrowstyle": style,
            "color": GREY,
            "lw": 1.3,
            "shrinkA": 0,
            "shrinkB": 0,
            "mutation_scale": 15,
        }
        axes.annotate("", end, start, arrowprops=line)
