"""Real handwritten digits: the 1797 images that come with scikit-learn, and image files for prediction.

The images are 8 x 8 with 17 grey levels, white ink on black (the test part of UCI's "Optical Recognition of
Handwritten Digits", 1998). The held-out 20 % are stratified by class and always the same.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

SPLIT_SEED = 0


@dataclass
class Digits:
    """Images scaled to [0, 1] with class indices, and the digit each index stands for."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: list[str]


def essay_digits(dtype: DTypeLike = np.float32) -> Digits:
    """Digits 0, 1 and 2 resized to the essay's 20 x 20: images (N, 20, 20)."""
    return _load(3, (20, 20), dtype)


def all_digits(dtype: DTypeLike = np.float32) -> Digits:
    """All ten digits: images (N, 1, 8, 8)."""
    return _load(10, (1, 8, 8), dtype)


def _load(classes: int, shape: tuple[int, ...], dtype: DTypeLike) -> Digits:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(n_class=classes, return_X_y=True)
    images = pixels.reshape(-1, 8, 8).astype(np.float32) / 16
    images = np.stack([resize(image, (shape[-2], shape[-1])) for image in images]).astype(dtype).reshape(-1, *shape)
    parts = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=SPLIT_SEED)
    train_x, test_x, train_y, test_y = parts
    return Digits(train_x, train_y, test_x, test_y, [str(i) for i in range(classes)])


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a float32 image (H, W) with Pillow's bilinear filter, which averages when it shrinks."""
    if image.shape == size:
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def read_image(path: str | Path, shape: tuple[int, ...], background: str = "auto") -> np.ndarray:
    """Read an image file as the training images are: grey, light digit on black, resized, in [0, 1].

    Parameters
    ----------
    path : str or Path
        Any format Pillow reads; transparent parts count as white paper.
    shape : tuple of int
        The model's ``input_shape``; the last two are H and W.
    background : {"auto", "dark", "light"}
        "light" inverts the image; "auto" does if most of its border is nearer to white than to black.

    Returns
    -------
    ndarray of float32 and `shape`

    Raises
    ------
    ValueError
        If the file is not an image that Pillow can read.
    FileNotFoundError, OSError
    """
    from PIL import Image, UnidentifiedImageError

    with open(path, "rb") as file:
        try:
            with Image.open(file) as picture:
                deep = picture.mode.startswith("I;16")  # convert would clip it instead of scale it
                eight = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)) if deep else picture
                rgba = eight.convert("RGBA")
        except UnidentifiedImageError:
            raise ValueError(f"{path}: not an image") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path}: damaged or too large an image ({error})") from None
    paper = Image.new("RGBA", rgba.size, "white")
    grey = np.asarray(Image.alpha_composite(paper, rgba).convert("L"), np.float32) / 255
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if background == "light" or (background == "auto" and np.median(border) > 0.5):
        grey = 1 - grey
    return resize(grey, (shape[-2], shape[-1])).reshape(shape)


def jitter(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotate, scale and shift each image at random: by up to 10 degrees, 10 %, and a tenth of its size.

    Parameters
    ----------
    images : ndarray (N, C, H, W)
    rng : numpy.random.Generator

    Returns
    -------
    ndarray (N, C, H, W), bilinearly interpolated, zero outside the original
    """
    N, _, H, W = images.shape
    angle, scale = rng.uniform(-np.pi / 18, np.pi / 18, N), rng.uniform(0.9, 1.1, N)
    shift = rng.uniform(-0.1, 0.1, (2, N, 1, 1)) * np.array([H, W])[:, None, None, None]
    cos, sin = (scale * np.cos(angle))[:, None, None], (scale * np.sin(angle))[:, None, None]
    y, x = np.meshgrid(np.arange(H) - (H - 1) / 2, np.arange(W) - (W - 1) / 2, indexing="ij")
    # Where each output pixel comes from, in an image with a border of two zeros to fall on.
    rows = np.clip(cos * y - sin * x + shift[0] + (H - 1) / 2 + 2, 0, H + 2)
    cols = np.clip(sin * y + cos * x + shift[1] + (W - 1) / 2 + 2, 0, W + 2)
    r, c = rows.astype(np.intp), cols.astype(np.intp)
    fr, fc = (rows - r)[..., None], (cols - c)[..., None]
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))).transpose(0, 2, 3, 1)
    n = np.arange(N)[:, None, None]
    top = padded[n, r, c] * (1 - fc) + padded[n, r, c + 1] * fc
    bottom = padded[n, r + 1, c] * (1 - fc) + padded[n, r + 1, c + 1] * fc
    return (top * (1 - fr) + bottom * fr).transpose(0, 3, 1, 2).astype(images.dtype, order="C")
