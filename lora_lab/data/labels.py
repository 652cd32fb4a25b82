"""Label columns: which one it is, what its values are, and how they become a task's targets."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_lab.errors import DataError
from lora_lab.tasks.base import Kind, Task

MOST_CLASSES = 50
"""Whole numbers that are classes; more are a number."""
MOST_NAMES = 1000
LONGEST_LABEL = 100
FILLERS = ("or", "and")


@dataclass(frozen=True)
class LabelKind:
    """What the values of a column are, with the names of the classes in order, or the number of points."""

    kind: Kind
    labels: tuple[str, ...] = ()
    points: int = 0


@dataclass(frozen=True)
class LabelFault:
    """Rows whose labels will not do, and what is wrong, as said of one and of many."""

    rows: tuple[int, ...]
    one: str
    many: str

    @property
    def line(self) -> str:
        """How many labels there are of which fault."""
        return f"{len(self.rows)} {self.one if len(self.rows) == 1 else self.many}"


def label_column(columns: Sequence[str], wanted: str | None, where: str) -> str:
    """The column with the labels: the wanted one, else `label`, else the only one. Raises `DataError`."""
    if wanted is not None:
        if wanted not in columns:
            has = ", ".join(columns) or "none"
            raise DataError(f"{where} has no column {wanted!r}; it has {has}: name that of the labels with --column")
        return wanted
    usual = [name for name in columns if name.lower() == "label"]
    if usual:
        return "label" if "label" in usual else usual[0]
    if len(columns) == 1:
        return columns[0]
    if not columns:
        raise DataError(f"{where} has no labels: put each image in a folder of its class's name, or add metadata.csv")
    raise DataError(f"{where} has no column 'label'; say which of {', '.join(columns)} holds the labels with --column")


def kind_of(values: Sequence[Any], where: str) -> LabelKind:
    """What values are, by their types: names and few dense whole numbers are classes, lists are points. Raises `DataError`."""
    there = [value for value in values if not is_missing(value)]
    if not there:
        raise DataError(f"{where} holds no value")
    first = there[0]
    if isinstance(first, (list, tuple, np.ndarray)):
        length = Counter(len(_point_values(value) or ()) for value in there).most_common(1)[0][0]
        if length % 2 or not length:
            raise DataError(f"{where} holds lists of {length} numbers; points need x, y, x, y, …: an even count")
        return LabelKind("points", points=length // 2)
    if isinstance(first, (str, bool, np.bool_)):
        return LabelKind("classes", labels=_names(there, where))
    if not isinstance(first, (int, float, np.number)):
        raise DataError(f"{where} holds {type(first).__name__} values; labels are names, numbers or lists of x, y, x, y, …")
    whole = sorted(set(there))
    # A table with gaps turns whole numbers into fractions.
    gaps = len(there) < len(values)
    if all(float(value).is_integer() and (gaps or not isinstance(value, float)) for value in whole):
        dense = len(whole) >= 2 and whole[-1] - whole[0] + 1 == len(whole)
        if dense and len(whole) <= MOST_CLASSES:
            return LabelKind("classes", labels=tuple(class_name(value) for value in whole))
    return LabelKind("number")


def _names(values: Sequence[Any], where: str) -> tuple[str, ...]:
    names = sorted({class_name(value) for value in values})
    if len(names) > MOST_NAMES:
        raise DataError(f"{where} holds {len(names)} different names, over {MOST_NAMES}: name the labels' column with --column")
    long = [name for name in names if len(name) > LONGEST_LABEL]
    if long:
        raise DataError(f"{where} holds a label of {len(long[0])} characters, over {LONGEST_LABEL}: {long[0]}")
    return tuple(names)


def class_name(value: Any) -> str:
    """The name of a class from a value of its column: text as it is, a number's digits, true and false."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def plain(name: str) -> str:
    """A name without what does not matter when names are compared: case, "_", "-", spaces and the word between two."""
    return "".join(word for word in re.split(r"[\s_\-]+", name.lower()) if word not in FILLERS)


