"""Pictures of a training run, drawn without pyplot, so that nothing global is touched."""

from pathlib import Path

import numpy as np

from fastcnn import ops
from fastcnn.training import Run

BLUE, ORANGE, GREY = "#2b5d9b", "#d9742b", "#777777"


def draw_training(path: str | Path, run: Run, test_accuracy: float, target_loss: float | None = None) -> None:
    """Write loss (logarithmic) and accuracy per step as PNG.

    Parameters
    ----------
    path : str or Path
    run : Run
    test_accuracy : float
        On the held-out images; goes into the title.
    target_loss : float, optional
        Drawn as a line.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    steps, _, loss, accuracy = (np.array(column) for column in zip(*run.history, strict=True))
    figure = Figure(figsize=(10, 6.5), dpi=110, layout="constrained")
    figure.suptitle(
        f"{run.steps} steps: training loss {run.loss:.4f}, training accuracy {run.accuracy:.1%}, "
        f"held-out accuracy {test_accuracy:.1%}"
    )
    upper, lower = figure.subplots(2, 1, sharex=True)
    batchwise = run.history[-1].epoch != len(run.history) - 1  # several batches an epoch: noisy, so smoothed too
    for axes, values, colour in ((upper, loss, BLUE), (lower, accuracy, ORANGE)):
        axes.plot(
            steps,
            values,
            color=colour,
            lw=1.8 - batchwise,
            alpha=1 - 0.6 * batchwise,
            label="of the batch, as trained on",
        )
        if batchwise and len(values) >= 40:
            window = len(values) // 20
            smooth = np.convolve(values, np.full(window, 1 / window), "valid")
            axes.plot(
                steps[window // 2 :][: len(smooth)], smooth, color=colour, lw=1.8, label=f"mean of {window} steps"
            )
            axes.legend(frameon=False)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    upper.set(ylabel="cross-entropy loss", yscale="log")
    if target_loss is not None:
        upper.axhline(target_loss, color=GREY, ls="--", lw=1)
        upper.annotate(
            f"target {target_loss:g}",
            (0, target_loss),
            (4, 4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=GREY,
        )
    lower.set(ylabel="training accuracy", xlabel="step", xlim=(0, max(run.steps, 1)))
    lower.yaxis.set_major_formatter(PercentFormatter(1))
    figure.savefig(path)


def draw_kernel(path: str | Path, before: np.ndarray, after: np.ndarray, images: np.ndarray) -> None:
    """Write the kernel K before and after training, and what both make of some images, as PNG.

    Parameters
    ----------
    path : str or Path
    before, after : ndarray (3, 3)
    images : ndarray (N, 20, 20)
    """
    from matplotlib.figure import Figure

    columns = 1 + len(images)
    figure = Figure(figsize=(2.3 * columns, 7.2), dpi=110, layout="constrained")
    figure.suptitle("The kernel K, and its convolution with one image of each class")
    grid = figure.subplots(3, columns)
    largest = max(np.abs(before).max(), np.abs(after).max())
    convolved = [ops.conv2d(images[:, None], K[None, None], padding=1)[:, 0] for K in (before, after)]
    reach = max(np.abs(C).max() for C in convolved)
    rows = (("K before", before, convolved[0]), ("K after", after, convolved[1]))
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    grid[0, 0].axis("off")
    for column, image in enumerate(images, 1):
        grid[0, column].imshow(image, cmap="gray", vmin=0, vmax=1)
        grid[0, column].set_title("I")
    for row, (title, K, C) in enumerate(rows, 1):
        grid[row, 0].imshow(K, cmap="RdBu_r", vmin=-largest, vmax=largest)
        grid[row, 0].set_title(f"{title} (own scale)")
        for (u, v), weight in np.ndenumerate(K):
            colour = "white" if abs(weight) > 0.6 * largest else "black"
            grid[row, 0].text(v, u, f"{weight:.2f}", ha="center", va="center", color=colour)
        for column in range(1, columns):
            shown = grid[row, column].imshow(C[column - 1], cmap="RdBu_r", vmin=-reach, vmax=reach)
            grid[row, column].set_title(f"I ⊗ {title}")
    figure.colorbar(shown, ax=grid[1:, -1], shrink=0.8)
    figure.savefig(path)
