"""The one way from a folder to a task's data: for training, for measuring, for merges that look at images, for a few shots."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_lab.data.dataset import Dataset, Split
from lora_lab.data.formats import open_dataset
from lora_lab.data.labels import class_name, class_numbers, is_missing, plain
from lora_lab.data.reading import FOUND_OUT, Reading
from lora_lab.data.report import listed
from lora_lab.data.schemes import LabelTable, is_about, is_number, label_table, suggestion
from lora_lab.data.texts import typed
from lora_lab.errors import DataError, LoraLabError, NotFoundError
from lora_lab.tasks import TASKS, Task


def task_folder(task: Task, data: Path) -> Path:
    """The folder of a task's data: the one of its name in `data`, or `data` itself."""
    return data / task.folder if (data / task.folder).is_dir() else data


def task_dataset(task: Task, data: Path | Dataset, reading: Reading = FOUND_OUT) -> Dataset:
    """The data set of a task: in the folder of its name in `data`, or in `data` itself, labels as the task's classes.

    Raises `NotFoundError` and `DataError`.
    """
    if isinstance(data, Dataset):
        return data
    folder = task_folder(task, data)
    column = reading.column or (task.column if task.name in TASKS else None)
    dataset = open_dataset(folder, reading.layout, column, reading.image_column)
    return in_words_of(task, dataset, reading.labels)


def open_own(data: Path, reading: Reading = FOUND_OUT) -> Dataset:
    """A data set of one's own, its classes called as `reading.labels` says. Raises `NotFoundError` and `DataError`."""
    dataset = open_dataset(data, reading.layout, reading.column, reading.image_column)
    return renamed(dataset, reading.labels) if reading.labels else dataset


def find_dataset(task: Task, data: Path | Dataset, reading: Reading = FOUND_OUT) -> Dataset | None:
    """The data set of a task, or None where `data` holds another's; what is in a folder of the task's name must be its own.

    Raises `DataError` for what is broken in such a folder.
    """
    if isinstance(data, Dataset):
        return data
    about = is_about(task, reading.labels)
    if is_named_for(task, data):
        try:
            return task_dataset(task, data, reading if about else replace(reading, labels=None))
        except NotFoundError:
            return None
    if not about or ((task.kind == "number" or task.bins) and _is_of_another(task, data)):
        return None
    try:
        dataset = task_dataset(task, data, reading)
        return dataset if fits(task, dataset) else None
    except LoraLabError:
        if reading != FOUND_OUT:
            raise
        return None


def is_named_for(task: Task, data: Path) -> bool:
    """Whether a folder has the name of a task's data, or holds one that has."""
    return task_folder(task, data).name == task.folder


def _is_of_another(task: Task, data: Path) -> bool:
    # Any numbers would do as ages, those of emotions too.
    return any(other.folder == data.resolve().name != task.folder for other in TASKS.values())


def has_split(task: Task, data: Path | Dataset, split: str, reading: Reading = FOUND_OUT) -> bool:
    """Whether `data` holds a task's split."""
    dataset = find_dataset(task, data, reading) if not isinstance(data, Path) or data.is_dir() else None
    return dataset is not None and split in dataset.splits


def fits(task: Task, dataset: Dataset) -> bool:
    """Whether the labels of a data set are such as a task asks for, told by its first split."""
    if task.kind == "points" or dataset.kind == "points":
        return (task.kind, task.points) == (dataset.kind, dataset.points)
    values = _first(dataset)
    there = [value for value in values if not is_missing(value)]
    if task.kind == "classes" and not task.bins:
        return dataset.kind == "classes" and bool((class_numbers(task, there) >= 0).all())
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in there)