def is_missing(value: Any) -> bool:
    """Whether a label is not there."""
    return value is None or (isinstance(value, (float, np.floating)) and bool(np.isnan(value))) or value == ""


def class_numbers(task: Task, values: Sequence[Any]) -> np.ndarray:
    """The class of each of n values by its name or by the task's bins, (n,); −1 where it has none.

    A number is a class where the classes are called so, and never the place of one in their order.
    """
    exact = {label: number for number, label in enumerate(task.labels)}
    known = {plain(label): number for label, number in exact.items()}
    numbers = np.full(len(values), -1)
    for row, value in enumerate(values):
        if is_missing(value):
            continue
        is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if task.bins:
            numbers[row] = np.searchsorted(task.bins, value, side="right") - 1 if is_number else -1
        else:
            name = class_name(value)
            numbers[row] = exact[name] if name in exact else known.get(plain(name), -1)
    return numbers


def label_faults(task: Task, values: Sequence[Any]) -> Iterator[LabelFault]:
    """All that is wrong with the labels of n images, each kind of fault once."""
    missing = {row for row, value in enumerate(values) if _is_absent(value)}
    if missing:
        yield LabelFault(tuple(sorted(missing)), "missing label", "missing labels")
    rest = [row for row in range(len(values)) if row not in missing]
    if task.kind == "classes":
        numbers = class_numbers(task, values)
        wrong = [row for row in rest if numbers[row] < 0]
        if wrong:
            names = sorted({class_name(values[row]) for row in wrong})
            shown = ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            unknown = f"that {task.name} does not know ({shown}; known: {', '.join(task.labels)})"
            yield LabelFault(tuple(wrong), f"label {unknown}", f"labels {unknown}")
    elif task.kind == "number":
        wrong = [row for row in rest if not _is_finite(values[row])]
        if wrong:
            yield LabelFault(tuple(wrong), "label that is no finite number", "labels that are no finite numbers")
    else:
        form = f"{task.points} points of x, y"
        lengths = {row: _point_values(values[row]) for row in rest}
        wrong = [row for row, flat in lengths.items() if flat is None or len(flat) != 2 * task.points]
        if wrong:
            yield LabelFault(tuple(wrong), f"label that is not {form}", f"labels that are not {form}")
        bad = set(wrong)
        unclear = [row for row, flat in lengths.items() if row not in bad and not np.isfinite(np.asarray(flat)).all()]
        if unclear:
            yield LabelFault(
                tuple(unclear), "label with points that are no finite numbers", "labels with points that are no finite numbers"
            )


def task_column(task: Task, column: str, columns: Mapping[str, Sequence[Any]]) -> str:
    """The column that a task's targets are in: its own where that is there, else the data set's `column`."""
    return task.column if task.column in columns else column


def targets_of(task: Task, column: str, columns: Mapping[str, Sequence[Any]]) -> np.ndarray:
    """A task's targets from label columns, as `Task.targets` gives them, classes by name. Raises `DataError`."""
    column = task_column(task, column, columns)
    if column not in columns:
        raise DataError(f"the data for {task.name} has no column {task.column!r}; it has {', '.join(columns)}")
    values = columns[column]
    faults = [fault.line for fault in label_faults(task, values)]
    if faults:
        raise DataError(f"{task.name}: " + "; ".join(faults))
    if task.kind == "classes":
        return class_numbers(task, values).astype(np.int64)
    if task.kind == "points":
        values = [_point_values(value) for value in values]
    return task.targets({task.column: values})


def _is_absent(value: Any) -> bool:
    return len(value) == 0 if isinstance(value, (list, tuple, np.ndarray)) else is_missing(value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _point_values(value: Any) -> list[float] | None:
    # x, y, x, y, … or pairs of x, y.
    if not isinstance(value, (list, tuple, np.ndarray)):
        return None
    flat: list[Any] = []
    for item in value:
        flat.extend(item if isinstance(item, (list, tuple, np.ndarray)) else [item])
    if not all(isinstance(item, (int, float, np.number)) for item in flat):
        return None
    return [float(item) for item in flat]
