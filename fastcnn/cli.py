"""The command ``fastcnn``: train, predict, tune, info.

Exit codes: 0 done, 2 wrong use or input, 3 the loss level was not reached, 130 interrupted by Ctrl-C.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NoReturn

import fastcnn

#: Modules that the commands import -> the name they are installed under; all are in the extra ``train``.
TRAIN_NEEDS = {
    "sklearn": "scikit-learn",
    "matplotlib": "matplotlib",
    "tqdm": "tqdm",
    "safetensors": "safetensors",
    "PIL": "Pillow",
}
PREDICT_NEEDS = {name: TRAIN_NEEDS[name] for name in ("safetensors", "PIL")}
TUNE_NEEDS = {name: TRAIN_NEEDS[name] for name in ("safetensors", "tqdm")}

EXAMPLES = """examples:
  fastcnn train essay --target-loss 0.05 --seed 0 --out runs/essay
  fastcnn train digits --out runs/digits
  fastcnn predict runs/digits/model.safetensors photo.png
  fastcnn tune runs/digits/model.safetensors --batch 1 --batch 64
  fastcnn info"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def parser() -> Parser:
    """Build the parser of the command line."""
    main = Parser(
        "fastcnn",
        description="Train and run small convolutional networks on the CPU.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main.add_argument("--version", action="version", version=f"fastcnn {fastcnn.__version__}")
    commands = main.add_subparsers(dest="command", required=True)

    common = Parser(add_help=False)
    common.add_argument("--backend", help="auto, cython, numba or numpy (default: auto, or FASTCNN_BACKEND)")
    common.add_argument(
        "--threads", type=int, help="number of threads (default: the CPUs this process may use, or FASTCNN_NUM_THREADS)"
    )
    common.add_argument("--json", action="store_true", help="print the result as one JSON value")

    train = commands.add_parser(
        "train",
        parents=[common],
        help="train a network on handwritten digits",
        description="Train a network on the handwritten digits that come with scikit-learn.",
        epilog="Files of an earlier run in DIR are replaced; nothing else in it is touched.",
    )
    train.add_argument(
        "task", choices=("essay", "digits"), help="essay: its network on 0, 1, 2; digits: all ten, LeNet"
    )
    train.add_argument("--out", metavar="DIR", help="where the files go (default: runs/TASK)")
    train.add_argument("--target-loss", type=float, help="stop at this training loss (essay: 0.05)")
    train.add_argument("--max-steps", type=int, help="stop after this many steps (essay: 5000, digits: 900)")
    train.add_argument("--seed", type=int, default=0, help="of initialisation and shuffling (default: 0)")
    train.add_argument("--lr", type=float, help="learning rate (default: 0.05)")
    train.add_argument("--hidden", type=int, help="width of the hidden layer (essay: 32, digits: 64)")
    train.add_argument("--batch-size", type=int, help="images per step (essay: all, digits: 32)")
    train.add_argument("--quiet", action="store_true", help="no progress bar")

    predict = commands.add_parser(
        "predict",
        parents=[common],
        help="classify image files",
        description="Classify image files. The networks know one digit per image, white on black, filling "
        "the image. Images are made grey and resized; dark digits on light paper are inverted.",
    )
    predict.add_argument("model", metavar="MODEL", help="a model.safetensors that train wrote")
    predict.add_argument("images", metavar="IMAGE", nargs="+")
    predict.add_argument(
        "--background",
        choices=("auto", "dark", "light"),
        default="auto",
        help="what the digits are on; auto looks at the border (default: auto)",
    )

    tune = commands.add_parser(
        "tune",
        parents=[common],
        help="measure the fastest kernels for a model",
        description="Measure which kernels are the fastest for the forward pass and a training step of a model. What "
        "is found is kept in the user's cache directory (or FASTCNN_CACHE_DIR), and used from then on.",
    )
    tune.add_argument("model", metavar="MODEL", help="a model.safetensors that train wrote")
    tune.add_argument(
        "--batch", metavar="N", type=int, action="append", help="images per call; may be repeated (default: 1 and 64)"
    )
    tune.add_argument("--quiet", action="store_true", help="no progress bar")

    commands.add_parser("info", parents=[common], help="versions, CPU level, threads, backends")
    return main


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code.
    """
    args = parser().parse_args(argv)
    try:
        if args.threads is not None:
            try:
                fastcnn.set_num_threads(args.threads)
            except ValueError as error:
                raise ValueError(f"--threads: {str(error).removeprefix('n: ')}") from None
        with fastcnn.use_backend(args.backend) if args.backend is not None else nullcontext():
            return COMMANDS[args.command](args)
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    except (ValueError, OverflowError, MemoryError, RuntimeError, FloatingPointError, ImportError) as error:
        text = str(error)
    except KeyboardInterrupt:
        print("fastcnn: interrupted", file=sys.stderr)
        return 130
    print(f"fastcnn: error: {' '.join(text.split())}", file=sys.stderr)
    return 2


def _require(needs: dict[str, str]) -> None:
    missing = [package for module, package in needs.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f"this command needs {', '.join(missing)}; install with: pip install 'fastcnn[train]'")


def _train(args: argparse.Namespace) -> int:
    _require(TRAIN_NEEDS)
    from fastcnn import tasks

    run, result = tasks.run(
        args.task,
        args.out or f"runs/{args.task}",
        seed=args.seed,
        progress=not args.quiet,
        target_loss=args.target_loss,
        max_steps=args.max_steps,
        lr=args.lr,
        hidden=args.hidden,
        batch_size=args.batch_size,
    )
    if args.json:
        print(json.dumps(result))
    else:
        target = f" (target {result['target_loss']:g})" if result["target_loss"] else ""
        print(f"{args.task}: {run.steps} steps, training loss {run.loss:.4f}{target}")
        print(f"accuracy: training {run.accuracy:.2%}, held-out {result['held_out_accuracy']:.2%}")
        print(f"time: {run.seconds:.1f} s, {run.images_per_second:,.0f} images/s")
        print("written:", ", ".join(result["files"]))
    if run.interrupted:
        print(f"fastcnn: interrupted after {run.steps} steps; the model so far is written", file=sys.stderr)
        return 130
    if result["target_loss"] and not run.reached:
        print(
            f"fastcnn: the loss is {run.loss:.4f} after {run.steps} steps, the step limit; "
            f"the target {result['target_loss']:g} was not reached",
            file=sys.stderr,
        )
        return 3
    return 0


def _predict(args: argparse.Namespace) -> int:
    _require(PREDICT_NEEDS)
    import numpy as np

    from fastcnn.data import read_image
    from fastcnn.files import load_model
    from fastcnn.nn import softmax

    model, header = load_model(args.model)
    images = np.stack([read_image(path, model.input_shape, args.background) for path in args.images])
    probabilities = softmax(model(images.astype(str(model.config["dtype"]))))
    results = [
        {
            "image": path,
            "class": header["classes"][int(p.argmax())],
            "probabilities": dict(zip(header["classes"], p.tolist(), strict=True)),
        }
        for path, p in zip(args.images, probabilities, strict=True)
    ]
    if args.json:
        print(json.dumps(results))
        return 0
    for result in results:
        shares = "  ".join(f"{label}: {p:.1%}" for label, p in result["probabilities"].items())
        print(f"{result['image']}: {result['class']}   ({shares})")
    return 0


def _tune(args: argparse.Namespace) -> int:
    _require(TUNE_NEEDS)
    from tqdm import tqdm

    from fastcnn import picks, tuning
    from fastcnn.checks import integer
    from fastcnn.files import load_model

    model, _ = load_model(args.model)
    batches = [integer(batch, "--batch", 1) for batch in args.batch or (1, 64)]
    steps = tuning.training_steps(model, batches)
    bar = tqdm(steps, unit="call", disable=args.quiet)
    found = [tuning.measure_and_remember(step) for step in bar]
    if args.json:
        print(json.dumps([measured.as_dict() for measured in found]))
        return 0
    print(f"{'model of costs':36}  {'measured':36}  threads      us  gain  call")
    for measured in found:
        name, number, seconds = measured.pick
        gain = measured.modelled_seconds / seconds
        print(f"{measured.modelled:36}  {name:36}  {number:7}  {seconds * 1e6:6.1f}  {gain:4.2f}  {measured.call}")
    print("kept in", picks.path())
    return 0


def _info(args: argparse.Namespace) -> int:
    if args.json:
        from fastcnn.config import config

        print(json.dumps(config()))
    else:
        fastcnn.show_config()
    return 0


COMMANDS = {"train": _train, "predict": _predict, "tune": _tune, "info": _info}
