"""The training loop: stopping, seeds, backends, Ctrl-C; the data and its augmentation."""

import os
import signal

import numpy as np
import pytest

from fastcnn import data, use_algorithm, use_backend
from fastcnn.models import Essay, LeNet
from fastcnn.nn import SGD, Linear
from fastcnn.training import evaluate, train
from fastcnn_kernels.table import BACKENDS


@pytest.fixture(scope="module")
def essay_digits():
    return data.essay_digits()


@pytest.fixture(scope="module")
def all_digits():
    return data.all_digits()


def history(digits, model, **options):
    run = train(model, digits.train_x, digits.train_y, SGD(model.parameters(), 0.02, 0.5), **options)
    return np.array(run.history)


@pytest.fixture(scope="module")
def short_runs(essay_digits, all_digits):
    """Train both networks for a few steps; returns the two histories."""

    def run():
        options = {"max_steps": 6, "batch_size": 16, "augment": data.jitter, "seed": 1}
        return (
            history(essay_digits, Essay(16, rng=0), max_steps=20),
            history(all_digits, LeNet(16, rng=0), **options),
        )

    return run


@pytest.fixture(scope="module")
def expected_runs(short_runs):
    with use_backend("numpy"):
        return short_runs()


@pytest.mark.parametrize("backend", BACKENDS)
def test_same_seed_gives_the_same_history_on_every_backend(backend, short_runs, expected_runs):
    with use_backend(backend), use_algorithm("direct"):
        runs = short_runs()
        again = short_runs()
    for got, repeated, expected in zip(runs, again, expected_runs, strict=True):
        np.testing.assert_array_equal(got, repeated)
        np.testing.assert_array_equal(got[:, :2], expected[:, :2])  # step and epoch
        # float32: the roundings of one step differ by about 1e-6 relative, and later steps amplify it.
        np.testing.assert_allclose(got[:, 2], expected[:, 2], rtol=1e-5)


def test_full_batch_stops_at_the_level(essay_digits):
    model = Essay(rng=0)
    run = train(
        model,
        essay_digits.train_x,
        essay_digits.train_y,
        SGD(model.parameters(), 0.05),
        max_steps=500,
        target_loss=0.3,
    )
    assert run.reached
    assert run.loss <= 0.3 < run.history[-2].loss
    assert run.steps == len(run.history) - 1
    assert evaluate(model, essay_digits.train_x, essay_digits.train_y) == (run.loss, run.accuracy)
    assert evaluate(model, essay_digits.test_x, essay_digits.test_y)[1] > 0.8


