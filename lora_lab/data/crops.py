"""Every image of a split decoded, framed and resized once, and kept in the user's cache.

A crop is stored wider than the backbone's input by `MARGIN`, so that training can shift, turn and scale it; evaluation
reads its centre.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lora_lab.cache import cache_folder, whole_file
from lora_lab.data.dataset import Dataset, Split
from lora_lab.data.labels import targets_of
from lora_lab.data.opening import task_dataset
from lora_lab.errors import DataError
from lora_lab.faces import Frame, default_detector
from lora_lab.framing import FACES, Source, framed_all
from lora_lab.tasks import Task
from lora_lab.tasks.base import Stored

MARGIN = 9 / 7
VERSION = 1
# The outer corners of the eyes, by the number of points.
EYE_CORNERS = {68: (36, 45), 98: (60, 72)}


@dataclass(frozen=True)
class Crops:
    """n framed images of a split.

    `pixels` (n, S, S, 3) uint8; `targets` as the task's, points in the frame's coordinates; `normaliser` (n,) is for
    points the distance of the outer eye corners in those coordinates, or the root of the area of the points' box where
    nobody knows which the eyes are; `detected` (n,) says where a face was found, none where none was sought.
    """

    pixels: np.ndarray
    targets: np.ndarray
    normaliser: np.ndarray | None
    detected: np.ndarray | None

    def __len__(self) -> int:
        return len(self.targets)

    def part(self, rows: np.ndarray) -> "Crops":
        """Some of the images, in this order."""
        normaliser, detected = (None if one is None else one[rows] for one in (self.normaliser, self.detected))
        return Crops(self.pixels[rows], self.targets[rows], normaliser, detected)

    @property
    def detection_rate(self) -> float | None:
        """The share of the images in which a face was found, in 0–1; none where none was sought."""
        return None if self.detected is None else float(np.mean(self.detected))

    def centre(self, size: int) -> np.ndarray:
        """The part that the backbone is shown, (n, size, size, 3)."""
        edge = (self.pixels.shape[1] - size) // 2
        return self.pixels[:, edge : edge + size, edge : edge + size]


def load_crops(task: Task, data: Path | Dataset, split: str, size: int) -> Crops:
    """The crops of a task's split for a backbone of this input size, from the cache or made now.

    `data` is a data set, the task's own folder or the folder that holds it. Raises `NotFoundError` and `DataError`.
    """
    dataset = task_dataset(task, data)
    table = dataset.read(split)
    stored = dataset.stored or task.stored
    kept = crops_path(task, table, split, stored, size)
    targets = targets_of(task, dataset.column, table.columns)
    if not kept.with_suffix(".json").exists():
        _prepare(table, f"{dataset.folder}, {split}", stored, size, kept)
    pixels = np.load(kept.with_suffix(".npy"), mmap_mode="r")
    note = json.loads(kept.with_suffix(".json").read_text())
    return _with_targets(targets, table.columns.get("eye_distance"), pixels, note)


def crops_path(task: Task, table: Split, split: str, stored: Stored, size: int) -> Path:
    """Where the crops of a split are kept, pixels with the suffix .npy and frames with .json; other images have another."""
    detector = default_detector() if stored in FACES else None
    framing = (detector.name, detector.side, detector.below) if detector else ()
    origin = (VERSION, *json.loads(table.stamp), stored, size, *framing)
    key = hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:16]
    return cache_folder("crops") / f"{task.folder}-{split}-{key}"


def stored_size(size: int) -> int:
    """The side of a stored crop in pixels, for a backbone's input of this size."""
    # The same parity as the input's, so that the centre lies on whole pixels.
    wide = round(size * MARGIN)
    return wide + (wide - size) % 2


def _prepare(table: Split, where: str, how: Stored, size: int, kept: Path) -> None:
    stored = stored_size(size)
    pixels = np.empty((len(table), stored, stored, 3), np.uint8)
    frames, found, faults = [], [], []
    every = framed_all(_sources(table), how, size, stored, len(table))
    for index, (name, one) in enumerate(zip(table.names, every, strict=True)):
        if isinstance(one, str):
            faults.append(f"{name}: {one}")
            continue
        pixels[index] = one.pixels
        frames.append(one.frame)
        found.append(one.detected)
    if faults:
        raise DataError(f"{where}: {len(faults)} of {len(table)} images cannot be read; the first: {faults[0]}")
    with whole_file(kept.with_suffix(".npy")) as part, part.open("wb") as file:
        np.save(file, pixels)
    with whole_file(kept.with_suffix(".json")) as part:
        part.write_text(json.dumps({"frames": frames, "detected": found if how in FACES else None}))


def _sources(table: Split) -> Iterator[Source | DataError]:
    for row in range(len(table)):
        try:
            yield table.images[row]
        except DataError as error:
            yield error


def _with_targets(targets: np.ndarray, eye_distance: Sequence[float] | None, pixels: np.ndarray, note: dict) -> Crops:
    detected = None if note["detected"] is None else np.asarray(note["detected"], bool)
    if targets.ndim != 3:
        return Crops(pixels, targets, None, detected)
    frames = np.asarray(note["frames"])
    points = np.stack([Frame(*f).to_frame(p) for f, p in zip(frames, targets, strict=True)]).astype(np.float32)
    distances = face_sizes(targets) if eye_distance is None else np.asarray(eye_distance, np.float32)
    return Crops(pixels, points, (distances / frames[:, 2]).astype(np.float32), detected)


def face_sizes(points: np.ndarray) -> np.ndarray:
    """What errors of points (n, k, 2) are shares of, (n,) pixels: the outer eye corners' distance, else the box's mean side."""
    if points.shape[1] in EYE_CORNERS:
        one, other = EYE_CORNERS[points.shape[1]]
        return np.linalg.norm(points[:, one] - points[:, other], axis=1)
    return np.sqrt(np.ptp(points, axis=1).prod(axis=1))
