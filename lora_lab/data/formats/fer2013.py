"""FER2013: a table of 48 × 48 grey faces as text; with fer2013new.csv beside it, the FER+ votes of ten people.

fer2013.csv, or a table of another name, has the columns emotion (0–6), pixels and Usage: Training is `train`, PublicTest
`val`, PrivateTest `test`; without Usage all rows are `train`.
fer2013new.csv has the same rows in the same order. As FER+'s own reader has it, single votes are struck, and an image has
the label that more than half of the rest give; those without one, unknown ones, no faces and contempt, which our seven
expressions lack, are left out and counted.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lora_lab.data.dataset import Dataset, Split
from lora_lab.data.files import is_system, report_rest, stamp_of
from lora_lab.data.formats.base import Format, Found, dataset_of
from lora_lab.data.reading import Reading
from lora_lab.data.report import Report
from lora_lab.data.splitting import with_made_splits
from lora_lab.data.texts import header_of
from lora_lab.errors import DataError, NotFoundError

TABLE, VOTES = "fer2013.csv", "fer2013new.csv"
SIDE = 48
EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
VOTED = {
    "neutral": "neutral",
    "happiness": "happy",
    "surprise": "surprise",
    "sadness": "sad",
    "anger": "angry",
    "disgust": "disgust",
    "fear": "fear",
    "contempt": "contempt",
    "unknown": "unknown",
    "NF": "no face",
}
NO_MAJORITY = "no majority"


@dataclass(frozen=True)
class Row:
    """Where a face stands in the table: byte offset of its line, its split and its label's name."""

    offset: int
    split: str
    label: str


class TableFaces(Sequence[Any]):
    """The faces of some lines of the table, RGB images, parsed when they are asked for. Raises `DataError`."""

    def __init__(self, path: Path, offsets: Sequence[int], field: int):
        self._path, self._offsets, self._field = path, offsets, field

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return TableFaces(self._path, self._offsets[index], self._field)
        with self._path.open("rb") as file:
            file.seek(self._offsets[index])
            words = _fields(file.readline())[self._field].split()
        try:
            pixels = np.array([int(word) for word in words], np.uint8).reshape(SIDE, SIDE)
        except (ValueError, OverflowError) as error:
            raise DataError(f"a face of {self._path.name} is not {SIDE} × {SIDE} numbers of 0–255") from error
        return Image.fromarray(pixels).convert("RGB")


def _table(folder: Path) -> Path | None:
    named = (folder / TABLE, folder / "icml_face_data.csv")
    others = (path for path in sorted(folder.glob("*.csv")) if not is_system(path.name))
    there = (path for path in (*named, *others) if path.is_file())
    return next((path for path in there if path.name == TABLE or {"emotion", "pixels"} <= _header(path)), None)


def _header(path: Path) -> set[str]:
    return {name.lower() for name in header_of(path)}


def _read(folder: Path, reading: Reading) -> Dataset:
    path, votes = _table(folder), folder / VOTES
    if path is None:
        raise NotFoundError(f"{folder} lacks {TABLE}: put the table of FER2013 there")
    report = Report()
    rows, field = _rows(path, report)
    if votes.exists():
        rows = _voted(rows, votes, report)
    report_rest(folder, [path, votes], report)
    stamp_files = [path, votes] if votes.exists() else [path]
    splits = {}
    for split in USAGES.values():
        here = [(number, row) for number, row in enumerate(rows, 1) if row.split == split and row.label]
        if here:
            splits[split] = Split(
                TableFaces(path, [row.offset for _, row in here], field),
                [f"row {number}" for number, _ in here],
                {"label": [row.label for _, row in here]},
                stamp_of(f"fer2013 1 {split}", folder, stamp_files),
            )
    if not splits:
        raise DataError(f"{path} has no row with a label: {'; '.join(report.lines)}")
    found = Found(
        with_made_splits(splits, classes=splits["train"].columns["label"] if "train" in splits else None), "padded_face", report
    )
    return dataset_of("fer2013", folder, found, reading.column or "label", sorted(EXPRESSIONS))


def _fields(line: bytes) -> list[str]:
    return [field.strip().strip('"') for field in line.decode("utf-8-sig", "replace").split(",")]


def _rows(path: Path, report: Report) -> tuple[list[Row], int]:
    rows = []
    with path.open("rb") as file:
        header = [name.lower() for name in _fields(file.readline())]
        if not {"emotion", "pixels"} <= set(header):
            raise DataError(f"{path} has the columns {', '.join(header)}; it should have emotion, pixels and Usage")
        emotion, usage = header.index("emotion"), header.index("usage") if "usage" in header else None
        offset = file.tell()
        for number, line in enumerate(file, 1):
            fields = _fields(line)
            if len(fields) == len(header):
                known = fields[emotion].isdigit() and int(fields[emotion]) < len(EXPRESSIONS)
                side = "Training" if usage is None else fields[usage]
                if not known or side not in USAGES:
                    raise DataError(f"{path.name}, row {number}: emotion {fields[emotion]!r} of Usage {side!r}")
                rows.append(Row(offset, USAGES[side], EXPRESSIONS[int(fields[emotion])]))
            elif line.strip():
                report.leave(f"row {number}", f"cells: {len(fields)}, in the header: {len(header)}")
            offset += len(line)
    if not rows:
        raise DataError(f"{path} has no rows below its header")
    return rows, header.index("pixels")


def _voted(rows: list[Row], path: Path, report: Report) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        votes = [{(name or "").strip(): value for name, value in vote.items()} for vote in csv.DictReader(file)]
    if len(votes) != len(rows):
        raise DataError(f"{path.name} has {len(votes)} rows and {TABLE} {len(rows)}: they must be the same rows")
    try:
        chosen = [majority({name: int(float(vote[column])) for column, name in VOTED.items()}) for vote in votes]
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path.name} should have the counts {', '.join(VOTED)} in each row ({error})") from error
    counts = Counter(name for name in chosen if name not in EXPRESSIONS)
    if counts:
        report.say(f"FER+: left out {', '.join(f'{count} {name}' for name, count in sorted(counts.items()))}")
    kept = (name if name in EXPRESSIONS else "" for name in chosen)
    return [Row(row.offset, row.split, name) for row, name in zip(rows, kept, strict=True)]


def majority(votes: dict[str, int]) -> str:
    """The name that more than half of the votes are for, single votes struck; "no majority" where there is none."""
    counted = {name: count for name, count in votes.items() if count > 1}
    if not counted:
        return NO_MAJORITY
    best = max(counted, key=lambda name: counted[name])
    return best if counted[best] > sum(counted.values()) / 2 else NO_MAJORITY


FORMAT = Format(
    name="fer2013",
    title="FER2013 (Goodfellow et al. 2013), with FER+ labels (Barsoum et al. 2016) where they lie beside it",
    documented="the contest's data page; for FER+ the README and src/ferplus.py of https://github.com/microsoft/FERPlus",
    home="https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
    terms="FER+ votes MIT; images gathered from the web, research use",
    matches=lambda folder: _table(folder) is not None,
    read=_read,
)
