"""Every image of a split decoded, framed and resized once, and kept in the user's cache.

A crop is stored wider than the backbone's input by `MARGIN`, so that training can shift, turn and scale it; evaluation
reads its centre.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from lora_lab.cache import cache_folder, whole_file
from lora_lab.data.parquet import read_split, split_path
from lora_lab.errors import DataError
from lora_lab.faces import Detector, Frame, centre_square, default_detector, detect
from lora_lab.photos import open_photo
from lora_lab.tasks import Task

MARGIN = 9 / 7
VERSION = 1
FACE_PADDING = 0.1
FACE_ENLARGEMENT = 4


@dataclass(frozen=True)
class Crops:
    """n framed images of a split.

    `pixels` (n, S, S, 3) uint8; `targets` as the task's, points in the frame's coordinates; `normaliser` (n,) is the
    distance of the outer eye corners in those coordinates, for points; `detection_rate` in 0–1 where faces were sought.
    """

    pixels: np.ndarray
    targets: np.ndarray
    normaliser: np.ndarray | None
    detection_rate: float | None

    def __len__(self) -> int:
        return len(self.targets)

    def part(self, rows: np.ndarray) -> "Crops":
        """Some of the images, in this order."""
        normaliser = None if self.normaliser is None else self.normaliser[rows]
        return replace(self, pixels=self.pixels[rows], targets=self.targets[rows], normaliser=normaliser)

    def centre(self, size: int) -> np.ndarray:
        """The part that the backbone is shown, (n, size, size, 3)."""
        edge = (self.pixels.shape[1] - size) // 2
        return self.pixels[:, edge : edge + size, edge : edge + size]


def load_crops(task: Task, data: Path, split: str, size: int) -> Crops:
    """The crops of a task's split for a backbone of this input size, from the cache or made now.

    `data` is the task's own folder or the folder that holds it. Raises `NotFoundError` and `DataError`.
    """
    folder = task_folder(task, data)
    path = split_path(folder, split)
    stamp = path.stat()
    detector = default_detector() if task.stored in ("face", "padded_face") else None
    origin = (VERSION, str(path.resolve()), stamp.st_size, stamp.st_mtime_ns, task.stored, size)
    framing = (detector.name, detector.side, detector.below) if detector else ()
    key = hashlib.sha256(json.dumps((*origin, *framing)).encode()).hexdigest()[:16]
    kept = cache_folder("crops") / f"{task.folder}-{split}-{key}"
    if not kept.with_suffix(".json").exists():
        _prepare(task, folder, split, size, detector, kept)
    pixels = np.load(kept.with_suffix(".npy"), mmap_mode="r")
    note = json.loads(kept.with_suffix(".json").read_text())
    return _with_targets(task, read_split(folder, split).columns, pixels, note)


def task_folder(task: Task, data: Path) -> Path:
    """The folder of a task's data: the one of its name in `data`, or `data` itself."""
    return data / task.folder if (data / task.folder).is_dir() else data


def has_split(task: Task, data: Path, split: str) -> bool:
    """Whether `data` holds a task's split, in the folder of its name or as that folder itself."""
    folder = task_folder(task, data)
    return folder.name == task.folder and (folder / f"{split}.parquet").exists()


def _stored_size(size: int) -> int:
    # The same parity as the input's, so that the centre lies on whole pixels.
    wide = round(size * MARGIN)
    return wide + (wide - size) % 2


def _prepare(task: Task, folder: Path, split: str, size: int, detector: Detector | None, kept: Path) -> None:
    stored = _stored_size(size)
    table = read_split(folder, split)
    pixels = np.empty((len(table), stored, stored, 3), np.uint8)
    frames, found = [], []
    faults = []
    for index, data in enumerate(table.images):
        try:
            photo = open_photo(data)
        except DataError as error:
            faults.append(f"image {index}: {error}")
            continue
        frame, detected = _frame(photo, task, detector)
        pixels[index] = np.asarray(frame.crop(photo, stored, margin=stored / size))
        frames.append((frame.x, frame.y, frame.side))
        found.append(detected)
    if faults:
        raise DataError(f"{table.path}: {len(faults)} of {len(table)} images cannot be read; the first: {faults[0]}")
    with whole_file(kept.with_suffix(".npy")) as part, part.open("wb") as file:
        np.save(file, pixels)
    with whole_file(kept.with_suffix(".json")) as part:
        part.write_text(json.dumps({"frames": frames, "detected": found if detector else None}))


def _frame(photo: Image.Image, task: Task, detector: Detector | None) -> tuple[Frame, bool]:
    # Where no face is found, the centre square is scored all the same, so that the detector's misses count.
    whole = centre_square(photo)
    if detector is None:
        return whole, False
    if task.stored == "face":
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


def _with_targets(task: Task, columns: dict, pixels: np.ndarray, note: dict) -> Crops:
    targets = task.targets(columns)
    frames = np.asarray(note["frames"])
    rate = float(np.mean(note["detected"])) if note["detected"] is not None else None
    if task.kind != "points":
        return Crops(pixels, targets, None, rate)
    sides = frames[:, 2]
    points = np.stack([Frame(*f).to_frame(p) for f, p in zip(frames, targets, strict=True)]).astype(np.float32)
    eyes = np.asarray(columns["eye_distance"], np.float32) / sides
    return Crops(pixels, points, eyes.astype(np.float32), rate)
