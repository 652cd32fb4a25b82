"""Tables with pictures in their cells: which column holds them, what a cell may be, and the labels beside them.

A cell is an encoded file: bytes, {bytes, path}, or the path of a file as seen from the table; or whole numbers 0–255 as rows
of pixels. The names of classes come from what the `datasets` library leaves beside the table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from PIL import Image

from lora_lab.data.formats.picture_tables import URL
from lora_lab.errors import DataError

IMAGE_COLUMNS = ("image", "img", "pixel_values", "picture", "photo", "jpg", "png")


@dataclass(frozen=True)
class Group:
    """Some rows of a table: where it lies, how many rows, and how a column of theirs is read."""

    path: Path
    rows: int
    column: Callable[[str], list[Any]]


class TableImages(Sequence[Any]):
    """The pictures of tables, of which one group of rows is held at a time. Raises `DataError`."""

    def __init__(self, groups: Sequence[Group], column: str):
        self._groups, self._column = groups, column
        self._held: tuple[int, list[Any]] = (-1, [])

    def __len__(self) -> int:
        return sum(group.rows for group in self._groups)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = index + len(self) if index < 0 else index
        for number, group in enumerate(self._groups):
            if row < group.rows:
                return self._image(number, row)
            row -= group.rows
        raise IndexError(index)

    def _image(self, number: int, row: int) -> Any:
        held, cells = self._held
        group = self._groups[number]
        if held != number:
            cells = group.column(self._column)
            self._held = (number, cells)
        return picture_of(cells[row], group.path)


def picture_of(cell: Any, table: Path) -> bytes | Image.Image:
    """The picture of a cell: a file's bytes, or an image of its pixels. Raises `DataError`."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, str):
        return _file_of(cell, table)
    if isinstance(cell, list):
        return _pixels_of(cell, table)
    raise DataError(f"an image of {table.name} has no bytes; write the table with the images in it")


def _file_of(name: str, table: Path) -> bytes:
    if URL.match(name):
        raise DataError(f"{table.name} names addresses, such as {name[:60]}: fetch the pictures first, and write them into it")
    for folder in (table.parent, table.parent.parent):
        try:
            return (folder / name).read_bytes()
        except (OSError, ValueError):
            continue
    raise DataError(f"{name} is not there, seen from {table.name}: write the table with the images in it")


def _pixels_of(cell: list[Any], table: Path) -> Image.Image:
    try:
        values = np.asarray(cell)
    except ValueError:
        values = np.zeros(0)
    whole = values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() <= 255
    if whole and (values.ndim == 2 or (values.ndim == 3 and values.shape[-1] in (1, 3))):
        return Image.fromarray(
            np.squeeze(values).astype(np.uint8) if values.shape[-1] == 1 else values.astype(np.uint8)
        ).convert("RGB")
    raise DataError(
        f"an image of {table.name} is no file and no whole numbers 0–255 of H × W or H × W × 3: write encoded files"
    )


def image_column(schema: pyarrow.Schema, features: Mapping[str, Any], wanted: str | None, path: Path) -> str:
    """The column with the pictures: the wanted one, one of a usual name, or the only one that can be. Raises `DataError`."""
    names = list(dict.fromkeys(schema.names))
    if len(names) < len(schema.names):
        raise DataError(f"{path} has columns of one name: {', '.join(schema.names)}; give each its own")
    has = ", ".join(names) or "none"
    if wanted:
        if wanted not in names:
            raise DataError(f"{path} has no column {wanted!r}; it has {has}")
        return wanted
    usual = [name for name in IMAGE_COLUMNS if name in names]
    if usual:
        return usual[0]
    able = [name for name in names if _is_picture(schema.field(name).type, features.get(name))]
    if len(able) == 1:
        return able[0]
    raise DataError(f"{path} has no column 'image'; it has {has}: say which holds the pictures with --image-column")


def _is_picture(kind: pyarrow.DataType, feature: Any) -> bool:
    if isinstance(feature, dict) and feature.get("_type") == "Image":
        return True
    is_struct = pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return is_struct or pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def class_names(features: Mapping[str, Any], column: str) -> list[str] | None:
    """The names of a column's classes by number, where the table's features tell them."""
    feature = features.get(column)
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    return [str(name) for name in names] if isinstance(names, list) else None


def named(values: list[Any], names: list[str] | None) -> list[Any]:
    """Classes by name instead of by number; −1 stands for no label."""
    if names is None:
        return values
    return [
        v if isinstance(v, str) else None if v in (None, -1) else names[v] if 0 <= v < len(names) else str(v) for v in values
    ]


def row_names(table: pyarrow.Table, column: str, first: int) -> list[str]:
    """What the rows are called in messages, from `first` on: with the file's name where the table has it."""
    kind = table[column].type if column in table.column_names else None
    has = kind is not None and pyarrow.types.is_struct(kind) and kind.get_field_index("path") >= 0
    given = [cell and cell["path"] for cell in table[column].to_pylist()] if has else [None] * table.num_rows
    return [f"row {first + row} ({name})" if name else f"row {first + row}" for row, name in enumerate(given)]