def test_minibatches_stop_at_the_end_of_the_epoch_that_reaches_the_level(essay_digits):
    model, n = Essay(rng=0), len(essay_digits.train_x)
    run = train(
        model,
        essay_digits.train_x,
        essay_digits.train_y,
        SGD(model.parameters(), 0.02),
        max_steps=500,
        batch_size=50,
        target_loss=0.3,
    )
    per_epoch = -(-n // 50)
    assert run.reached
    assert run.steps % per_epoch == 0
    assert run.steps < 500
    assert run.loss <= 0.3
    assert [row.epoch for row in run.history] == [row.step // per_epoch for row in run.history]


def test_step_limit(essay_digits):
    model, x, y = Essay(rng=0), essay_digits.train_x, essay_digits.train_y
    run = train(model, x, y, SGD(model.parameters(), 0.01), max_steps=2, target_loss=0.1)
    assert (run.steps, run.reached, len(run.history)) == (2, False, 3)


def test_every_image_is_seen_once_an_epoch_in_seeded_order():
    seen = []

    class Spy(Linear):
        def forward(self, x):
            seen.append(x[:, 0].astype(int).tolist())
            return super().forward(x)

    x = np.arange(10, dtype=np.float32)[:, None]
    for seed in (0, 0, 1):
        model = Spy(1, 2, rng=0)
        train(model, x, np.zeros(10, int), SGD(model.parameters(), 0), max_steps=5, batch_size=4, seed=seed)
    runs = seen[:6], seen[6:12], seen[12:]
    assert runs[0] == runs[1] != runs[2]
    for epoch in (runs[0][:3], runs[0][3:]):
        assert sorted(i for batch in epoch for i in batch) == list(range(10))
    assert runs[0][:3] != runs[0][3:]


def test_a_non_finite_loss_names_the_step():
    model = Linear(1, 2, dtype=np.float64, rng=0)
    x, labels = np.array([[1e200], [-1e200]]), np.array([0, 0])
    with pytest.raises(FloatingPointError, match=r"the loss is (inf|nan) at step [12]"):
        train(model, x, labels, SGD(model.parameters(), 1e200), max_steps=5)


def test_ctrl_c_ends_the_run_between_steps():
    class Interrupted(Linear):
        def forward(self, x):
            if self.calls == 3:
                os.kill(os.getpid(), signal.SIGINT)
            self.calls += 1
            return super().forward(x)

    model = Interrupted(1, 2, rng=0)
    model.calls = 0
    before = signal.getsignal(signal.SIGINT)
    x = np.ones((4, 1), np.float32)
    run = train(model, x, np.array([0, 1, 0, 1]), SGD(model.parameters(), 0.1), max_steps=100)
    assert run.interrupted
    assert run.steps == 3
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"max_steps": -1}, "max_steps: got -1"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"target_loss": float("nan")}, "target_loss: got nan"),
        ({"target_loss": 0.0}, "target_loss"),
        ({"y": np.zeros(3, int)}, "y: got 3 targets"),
        ({"y": np.full(2, 7)}, "labels"),
    ],
)
def test_refusals(change, text):
    model = Linear(1, 2, rng=0)
    options = {"x": np.ones((2, 1), np.float32), "y": np.zeros(2, int), "max_steps": 2} | change
    with pytest.raises(ValueError, match=text):
        train(model, optimizer=SGD(model.parameters(), 0.1), **options)


def test_the_split_is_fixed_stratified_and_scaled(essay_digits, all_digits):
    for digits, classes, shape in ((essay_digits, 3, (20, 20)), (all_digits, 10, (1, 8, 8))):
        total = len(digits.train_x) + len(digits.test_x)
        assert len(digits.test_x) == -(-total // 5)
        assert digits.train_x.shape[1:] == digits.test_x.shape[1:] == shape
        assert (digits.train_x.min(), digits.train_x.max()) == (0, 1)
        shares = np.bincount(digits.test_y) / (np.bincount(digits.test_y) + np.bincount(digits.train_y))
        assert len(shares) == classes == len(digits.classes)
        np.testing.assert_allclose(shares, 0.2, atol=0.02)
    again = data.all_digits()
    np.testing.assert_array_equal(again.test_x, all_digits.test_x)


def test_jitter_keeps_shape_range_and_ink(all_digits):
    images = all_digits.train_x[:200]
    moved = data.jitter(images, np.random.default_rng(0))
    assert (moved.shape, moved.dtype) == (images.shape, images.dtype)
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert moved.sum() == pytest.approx(images.sum(), rel=0.1)
    np.testing.assert_array_equal(moved, data.jitter(images, np.random.default_rng(0)))
    assert not np.array_equal(moved, images)


def test_jitter_without_motion_is_the_identity(all_digits):
    class Still:
        def uniform(self, low, high, size):
            return np.full(size, (low + high) / 2)

    images = all_digits.train_x[:10]
    np.testing.assert_allclose(data.jitter(images, Still()), images, atol=1e-6)


def test_a_16_bit_image_is_scaled_not_clipped(tmp_path):
    from PIL import Image

    grey = np.full((20, 20), 3000, np.uint16)
    grey[5:15, 8:12] = 65535
    Image.fromarray(grey).save(tmp_path / "deep.png")
    Image.fromarray((grey >> 8).astype(np.uint8)).save(tmp_path / "plain.png")
    deep, plain = (data.read_image(tmp_path / f"{name}.png", (20, 20)) for name in ("deep", "plain"))
    np.testing.assert_array_equal(deep, plain)
    assert deep.max() == 1


def test_the_level_counts_at_the_step_limit_too(essay_digits):
    x, y = essay_digits.train_x, essay_digits.train_y
    model = Essay(4, rng=0)
    run = train(model, x, y, SGD(model.parameters(), 0.05), max_steps=8, batch_size=50, target_loss=10)
    assert run.reached == (run.loss <= 10)
    assert run.reached
