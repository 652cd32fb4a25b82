"""All that is wrong with a data set, found before training starts, and told at once."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from lora_lab.cache import cache_folder, whole_file
from lora_lab.data.dataset import Dataset, Split
from lora_lab.data.labels import class_numbers, label_faults, task_column
from lora_lab.data.report import listed, tell_once
from lora_lab.errors import DataError
from lora_lab.photos import read_safely
from lora_lab.pixels import orientation
from lora_lab.tasks import TASKS, Task

VERSION = 3
NEEDED = ("train", "val")
ORDER = ("train", "val", "test")
LEAST = 2
# JPEG files are decoded at the smallest scale that keeps this many pixels a side: all of the file is read all the same.
GLANCE_SIDE = 128
# How far beyond the image points may lie, in shares of its longer side.
FAR = 0.5
TURNED = (5, 6, 7, 8)


@dataclass(frozen=True)
class Faults:
    """What is wrong: a line for each kind of fault, the rows of each split to leave out, and the lines that this does not cure.

    `notes` say what is allowed and yet worth knowing.
    """

    lines: tuple[str, ...]
    rows: Mapping[str, frozenset[int]]
    incurable: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.lines)

    def left_out(self, task: Task) -> str:
        """What is told where these rows are left out."""
        cured = [line for line in self.lines if line not in self.incurable]
        count = sum(map(len, self.rows.values()))
        return "\n  ".join((f"{_images(count)} of {task.name} {'is' if count == 1 else 'are'} left out:", *cured))


@dataclass(frozen=True)
class Glance:
    """What one look at an image tells: width and height when upright, and a digest of its pixels."""

    size: tuple[int, int]
    digest: str


@dataclass(frozen=True)
class Fault:
    """One line, and the rows that cure it; none where leaving out rows does not help."""

    line: str
    rows: Mapping[str, frozenset[int]]


def find_faults(task: Task, dataset: Dataset) -> Faults:
    """Every fault that training would meet: images, labels, splits, leaks between splits and labels that contradict.

    Each image is read and decoded once; what was found is kept in the cache by the splits' stamps.
    """
    splits = {name: dataset.read(name) for name in dataset.splits}
    kept = cache_folder("faults") / f"{_key(task, dataset, splits)}.json"
    if kept.exists():
        note = json.loads(kept.read_text(encoding="utf-8"))
        rows = {s: frozenset(rows) for s, rows in note["rows"].items()}
        return Faults(tuple(note["lines"]), rows, tuple(note["incurable"]), tuple(note["notes"]))
    found = [*_of_columns(task, dataset, splits), *_of_labels(task, dataset, splits)]
    glances: dict[str, list[Glance | None]] = {name: _glances(split) for name, split in splits.items()}
    found += [fault for name, split in splits.items() for fault in _of_images(name, split, glances[name])]
    if task.kind == "points":
        found += [f for name, split in splits.items() for f in _of_places(task, dataset, name, split, glances[name])]
    found += [*_of_leaks(task, splits, glances), *_of_contradictions(task, dataset, splits, glances)]
    rows = _joined(fault.rows for fault in found)
    found += _of_splits(task, dataset, splits, rows)
    absent = absent_classes(task, dataset, splits)
    notes = [f"{dataset.folder.name} has no image of {listed(absent)}, so {task.name} does not learn it"] if absent else []
    incurable = tuple(fault.line for fault in found if not fault.rows)
    faults = Faults(tuple(fault.line for fault in found), rows, incurable, tuple(notes))
    with whole_file(kept) as part:
        note = {"lines": faults.lines, "rows": {s: sorted(r) for s, r in rows.items()}, "incurable": incurable}
        part.write_text(json.dumps(note | {"notes": faults.notes}), encoding="utf-8")
    return faults


def without_faults(task: Task, dataset: Dataset) -> Dataset:
    """The data set without its images with faults, which are told."""
    faults = find_faults(task, dataset)
    if not faults.rows:
        return dataset
    tell_once([faults.left_out(task)])
    return dataset.without(faults.rows)


def absent_classes(task: Task, dataset: Dataset, splits: Mapping[str, Split]) -> list[str]:
    """The classes of a task of the catalog that a data set has no image of in any split: it may lack some."""
    if task.name not in TASKS or task.kind != "classes":
        return []
    columns = [values for split in splits.values() if (values := _labels(task, dataset, split)) is not None]
    there = {number for values in columns for number in class_numbers(task, values).tolist()}
    absent = [label for number, label in enumerate(task.labels) if number not in there]
    return absent if len(absent) <= len(task.labels) - LEAST else []


def _key(task: Task, dataset: Dataset, splits: Mapping[str, Split]) -> str:
    asked = (task.name, task.kind, task.labels, task.bins, task.points, task.column, dataset.column, dict(dataset.mapped))
    stamps = [(name, split.stamp) for name, split in splits.items()]
    return hashlib.sha256(json.dumps((VERSION, asked, stamps)).encode()).hexdigest()[:16]


def _labels(task: Task, dataset: Dataset, split: Split) -> Sequence[Any] | None:
    return split.columns.get(task_column(task, dataset.column, split.columns))


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


def _of_columns(task: Task, dataset: Dataset, splits: Mapping[str, Split]) -> Iterator[Fault]:
    for name, split in splits.items():
        if _labels(task, dataset, split) is None:
            yield Fault(f"{name} has no column {task.column!r}; it has {', '.join(split.columns) or 'none'}", {})


def _of_labels(task: Task, dataset: Dataset, splits: Mapping[str, Split]) -> Iterator[Fault]:
    # All splits at once, so that each kind of fault is told once.
    places: list[tuple[str, int]] = []
    values: list[Any] = []
    for name, split in splits.items():
        labels = _labels(task, dataset, split)
        if labels is not None:
            places += [(name, row) for row in range(len(labels))]
            values += labels
    for fault in label_faults(task, values):
        rows: dict[str, set[int]] = defaultdict(set)
        for name, row in (places[at] for at in fault.rows):
            rows[name].add(row)
        names = listed([splits[name].names[row] for name, row in (places[at] for at in fault.rows)])
        yield Fault(f"{fault.line} in {_together(list(rows))}: {names}", {name: frozenset(some) for name, some in rows.items()})


def _together(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _glances(split: Split) -> list[Glance | None]:
    # Pillow decodes outside of Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda row: _glance_at(split, row), range(len(split))))


def _glance_at(split: Split, row: int) -> Glance | None:
    try:
        source = split.images[row]
        if isinstance(source, Image.Image):
            return Glance(source.size, _digest(source))
        return read_safely(source, _glance)
    except DataError:
        return None


def _glance(image: Image.Image) -> Glance:
    size = image.size
    turned = orientation(image) in TURNED
    image.draft(None, (GLANCE_SIDE, GLANCE_SIDE))
    return Glance((size[1], size[0]) if turned else size, _digest(image, size))


def _digest(image: Image.Image, size: tuple[int, int] | None = None) -> str:
    image.load()
    # Deep greys would be clipped by the conversion.
    pixels = image if image.mode.startswith("I") or image.mode == "F" else image.convert("RGBA")
    return hashlib.sha256(f"{size or image.size} {pixels.mode}".encode() + pixels.tobytes()).hexdigest()


def _of_images(name: str, split: Split, glances: Sequence[Glance | None]) -> Iterator[Fault]:
    rows = [row for row, glance in enumerate(glances) if glance is None]
    if rows:
        line = f"{_images(len(rows)).replace(' ', ' unreadable ')} in {name}: {listed([split.names[row] for row in rows])}"
        yield Fault(line, {name: frozenset(rows)})


def _of_places(task: Task, dataset: Dataset, name: str, split: Split, glances: Sequence[Glance | None]) -> Iterator[Fault]:
    values = _labels(task, dataset, split)
    if values is None:
        return
    bad = {row for fault in label_faults(task, values) for row in fault.rows}
    rows: list[int] = []
    for row, glance in enumerate(glances):
        if glance is None or row in bad:
            continue
        points, size = np.asarray(values[row], float).reshape(-1, 2), np.array(glance.size, float)
        if np.maximum(-points, points - size).max() > FAR * size.max():
            rows.append(row)
    if rows:
        line = f"points far outside of {_images(len(rows))} in {name}: {listed([split.names[r] for r in rows])}"
        yield Fault(line, {name: frozenset(rows)})


def _of_leaks(task: Task, splits: Mapping[str, Split], glances: Mapping[str, Sequence[Glance | None]]) -> Iterator[Fault]:
    # What is learned from must not be what is measured on: the row of the earlier split is left out.
    learned = (task.pretrain_split, *ORDER)
    order = sorted(splits, key=lambda name: learned.index(name) if name in learned else len(learned))
    for number, early in enumerate(order):
        for late in order[number + 1 :]:
            if early == task.pretrain_split and late == ORDER[0]:
                continue
            first_in_late: dict[str, int] = {}
            for row, glance in enumerate(glances[late]):
                if glance:
                    first_in_late.setdefault(glance.digest, row)
            rows = [row for row, glance in enumerate(glances[early]) if glance and glance.digest in first_in_late]
            if not rows:
                continue
            glance = glances[early][rows[0]]
            assert glance is not None
            other = splits[late].names[first_in_late[glance.digest]]
            line = f"{_images(len(rows))} of {early} in {late} as well: {splits[early].names[rows[0]]} is {other}"
            yield Fault(line + (f", and {len(rows) - 1} more" if len(rows) > 1 else ""), {early: frozenset(rows)})


def _of_contradictions(
    task: Task, dataset: Dataset, splits: Mapping[str, Split], glances: Mapping[str, Sequence[Glance | None]]
) -> Iterator[Fault]:
    if "train" not in splits:
        return
    values = _labels(task, dataset, splits["train"])
    if values is None:
        return
    wrong = {row for fault in label_faults(task, values) for row in fault.rows}
    if task.kind == "classes":
        values = class_numbers(task, values).tolist()
    same: dict[str, list[int]] = defaultdict(list)
    for row, glance in enumerate(glances["train"]):
        if glance and row not in wrong:
            same[glance.digest].append(row)
    groups = [rows for rows in same.values() if len({str(values[row]) for row in rows}) > 1]
    if groups:
        rows = frozenset(row for group in groups for row in group)
        first = " and ".join(splits["train"].names[row] for row in groups[0][:2])
        yield Fault(f"{len(rows)} images in train are the same with other labels, such as {first}", {"train": rows})


def _of_splits(
    task: Task, dataset: Dataset, splits: Mapping[str, Split], left_out: Mapping[str, frozenset[int]]
) -> Iterator[Fault]:
    # What would be left is what counts: leaving rows out may empty a class.
    absent = absent_classes(task, dataset, splits)
    if task.kind == "classes" and len(task.labels) < LEAST:
        yield Fault(f"there is one class, {listed(task.labels)}: there must be two or more", {})
    for name in NEEDED:
        if name not in splits:
            yield Fault(f"there is no split {name!r}; {dataset.folder} holds {', '.join(splits) or 'none'}", {})
            continue
        split = splits[name]
        rest = [row for row in range(len(split)) if row not in left_out.get(name, ())]
        if len(rest) < LEAST:
            yield Fault(f"{name} has {_images(len(rest))} that will do; it needs {LEAST} or more", {})
        values = _labels(task, dataset, split)
        if task.kind == "classes" and values is not None:
            there = set(class_numbers(task, [values[row] for row in rest]).tolist())
            empty = [label for number, label in enumerate(task.labels) if number not in there and label not in absent]
            if empty:
                yield Fault(f"{name} has no image of {listed(empty)}; add some, or leave the class out everywhere", {})


def _joined(rows_of_faults: Iterator[Mapping[str, frozenset[int]]]) -> dict[str, frozenset[int]]:
    joined: dict[str, frozenset[int]] = {}
    for rows in rows_of_faults:
        for name, some in rows.items():
            joined[name] = joined.get(name, frozenset()) | some
    return joined