def in_words_of(task: Task, dataset: Dataset, asked: str | None = None) -> Dataset:
    """The data set with its labels as a task's classes, by the task's names, by synonyms, or by the table that is asked for.

    What was read as what stands in `mapped` and is told in `notes`; labels that stay unknown are for `find_faults` to tell.
    Raises `DataError` for numbers where the task has names and no table is asked for.
    """
    if task.kind == "number" or task.bins:
        return _with_numbers(dataset)
    if task.kind != "classes":
        return dataset
    labels = _labels_of(dataset)
    table = label_table(task, asked)
    own = set(task.labels)
    bare = sorted(label for label in labels if is_number(label) and label not in own and table(label) == label)
    if bare and asked is None:
        shown = listed(bare, 4)
        raise DataError(
            f"{dataset.folder.name} labels its images {shown}: numbers, which name no {task.name}; {suggestion(task, bare)}"
        )
    said = {label: table(label) for label in labels}
    changed = {label: word for label, word in said.items() if word is None or plain(label) != plain(word)}
    if not changed and asked is None:
        return dataset
    return _mapped(task, dataset, table, changed)


def renamed(dataset: Dataset, asked: str) -> Dataset:
    """A data set of one's own with its classes called as the pairs or the scheme that are asked for say."""
    if dataset.kind != "classes":
        raise DataError(f"--labels is for classes, and {dataset.folder.name} holds {dataset.kind}s: leave it out")
    labels = _labels_of(dataset)
    task = replace(TASKS["emotion"], name=dataset.folder.name, labels=tuple(labels), column=dataset.column)
    table = label_table(task, asked, closed=False)
    said = {label: table(label) for label in labels}
    changed = {label: word for label, word in said.items() if word != label}
    mapped = _mapped(task, dataset, table, changed)
    return replace(mapped, labels=tuple(sorted({word for word in said.values() if word is not None})))


def _mapped(task: Task, dataset: Dataset, table: LabelTable, changed: Mapping[str, str | None]) -> Dataset:
    out = {label for label, word in changed.items() if word is None}
    read, column = dataset.read, dataset.column

    def read_mapped(name: str) -> Split:
        split = read(name)
        at = task.column if task.column in split.columns else column
        if at not in split.columns:
            return split
        values = [value if is_missing(value) else table(class_name(value)) for value in split.columns[at]]
        kept = [row for row, value in enumerate(split.columns[at]) if is_missing(value) or values[row] is not None]
        return replace(split, columns={**split.columns, at: values}).part(kept)

    notes = list(dataset.notes)
    renames = [f"{label} → {word}" for label, word in changed.items() if word is not None]
    if renames:
        notes.append(f"labels were read as classes of {task.name} by {table.source}: {listed(renames, 12)}")
    if out:
        counts = Counter(class_name(value) for name in dataset.splits for value in _column(read(name), task, column))
        left = [f"{counts[label]} {label}" for label in sorted(out)]
        notes.append(f"images that {task.name} has no class for were left out: {listed(left, 12)}")
    mapped = {"source": table.source, "labels": dict(changed)}
    labels = task.labels if task.name in TASKS else dataset.labels
    return replace(dataset, kind="classes", labels=labels, read=read_mapped, notes=tuple(notes), mapped=mapped)


def _with_numbers(dataset: Dataset) -> Dataset:
    # Ages that are names of folders are numbers all the same.
    read, column = dataset.read, dataset.column

    def read_typed(name: str) -> Split:
        split = read(name)
        if column not in split.columns:
            return split
        return replace(split, columns={**split.columns, column: _numbers(split.columns[column])})

    return replace(dataset, read=read_typed)


def _numbers(values: Sequence[Any]) -> Sequence[Any]:
    found = typed(values)
    return (
        [int(v) if isinstance(v, str) and v.isdigit() else v for v in found]
        if any(isinstance(v, str) for v in values)
        else values
    )


def _labels_of(dataset: Dataset) -> list[str]:
    if dataset.labels:
        return list(dataset.labels)
    return sorted({class_name(value) for value in _first(dataset) if not is_missing(value)})


def _first(dataset: Dataset) -> Sequence[Any]:
    split = dataset.read(dataset.splits[0])
    return split.columns.get(dataset.column, ())


def _column(split: Split, task: Task, column: str) -> Sequence[Any]:
    return split.columns.get(task.column if task.column in split.columns else column, ())
