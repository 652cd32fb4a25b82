"""A task for data that is no task of the catalog: what is asked follows from the labels."""

import re
from dataclasses import replace

import numpy as np

from lora_lab.data.dataset import Dataset
from lora_lab.data.formats import FORMATS
from lora_lab.data.formats.parquet import FORMAT as TABLES
from lora_lab.data.labels import label_faults
from lora_lab.errors import DataError, LoraLabError
from lora_lab.names import is_name
from lora_lab.tasks import TASKS, Task
from lora_lab.tasks.base import Framing, Stored

METRICS = {"classes": ("macro_f1", "accuracy"), "number": ("rmse", "mae"), "points": ("nme",)}
FACES: tuple[Stored, ...] = ("face", "framed", "padded_face")


def own_task(name: str, dataset: Dataset, framing: Framing = "square") -> Task:
    """A task of this name for a data set of one's own.

    `framing` says what is looked at: the faces of a photo, or its centre square; data of a layout that holds faces is
    framed as faces whatever it says. A number is brought near 0 ± 1 by the mean and standard deviation of `train`. Raises
    `LoraLabError` for a name that is taken or is none, and `DataError` where a number's `train` has no finite label.
    """
    check_own_name(name)
    source, licence = origin_of(dataset)
    stored: Stored = dataset.stored or ("face" if framing == "face" else "square")
    task = Task(
        name=name,
        title=own_title(name),
        kind=dataset.kind,
        metrics=METRICS[dataset.kind],
        framing="face" if stored in FACES else framing,
        stored=stored,
        folder=name,
        column=dataset.column,
        source=source,
        licence=licence,
        version="1",
        labels=dataset.labels,
        points=dataset.points,
    )
    return _scaled(task, dataset) if task.kind == "number" else task


def origin_of(dataset: Dataset, task: Task | None = None) -> tuple[str, str]:
    """What data is and its terms, for a card: by its layout where that is of a known data set, else its folder's name.

    What a task of the catalog says of its own data holds only for tables as they are converted for it, with its own labels:
    they lie in a folder of its name, a file a split.
    """
    layout = FORMATS[dataset.format]
    converted = dataset.format == TABLES.name and all(
        (dataset.folder / f"{split}.parquet").is_file() for split in dataset.splits
    )
    if task and (task.name not in TASKS or (converted and not dataset.mapped and dataset.folder.name == task.folder)):
        return task.source, task.licence
    if layout.own:
        return f"own data: {dataset.folder.resolve().name}", "not stated"
    return layout.title, layout.terms


def own_title(name: str) -> str:
    """The name of a task of one's own as people are shown it."""
    return name.replace("_", " ").capitalize()


def check_own_name(name: str) -> None:
    """Raises `LoraLabError` for a name that no task of one's own can have."""
    if not (re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) and is_name(name)):
        raise LoraLabError(
            f"{name!r} cannot name a task: take small letters, digits and _, a letter first, 40 at most, such as 'flowers'"
        )
    if name in TASKS:
        raise LoraLabError(f"{name!r} is a task of the catalog; give your own another name, such as 'my_{name}'")


def _scaled(task: Task, dataset: Dataset) -> Task:
    values = dataset.read("train").columns[task.column]
    wrong = {row for fault in label_faults(task, values) for row in fault.rows}
    numbers = np.array([value for row, value in enumerate(values) if row not in wrong], float)
    if not len(numbers):
        raise DataError(f"column {task.column!r} of {dataset.folder} holds no finite number in train")
    spread = float(numbers.std())
    return replace(task, offset=float(numbers.mean()), scale=spread if spread > 0 else 1.0)
