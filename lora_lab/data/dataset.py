"""Images with labels, as a layout's reader gives them: splits whose images are read one by one, and what is known of all."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lora_lab.errors import NotFoundError
from lora_lab.tasks.base import Kind, Stored


@dataclass(frozen=True)
class Split:
    """n images and their label columns.

    `images` holds encoded files as bytes, or upright RGB Pillow images; an item is read when it is asked for, and raises
    `DataError` where that fails. `names` says what an image is called in a message. `stamp` is a JSON list that changes
    when the files change; caches go by it.
    """

    images: Sequence[Any]
    names: Sequence[str]
    columns: Mapping[str, Sequence[Any]]
    stamp: str

    def __len__(self) -> int:
        return len(self.names)

    def part(self, rows: Sequence[int]) -> "Split":
        """Some of the images, in this order."""
        rows = [int(row) for row in rows]
        if rows == list(range(len(self))):
            return self
        columns = {name: [column[row] for row in rows] for name, column in self.columns.items()}
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
        stamp = json.dumps([*json.loads(self.stamp), digest])
        return Split(Picked(self.images, rows), [self.names[row] for row in rows], columns, stamp)


@dataclass(frozen=True)
class Dataset:
    """What a folder holds, as a reader of its layout understands it.

    `column` is the one with the labels and `kind` says what they are. For classes `labels` are their names in order, and
    the column holds such names, or numbers whose digits are such names. `points` is how many x, y pairs an image has.
    `stored` says how the images lie (see `Task`), None as the task says. `notes` are lines about what a reader left out and how
    it understood the rest. `mapped` says which labels were read as which classes (None: left out) by which table, where these
    are not called so.
    """

    folder: Path
    format: str
    splits: tuple[str, ...]
    read: Callable[[str], Split]
    kind: Kind
    column: str
    labels: tuple[str, ...] = ()
    points: int = 0
    stored: Stored | None = None
    notes: tuple[str, ...] = ()
    mapped: Mapping[str, Any] = field(default_factory=dict)

    def without(self, rows: Mapping[str, Collection[int]]) -> "Dataset":
        """The same without some rows of some splits."""
        read = self.read

        def read_rest(split: str) -> Split:
            whole = read(split)
            left_out = set(rows.get(split, ()))
            return whole.part([row for row in range(len(whole)) if row not in left_out])

        return replace(self, read=read_rest)


class Picked(Sequence[Any]):
    """Some items of a sequence, which is asked for them only when they are read."""

    def __init__(self, items: Sequence[Any], rows: Sequence[int]):
        self._items, self._rows = items, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Picked(self._items, self._rows[index])
        return self._items[self._rows[index]]


def reader_of(folder: Path, splits: Mapping[str, Split]) -> Callable[[str], Split]:
    """A `Dataset.read` from splits that are there already."""

    def read(split: str) -> Split:
        if split not in splits:
            raise no_split(folder, split, splits)
        return splits[split]

    return read


def no_split(folder: Path, split: str, there: Collection[str]) -> NotFoundError:
    """The error for a split that is not there."""
    hint = f"it holds {', '.join(there)}" if there else "it holds no split"
    return NotFoundError(f"no split {split!r} in {folder}: {hint}; name another with --data or --split")
