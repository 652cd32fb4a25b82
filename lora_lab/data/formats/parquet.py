"""Tables as the Hugging Face `datasets` library writes them: a parquet file a split, or several, with a column `image`.

`image` holds encoded files, as {bytes, path} or as bytes. Files are named after their split, shards with their number
behind (train-00000-of-00004.parquet), in the folder or in its folder `data`. Class names come from the metadata that the
library leaves in the file; it is read as the JSON that it is, since the library takes seconds to load.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from lora_lab.data.dataset import Dataset, Split, no_split
from lora_lab.data.formats.base import Format
from lora_lab.data.formats.names import split_name
from lora_lab.data.labels import LabelKind, kind_of, label_column
from lora_lab.data.splitting import made_names, with_made_splits
from lora_lab.errors import DataError

# A table of file names beside images, which is no split.
TABLE = "metadata"
SHARD = re.compile(r"-\d{5}-of-\d{5}$")


class TableImages(Sequence[Any]):
    """The encoded images of parquet files, of which one row group is held at a time. Raises `DataError`."""

    def __init__(self, paths: Sequence[Path]):
        self._groups = [
            (path, group, pyarrow.parquet.ParquetFile(path).metadata.row_group(group).num_rows)
            for path in paths
            for group in range(pyarrow.parquet.ParquetFile(path).metadata.num_row_groups)
        ]
        self._held: tuple[int, list[Any]] = (-1, [])

    def __len__(self) -> int:
        return sum(rows for _, _, rows in self._groups)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = index + len(self) if index < 0 else index
        for number, (path, group, rows) in enumerate(self._groups):
            if row < rows:
                return self._image(number, path, group, row)
            row -= rows
        raise IndexError(index)

    def _image(self, number: int, path: Path, group: int, row: int) -> bytes:
        held, images = self._held
        if held != number:
            images = pyarrow.parquet.ParquetFile(path).read_row_group(group, columns=["image"])["image"].to_pylist()
            self._held = (number, images)
        data = images[row]["bytes"] if isinstance(images[row], dict) else images[row]
        if not isinstance(data, bytes):
            raise DataError(f"an image of {path.name} has no bytes; write the table with the images in it")
        return data


def split_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each split, shards in order, the splits as they are shown."""
    files: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*.parquet"), *(folder / "data").glob("*.parquet")]):
        if path.stem != TABLE:
            files.setdefault(split_name(SHARD.sub("", path.stem)), []).append(path)
    order = ("train", "val", "test")
    return dict(sorted(files.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def read_split(folder: Path, split: str) -> Split:
    """A split that has files, with all its columns. Raises `NotFoundError`, and `DataError` for what is no such table."""
    files = split_files(folder)
    if split not in files:
        raise no_split(folder, split, files)
    paths = files[split]
    stamp = [part for path in paths for part in (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)]
    columns: dict[str, list[Any]] = {}
    names: list[str] = []
    for path in paths:
        schema = _schema(path)
        has_names = (
            pyarrow.types.is_struct(schema.field("image").type) and schema.field("image").type.get_field_index("path") >= 0
        )
        wanted = [name for name in schema.names if name != "image"] + ["image.path"] * has_names
        table = _file(path).read(columns=wanted)
        for name in schema.names:
            if name != "image":
                columns.setdefault(name, []).extend(_named(table[name].to_pylist(), _class_names(schema, name)))
        given = [row["path"] for row in table["image"].to_pylist()] if has_names else [None] * table.num_rows
        names += [f"row {len(names) + row} ({name})" if name else f"row {len(names) + row}" for row, name in enumerate(given)]
    return Split(TableImages(paths), names, columns, json.dumps(stamp))


def _read(folder: Path, column: str | None) -> Dataset:
    files = split_files(folder)
    first = "train" if "train" in files else next(iter(files), "")
    if not first:
        raise no_split(folder, "train", [])
    schema = _schema(files[first][0])
    column = label_column([name for name in schema.names if name != "image"], column, str(folder))
    kind = _kind(files[first], schema, column, str(folder))

    @cache
    def made() -> Mapping[str, Split]:
        splits = {name: read_split(folder, name) for name in files if name in ("train", "val", "test")}
        return with_made_splits(splits, classes=splits["train"].columns[column] if kind.kind == "classes" else None)

    @cache
    def read(split: str) -> Split:
        if "train" in files and "val" not in files and split in made_names(tuple(files)):
            return made()[split] if split in made() else read_split(folder, split)
        return read_split(folder, split)

    names = made_names(tuple(files))
    return Dataset(folder, "parquet", names, read, kind.kind, column, kind.labels, kind.points)


def _kind(paths: Sequence[Path], schema: pyarrow.Schema, column: str, where: str) -> LabelKind:
    names = _class_names(schema, column)
    if names:
        return LabelKind("classes", tuple(names))
    values = [value for path in paths for value in _file(path).read(columns=[column])[column].to_pylist()]
    return kind_of(values, f"column {column!r} of {where}")


def _file(path: Path) -> pyarrow.parquet.ParquetFile:
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is no parquet file that can be read ({error})") from error


def _schema(path: Path) -> pyarrow.Schema:
    schema = _file(path).schema_arrow
    if "image" not in schema.names:
        raise DataError(f"{path} has no column 'image'; it has {', '.join(schema.names)}")
    return schema


def _class_names(schema: pyarrow.Schema, column: str) -> list[str] | None:
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return features[column]["names"] if features[column]["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError):
        return None


def _named(values: list[Any], names: list[str] | None) -> list[Any]:
    # −1 stands for no label.
    if names is None:
        return values
    return [None if value in (None, -1) else names[value] if 0 <= value < len(names) else str(value) for value in values]


FORMAT = Format(
    name="parquet",
    title="parquet, a file a split",
    documented="the guides on images in the documentation of https://github.com/huggingface/datasets",
    home="your own data, or any image data set exported by the datasets library",
    terms="as the data's own",
    matches=lambda folder: bool(split_files(folder)),
    read=_read,
    own=True,
)
