"""Altered copies of pictures (H, W, 3) uint8: varied by chance, matched, or made small."""

from io import BytesIO

import numpy as np
from PIL import Image


def varied(pixels: np.ndarray, rng: np.random.Generator, least: float) -> np.ndarray:
    """A copy as another camera and another program might have it: zoomed, small, grey or not, of other light, compressed."""
    side = len(pixels)
    part = round(side * rng.uniform(least, 1))
    edge, small = (side - part) // 2, int(rng.integers(32, side + 1))
    image = Image.fromarray(np.ascontiguousarray(pixels[edge : edge + part, edge : edge + part]))
    values = _grey_or_not(image.resize((small, small), Image.Resampling.BICUBIC), rng.random() < 0.5)
    if rng.random() < 0.5:
        values = (values - values.mean()) / max(values.std(), 1) * rng.uniform(20, 70) + rng.uniform(40, 160)
    return _compressed(values, int(rng.integers(40, 96)), side)


def matched(pixels: np.ndarray) -> np.ndarray:
    """The picture without what tells data sets apart at once: grey, 48 pixels, equal light and contrast, one compression."""
    image = Image.fromarray(np.ascontiguousarray(pixels)).resize((48, 48), Image.Resampling.BOX)
    values = _grey_or_not(image, True)
    return _compressed((values - values.mean()) / max(values.std(), 1) * 50 + 110, 75, len(pixels))


def _grey_or_not(image: Image.Image, grey: bool) -> np.ndarray:
    return np.asarray(image.convert("L").convert("RGB") if grey else image, np.float32)


def _compressed(values: np.ndarray, quality: int, side: int) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).resize((side, side), Image.Resampling.BICUBIC))


def shrunk(pixels: np.ndarray, small: int) -> np.ndarray:
    """The picture made so many pixels wide, and as large as it was again."""
    side, image = len(pixels), Image.fromarray(np.ascontiguousarray(pixels))
    smaller = image.resize((small, small), Image.Resampling.BICUBIC)
    return np.asarray(smaller.resize((side, side), Image.Resampling.BICUBIC))
