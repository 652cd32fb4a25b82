"""300-W: 68 points a face in a .pts file beside its photo, in the folders of the collections that it joins.

The usual split: `train` is AFW and the training sets of Helen and LFPW, `test` their test sets (the common set), and
`challenging` is IBUG. The files count pixels from 1; here they count from 0. A photo with several faces lies there once a
face, its name ending in a number; each is cut around its points, and they stay on one side when `val` is made.
"""

import re
from pathlib import Path

import numpy as np

from lora_lab.data.boxes import cut_to_points
from lora_lab.data.dataset import Dataset, Split
from lora_lab.data.files import ENDINGS, first_folder, relative_names, report_rest, stamp_of
from lora_lab.data.formats.base import Format, Found, dataset_of
from lora_lab.data.reading import Reading
from lora_lab.data.report import Report
from lora_lab.data.splitting import with_made_splits
from lora_lab.errors import DataError

PARTS = {
    "train": ("afw", "helen/trainset", "lfpw/trainset"),
    "test": ("helen/testset", "lfpw/testset"),
    "challenging": ("ibug",),
}


def _root(folder: Path) -> Path | None:
    for root in (folder, folder / "300W", folder / "300w"):
        if any(next((root / part).glob("*.pts"), None) for parts in PARTS.values() for part in parts):
            return root
    return None


def _read(folder: Path, reading: Reading) -> Dataset:
    root = _root(folder)
    if root is None:
        raise DataError(f"{folder} has no .pts files in {', '.join(part for parts in PARTS.values() for part in parts)}")
    report = Report()
    splits, groups, used = {}, [], []
    for name, parts in PARTS.items():
        paths = [path for part in parts if (found := first_folder(root / part)) for path in sorted(found.glob("*.pts"))]
        if paths:
            splits[name] = _split(root, paths)
            used += [*paths, *map(_photo_beside, paths)]
        if name == "train":
            groups = [_photo_of(path) for path in paths]
    report_rest(root, used, report, "no .pts file of a part that is read")
    found = Found(with_made_splits(splits, groups=groups or None), stored="face", report=report)
    return dataset_of("300w", folder, found, reading.column or "points")


def _split(root: Path, annotations: list[Path]) -> Split:
    photos = [_photo_beside(path) for path in annotations]
    images, points = cut_to_points(photos, [read_points(path) for path in annotations])
    stamp = stamp_of("300w 2", root, [*annotations, *photos])
    return Split(images, relative_names(root, photos), {"points": points}, stamp)


def _photo_beside(annotation: Path) -> Path:
    there = (annotation.with_suffix(ending) for ending in (*ENDINGS, *map(str.upper, ENDINGS)))
    return next((photo for photo in there if photo.exists()), annotation.with_suffix(ENDINGS[0]))


def _photo_of(annotation: Path) -> str:
    # 134212_1 and 134212_2 are faces of photo 134212; image_0001 is a photo of its own.
    return f"{annotation.parent}/{re.sub(r'(?<=[0-9])_[0-9]+$', '', annotation.stem)}"


def read_points(path: Path) -> np.ndarray:
    """The points (k, 2) of a .pts file in pixels that count from 0. Raises `DataError`."""
    found = re.search(r"\{(.*?)\}", path.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    words = found.group(1).split() if found else []
    try:
        numbers = np.array(words, float)
    except ValueError as error:
        raise DataError(f"{path} holds a coordinate that is no number") from error
    if not len(numbers) or len(numbers) % 2:
        raise DataError(f"{path} holds {len(numbers)} numbers between {{ and }} where it should have x y in each line")
    return numbers.reshape(-1, 2) - 1


FORMAT = Format(
    name="300w",
    title="300-W (Sagonas et al. 2016), 68 points",
    documented="the page of the annotations, which says that the top left pixel is x=1, y=1",
    home="https://ibug.doc.ic.ac.uk/resources/facial-point-annotations/",
    terms="non-commercial research",
    matches=lambda folder: _root(folder) is not None,
    read=_read,
)
