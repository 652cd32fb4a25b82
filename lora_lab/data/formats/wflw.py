"""WFLW: 98 points of 10,000 faces, two lists of lines beside a folder of photos.

A line holds 98 x, y pairs, the face's box, six flags and the photo's path, 207 words. A photo may have several faces, each
with its line; it is cut around the face's points, and all its faces stay on one side when `val` is made from `train`.
"""

from pathlib import Path

import numpy as np

from lora_lab.data.boxes import cut_to_points
from lora_lab.data.dataset import Dataset, Split
from lora_lab.data.files import first_folder, report_rest, stamp_of
from lora_lab.data.formats.base import Format, Found, dataset_of
from lora_lab.data.reading import Reading
from lora_lab.data.report import Report
from lora_lab.data.splitting import with_made_splits
from lora_lab.errors import DataError, NotFoundError

POINTS = 98
WORDS = 2 * POINTS + 4 + 6 + 1
LISTS = "list_98pt_rect_attr_train_test"


def _lists(folder: Path) -> Path | None:
    return first_folder(folder / "WFLW_annotations" / LISTS, folder / LISTS)


def _read(folder: Path, reading: Reading) -> Dataset:
    lists, photos = _lists(folder), folder / "WFLW_images"
    if lists is None or not photos.is_dir():
        raise NotFoundError(f"{folder} lacks WFLW_annotations/{LISTS} or WFLW_images: unpack both archives of WFLW there")
    report = Report()
    splits, photo_of, used = {}, [], set()
    for name in ("train", "test"):
        path = lists / f"list_98pt_rect_attr_{name}.txt"
        if path.exists():
            splits[name], named = _split(path, photos)
            photo_of = named if name == "train" else photo_of
            used.update(photos / one for one in named)
    if not splits:
        raise NotFoundError(f"{lists} has neither list_98pt_rect_attr_train.txt nor list_98pt_rect_attr_test.txt")
    report_rest(photos, used, report, "no face of it in the lists")
    found = Found(with_made_splits(splits, groups=photo_of or None), stored="face", report=report)
    return dataset_of("wflw", folder, found, reading.column or "points")


def _split(path: Path, photos: Path) -> tuple[Split, list[str]]:
    points, named = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < WORDS:
            raise DataError(f"{path.name}, line {number}: {len(words)} words where WFLW has {WORDS}")
        try:
            points.append(np.array(words[: 2 * POINTS], float).reshape(POINTS, 2))
        except ValueError as error:
            raise DataError(f"{path.name}, line {number}: a coordinate is no number") from error
        named.append(" ".join(words[WORDS - 1 :]))
    paths = [photos / name for name in named]
    images, moved = cut_to_points(paths, points)
    names = [f"{name} (line {number})" for number, name in enumerate(named, 1)]
    stamp = stamp_of("wflw 2", photos, [path, *sorted(set(paths))])
    return Split(images, names, {"points": moved}, stamp), named


FORMAT = Format(
    name="wflw",
    title="WFLW (Wu et al. 2018, Look at Boundary), 98 points",
    documented="README of the data set's annotations; https://wywu.github.io/projects/LAB/WFLW.html",
    home="https://wywu.github.io/projects/LAB/WFLW.html",
    terms="non-commercial research; photos of WIDER FACE",
    matches=lambda folder: _lists(folder) is not None,
    read=_read,
)
