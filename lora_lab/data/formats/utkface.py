"""UTKFace: faces whose file names say age, gender and ethnicity: [age]_[gender]_[race]_[date&time].jpg.

A few files lack a part of their name; they are left out and counted. The aligned crops (…chip.jpg, 200 × 200 pixels) are
framed already; photos in the wild are not. No split comes with it, so `val` and `test` are made.
"""

import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from lora_lab.data.dataset import Dataset, Split
from lora_lab.data.files import FileImages, image_files, relative_names, stamp_of
from lora_lab.data.formats.base import Format, Found, dataset_of
from lora_lab.data.reading import Reading
from lora_lab.data.report import Report
from lora_lab.data.splitting import with_made_splits
from lora_lab.errors import DataError

NAME = re.compile(r"(\d{1,3})_([01])_([0-4])_\d+\b")
GENDERS = ("male", "female")
RACES = ("white", "black", "asian", "indian", "others")
LOOKED_AT = 50


def _matches(folder: Path) -> bool:
    first = list(islice(image_files(folder), LOOKED_AT))
    return bool(first) and sum(bool(NAME.match(path.name)) for path in first) > len(first) / 2


def _read(folder: Path, reading: Reading) -> Dataset:
    report = Report()
    paths = list(image_files(folder, report))
    parts = [NAME.match(path.name) for path in paths]
    kept = [(path, part) for path, part in zip(paths, parts, strict=True) if part]
    for path in (path for path, part in zip(paths, parts, strict=True) if not part):
        report.leave(path.relative_to(folder).as_posix(), "its name lacks age, gender, race or date")
    if not kept:
        raise DataError(f"{folder} holds no image named [age]_[gender]_[race]_[date&time].jpg, as UTKFace's are")
    paths = [path for path, _ in kept]
    columns = {
        "age": [int(part[1]) for _, part in kept],
        "gender": [GENDERS[int(part[2])] for _, part in kept],
        "race": [RACES[int(part[3])] for _, part in kept],
    }
    train = Split(FileImages(paths), relative_names(folder, paths), columns, stamp_of("utkface 2", folder, paths))
    found = Found(with_made_splits({"train": train}), "framed" if _is_aligned(paths[0]) else "face", report)
    column = reading.column or "age"
    labels = {"gender": GENDERS, "race": RACES}.get(column)
    data = dataset_of("utkface", folder, found, column, labels)
    return data if data.column != "age" else _of_ages(data)


def _of_ages(data: Dataset) -> Dataset:
    # Ages stay numbers, however few and dense they are.
    return replace(data, kind="number", labels=())


def _is_aligned(path: Path) -> bool:
    if ".chip." in path.name:
        return True
    try:
        with Image.open(path) as image:
            return image.size == (200, 200)
    except (UnidentifiedImageError, OSError):
        return False


FORMAT = Format(
    name="utkface",
    title="UTKFace (Zhang et al. 2017), age, gender and ethnicity",
    documented="the section on labels of https://susanqq.github.io/UTKFace/",
    home="https://susanqq.github.io/UTKFace/",
    terms="non-commercial research",
    matches=_matches,
    read=_read,
)
