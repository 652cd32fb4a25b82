"""A new task's few labelled images, and the images that are held out to score what was learned from them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lora_lab.data import (
    FOUND_OUT,
    Crops,
    Dataset,
    Reading,
    load_crops,
    open_own,
    own_task,
    task_dataset,
    tell_once,
    without_faults,
)
from lora_lab.errors import DataError, LoraLabError
from lora_lab.tasks import TASKS, Task
from lora_lab.tasks.base import Framing

BINS = 6
ENOUGH = 100
"""Where val has fewer images than this, training images that were not drawn are held out as well."""
MOST = 500


@dataclass(frozen=True, eq=False)
class NewTask:
    """A task with the images that may be learned from and those that score it; `shots` a class, all where it is none."""

    task: Task
    crops: Crops
    held_out: Crops
    shots: int | None


def drawn_rows(task: Task, targets: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """The rows of `shots` images of each class, in rising order; all of a class that has fewer.

    A number's range is cut into 6 equal parts, each of which counts as a class; of points 6 times `shots` images are taken.
    With the same seed fewer shots are a part of more.
    """
    classes = _classes(task, targets)
    rows = []
    for number, label in enumerate(np.unique(classes)):
        own = np.flatnonzero(classes == label)
        count = shots if task.kind != "points" else shots * BINS
        rows.append(np.random.default_rng((seed, number)).permutation(own)[:count])
    return np.sort(np.concatenate(rows))


def _classes(task: Task, targets: np.ndarray) -> np.ndarray:
    if task.kind == "classes":
        return targets
    if task.kind == "points":
        return np.zeros(len(targets), np.int64)
    edges = np.linspace(targets.min(), targets.max(), BINS + 1)[1:-1]
    return np.digitize(targets, edges)


def few_shot(task: Task, train: Crops, val: Crops, shots: int | None, seed: int) -> NewTask:
    """Draw the images to learn from, and hold out others. Raises `LoraLabError` and `DataError`."""
    if shots is not None and shots < 1:
        raise LoraLabError(f"{shots} images a class are none: take 1 or more")
    if shots is None:
        return NewTask(task, train, _limited(val), None)
    rows = drawn_rows(task, train.targets, shots, seed)
    if task.kind == "classes" and len(np.unique(train.targets[rows])) < 2:
        raise DataError(f"the data for {task.name} holds images of one class: there must be two or more")
    held_out = val
    if len(val) < ENOUGH:
        held_out = _joined(val, train.part(np.setdiff1d(np.arange(len(train)), rows)))
    if not len(held_out):
        raise DataError(f"no image of {task.name} is left to score by: give more than {shots} images a class")
    return NewTask(task, train.part(rows), _limited(held_out), shots)


def open_new_task(  # noqa: PLR0913 (what makes a task out of a folder)
    name: str,
    data: Path,
    size: int,
    shots: int | None,
    seed: int,
    framing: Framing = "square",
    reading: Reading = FOUND_OUT,
) -> NewTask:
    """The new task of a folder: one of the catalog by its name, any other as its labels say.

    `size` is the backbone's input in pixels. Raises `LoraLabError` and its children.
    """
    task, dataset = _source(name, data, framing, reading)
    tell_once(dataset.notes)
    if reading.skip_faulty:
        dataset = without_faults(task, dataset)
    return few_shot(task, load_crops(task, dataset, "train", size), load_crops(task, dataset, "val", size), shots, seed)


def _source(name: str, data: Path, framing: Framing, reading: Reading) -> tuple[Task, Dataset]:
    if name in TASKS:
        return TASKS[name], task_dataset(TASKS[name], data, reading)
    dataset = open_own(data, reading)
    return own_task(name, dataset, framing), dataset


def _limited(crops: Crops) -> Crops:
    if len(crops) <= MOST:
        return crops
    return crops.part(np.sort(np.random.default_rng(0).permutation(len(crops))[:MOST]))


def _joined(one: Crops, two: Crops) -> Crops:
    def both(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
        return None if first is None or second is None else np.concatenate([first, second])

    return Crops(
        np.concatenate([one.pixels, two.pixels]),
        np.concatenate([one.targets, two.targets]),
        both(one.normaliser, two.normaliser),
        both(one.detected, two.detected),
    )
