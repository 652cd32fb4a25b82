"""What a layout on disk is: how it is told from others, read, and where it is documented."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lora_lab.data.dataset import Dataset, Split, reader_of
from lora_lab.data.labels import LabelKind, kind_of, label_column
from lora_lab.data.reading import Reading
from lora_lab.data.report import Report
from lora_lab.tasks.base import Stored


@dataclass(frozen=True)
class Format:
    """A layout: `matches` looks at a folder and reads little; `read` takes the folder and what is said of it.

    `documented` says where the layout is described, `home` where such data can be had, `terms` on which terms. `own` is
    true of the layouts for anybody's own data, whose columns may have any names.
    """

    name: str
    title: str
    documented: str
    home: str
    terms: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, Reading], Dataset]
    own: bool = False


@dataclass(frozen=True)
class Found:
    """What a reader got out of a folder: its splits, how its images lie, and what was not used."""

    splits: Mapping[str, Split]
    stored: Stored | None = None
    report: Report = field(default_factory=Report)


def dataset_of(layout: str, folder: Path, found: Found, column: str, labels: Sequence[str] | None = None) -> Dataset:
    """The data set of what was found. `labels` are the class names in order, or None to tell the kind by the values."""
    train = found.splits.get("train") or next(iter(found.splits.values()))
    column = label_column(list(train.columns), column, str(folder))
    kind = LabelKind("classes", tuple(labels)) if labels else kind_of(train.columns[column], f"column {column!r} of {folder}")
    return Dataset(
        folder=folder,
        format=layout,
        splits=tuple(found.splits),
        read=reader_of(folder, found.splits),
        kind=kind.kind,
        column=column,
        labels=kind.labels,
        points=kind.points,
        stored=found.stored,
        notes=found.report.lines,
    )
