"""Images decoded, framed and resized as a data set's crops are, many at once on all cores.

This module imports no torch, so that the processes it starts are there at once.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from PIL import Image

from lora_lab.errors import DataError
from lora_lab.faces import Detector, Frame, centre_square, default_detector, detect
from lora_lab.photos import open_photo, times_smaller

FACES = ("face", "padded_face")
FACE_PADDING = 0.1
FACE_ENLARGEMENT = 4
FEWEST = 256
"""Images from which starting processes is worth its seconds."""

Source = Path | bytes | Image.Image


@dataclass(frozen=True, eq=False)
class Framed:
    """A crop (S, S, 3) uint8, the frame in the file's pixels (x, y, side), and whether a face was found."""

    pixels: np.ndarray
    frame: tuple[float, float, float]
    detected: bool


def framed_all(sources: Iterable[Source | DataError], how: str, size: int, stored: int, count: int) -> Iterator[Framed | str]:
    """Each image framed for a backbone's input of this size and stored this wide, in order, or why it cannot be read."""
    cores = os.cpu_count() or 1
    if count < FEWEST or cores == 1:
        return (framed(source, how, size, stored) for source in sources)
    run = joblib.Parallel(n_jobs=cores, return_as="generator", pre_dispatch="4*n_jobs")
    found: Any = run(joblib.delayed(framed)(source, how, size, stored) for source in sources)
    return found


def framed(source: Source | DataError, how: str, size: int, stored: int) -> Framed | str:
    """One image."""
    try:
        if isinstance(source, DataError):
            raise source
        photo = source if isinstance(source, Image.Image) else open_photo(source)
    except DataError as error:
        return str(error)
    frame, detected = _frame(photo, how, default_detector() if how in FACES else None)
    pixels = np.asarray(frame.crop(photo, stored, margin=stored / size))
    times = times_smaller(photo)
    return Framed(pixels, (frame.x * times, frame.y * times, frame.side * times), detected)


def _frame(photo: Image.Image, how: str, detector: Detector | None) -> tuple[Frame, bool]:
    # Where no face is found, the centre square is scored all the same, so that the detector's misses count.
    whole = centre_square(photo)
    if detector is None:
        return whole, False
    if how == "face":
        faces = detect(photo, detector)
        return (faces[0].frame, True) if faces else (whole, False)
    faces = [face for face in _detect_enlarged(photo, detector) if face.side > 0.5 * photo.width]
    return (faces[0], True) if faces else (whole, False)


def _detect_enlarged(photo: Image.Image, detector: Detector) -> list[Frame]:
    pad = round(FACE_PADDING * photo.width)
    padded = Image.fromarray(np.pad(np.asarray(photo), ((pad, pad), (pad, pad), (0, 0)), mode="edge"))
    large = padded.resize([side * FACE_ENLARGEMENT for side in padded.size], Image.Resampling.BICUBIC)
    frames = [face.frame for face in detect(large, detector)]
    return [Frame(f.x / FACE_ENLARGEMENT - pad, f.y / FACE_ENLARGEMENT - pad, f.side / FACE_ENLARGEMENT) for f in frames]
