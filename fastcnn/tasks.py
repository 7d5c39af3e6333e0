"""What ``fastcnn train`` does: data, model and defaults of each task, and the files it writes."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcnn import data, get_backend, graph, plots
from fastcnn.checks import integer
from fastcnn.files import save_model
from fastcnn.models import MODELS, Essay
from fastcnn.nn import SGD, cosine, one_hot
from fastcnn.training import Row, Run, evaluate, train


@dataclass(frozen=True)
class Task:
    """Defaults of one task; `batch_size` None is full-batch gradient descent."""

    model: str
    load: Callable[[], data.Digits]
    lr: float
    max_steps: int
    hidden: int
    batch_size: int | None = None
    target_loss: float | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay_lr: bool = False
    augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None


TASKS = {
    "essay": Task("essay", data.essay_digits, lr=0.05, max_steps=5000, hidden=32, target_loss=0.05),
    "digits": Task(
        "lenet",
        data.all_digits,
        lr=0.05,
        max_steps=900,
        hidden=64,
        batch_size=32,
        momentum=0.9,
        weight_decay=5e-4,
        decay_lr=True,
        augment=data.jitter,
    ),
}


def run(
    name: str, directory: str | Path, *, seed: int = 0, progress: bool = False, **options: Any
) -> tuple[Run, dict[str, Any]]:
    """Train the network of a task and write its files into `directory`.

    Parameters
    ----------
    name : {"essay", "digits"}
    directory : str or Path
        Made if missing. Files of an earlier run are replaced.
    seed : int
    progress : bool
    **options
        target_loss, max_steps, lr, hidden, batch_size; None stands for the task's own.

    Returns
    -------
    run : Run
    result : dict
        What a report needs, as JSON can hold it.

    Raises
    ------
    TypeError, ValueError, OverflowError
        If an option is no number, or out of range.
    FloatingPointError
        If training diverges.
    OSError
        If the files cannot be written.
    """
    task = TASKS[name]
    chosen = {key: getattr(task, key) if value is None else value for key, value in options.items()}
    seed = integer(seed, "seed", 0, 2**63)
    with _directory(Path(directory)) as directory:
        return _run(name, task, directory, seed, progress, chosen)


def _run(
    name: str, task: Task, directory: Path, seed: int, progress: bool, chosen: dict[str, Any]
) -> tuple[Run, dict[str, Any]]:
    digits = task.load()
    model = MODELS[task.model](chosen["hidden"], rng=seed)
    kernel_before = model.params["K"].copy() if isinstance(model, Essay) else None
    trained = train(
        model,
        digits.train_x,
        digits.train_y,
        SGD(model.parameters(), chosen["lr"], task.momentum, task.weight_decay),
        max_steps=chosen["max_steps"],
        batch_size=chosen["batch_size"],
        target_loss=chosen["target_loss"],
        seed=seed,
        augment=task.augment,
        lr_at=cosine(chosen["lr"], chosen["max_steps"]) if task.decay_lr else None,
        progress=progress,
    )
    _, held_out_accuracy = evaluate(model, digits.test_x, digits.test_y)
    facts = {
        "task": name,
        "seed": seed,
        **chosen,
        "backend": get_backend(),
        "steps": trained.steps,
        "loss": trained.loss,
        "reached": trained.reached,
        "training_accuracy": trained.accuracy,
        "held_out_accuracy": held_out_accuracy,
        "held_out_images": len(digits.test_x),
    }
    files = {key: directory / f"{key}.png" for key in ("training", "kernel", "graph")}
    save_model(directory / "model.safetensors", model, digits.classes, facts)
    _write_history(directory / "history.csv", trained.history)
    plots.draw_training(files["training"], trained, held_out_accuracy, chosen["target_loss"])
    written = [directory / "model.safetensors", directory / "history.csv", files["training"]]
    if isinstance(model, Essay) and kernel_before is not None:
        first = [int(np.argmax(digits.test_y == label)) for label in range(len(digits.classes))]
        plots.draw_kernel(files["kernel"], kernel_before, model.params["K"], digits.test_x[first])
        T = one_hot(digits.test_y[:1], len(digits.classes))
        graph.draw_graph(files["graph"], model, digits.test_x[0], T[0])
        written += [files["kernel"], files["graph"]]
    speed = {"seconds": trained.seconds, "images_per_second": trained.images_per_second}
    return trained, facts | speed | {"files": [str(path) for path in written]}


@contextmanager
def _directory(path: Path) -> Iterator[Path]:
    """Make a directory before the work that fills it; if that fails, empty ones that were made do not stay."""
    made = [each for each in (path, *path.parents) if not each.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield path
    except BaseException:
        for each in made:
            if each.is_dir() and not any(each.iterdir()):
                each.rmdir()
        raise


def _write_history(path: Path, history: list[Row]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(history)
