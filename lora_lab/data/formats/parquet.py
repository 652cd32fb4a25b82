"""Tables as the Hugging Face `datasets` library and its hub keep them: a parquet file a split, or several.

Files are named after their split, shards with their number behind (train-00000-of-00004.parquet), in the folder, in its
folder `data`, or in a folder that is named after a configuration, after the split, or both (default/train/0000.parquet). See
`cells` for what a picture may be. Class names come from the metadata that the library leaves in the file; it is read as the
JSON that it is, since the library takes seconds to load.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from lora_lab.data.dataset import Dataset, Split, no_split
from lora_lab.data.files import all_files, report_rest
from lora_lab.data.formats.base import Format
from lora_lab.data.formats.cells import Group, TableImages, class_names, image_column, named, row_names
from lora_lab.data.formats.names import SPLIT_NAMES, split_name
from lora_lab.data.labels import LabelKind, kind_of, label_column
from lora_lab.data.reading import Reading
from lora_lab.data.report import Report, listed
from lora_lab.data.splitting import made_names, with_made_splits
from lora_lab.data.texts import clean_columns
from lora_lab.errors import DataError

__all__ = ["FORMAT", "TableImages", "read_split", "split_files"]

# A table of file names beside images, which is no split.
TABLE = "metadata"
SHARD = re.compile(r"(-\d{5}-of-\d{5}(-[0-9a-f]+)?)$")
NUMBER = re.compile(r"[-_.]?\d+$")
ORDER = ("train", "val", "test")


def split_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each split, shards in order, the splits as they are shown. Raises `DataError` for several configurations."""
    by_config: dict[str, dict[str, list[Path]]] = {}
    for path in all_files(folder):
        if _is_table(path) and (place := _place(path.relative_to(folder))):
            config, split = place
            by_config.setdefault(config, {}).setdefault(split, []).append(path)
    if "" in by_config:
        by_config = {"": by_config[""]}
    if len(by_config) > 1:
        raise DataError(
            f"{folder} holds several configurations: {listed(sorted(by_config), 8)}; name the folder of one with --data"
        )
    files = next(iter(by_config.values()), {})
    if files and not set(files) & set(SPLIT_NAMES):
        files = {"train": [path for paths in files.values() for path in paths]}
    return dict(sorted(files.items(), key=lambda item: ORDER.index(item[0]) if item[0] in ORDER else len(ORDER)))


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ".parquet" and path.stem != TABLE


def _place(path: Path) -> tuple[str, str] | None:
    # The configuration and the split of a file, by its place below the folder.
    folders = [name for name in path.parts[:-1] if name != "data"]
    bare = SHARD.sub("", path.stem)
    split = split_name(bare)
    if split not in SPLIT_NAMES and split_name(NUMBER.sub("", bare)) in SPLIT_NAMES:
        split = split_name(NUMBER.sub("", bare))
    if folders and split not in SPLIT_NAMES:
        inner = split_name(folders[-1].removeprefix("partial-"))
        if inner in SPLIT_NAMES:
            return "/".join(folders[:-1]), inner
    if len(folders) > 1 or (folders and split not in SPLIT_NAMES and not SHARD.search(path.stem)):
        return None
    return "/".join(folders), split


def read_split(folder: Path, split: str, image: str | None = None) -> Split:
    """A split that has files, with all its columns. Raises `NotFoundError`, and `DataError` for what is no such table."""
    files = split_files(folder)
    if split not in files:
        raise no_split(folder, split, files)
    return _read_files(files[split], image, Report())


def _read_files(paths: Sequence[Path], image: str | None, report: Report) -> Split:
    stamp = [part for path in paths for part in (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)]
    columns: dict[str, list[Any]] = {}
    names: list[str] = []
    groups: list[Group] = []
    column = ""
    for path in paths:
        file = _file(path)
        column, rows = image_column(file.schema_arrow, _features(file), image, path), len(names)
        others = [name for name in file.schema_arrow.names if name != column]
        table = _table(path, file, [*others, f"{column}.path"])
        names += row_names(table, column, rows)
        for name in others:
            values = named(table[name].to_pylist(), class_names(_features(file), name))
            columns.setdefault(name, [None] * rows).extend(values)
        for missing in set(columns) - set(others):
            columns[missing].extend([None] * table.num_rows)
        groups += [
            Group(path, file.metadata.row_group(number).num_rows, partial(_column, path, number))
            for number in range(file.metadata.num_row_groups)
        ]
    if image:
        stamp.append(f"image column {image}")
    return Split(TableImages(groups, column), names, clean_columns(columns, report), json.dumps(stamp))


def _read(folder: Path, reading: Reading) -> Dataset:
    files = split_files(folder)
    first = "train" if "train" in files else next(iter(files), "")
    if not first:
        raise no_split(folder, "train", [])
    report = Report()
    file = _file(files[first][0])
    image = image_column(file.schema_arrow, _features(file), reading.image_column, files[first][0])
    column = label_column([name for name in file.schema_arrow.names if name != image], reading.column, str(folder))
    kind = _kind(files[first], column, str(folder), report)
    report_rest(folder, [path for paths in files.values() for path in paths], report, "no parquet file of a split")
    there = {name: [path for path in paths if _file(path).metadata.num_rows] for name, paths in files.items()}
    for name in [name for name, paths in there.items() if not paths]:
        report.say(f"the split {name} has no rows")

    @cache
    def read_there(split: str) -> Split:
        if split not in files:
            raise no_split(folder, split, files)
        return _read_files(files[split], reading.image_column, Report())

    @cache
    def made() -> Mapping[str, Split]:
        splits = {name: read_there(name) for name in files if name in ORDER}
        return with_made_splits(splits, classes=splits["train"].columns[column] if kind.kind == "classes" else None)

    def read(split: str) -> Split:
        if "train" in files and "val" not in files and split in made_names(tuple(files)):
            return made()[split] if split in made() else read_there(split)
        return read_there(split)

    names = made_names(tuple(files))
    return Dataset(folder, "parquet", names, read, kind.kind, column, kind.labels, kind.points, notes=report.lines)


def _kind(paths: Sequence[Path], column: str, where: str, report: Report) -> LabelKind:
    names = class_names(_features(_file(paths[0])), column)
    if names:
        return LabelKind("classes", tuple(names))
    values = [value for path in paths for value in _table(path, _file(path), [column])[column].to_pylist()]
    return kind_of(clean_columns({column: values}, report)[column], f"column {column!r} of {where}")


def _file(path: Path) -> pyarrow.parquet.ParquetFile:
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is no parquet file that can be read ({error})") from error


def _table(path: Path, file: pyarrow.parquet.ParquetFile, columns: Sequence[str]) -> pyarrow.Table:
    try:
        return file.read(columns=list(columns))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is no parquet file that can be read ({error})") from error


def _column(path: Path, group: int, column: str) -> list[Any]:
    try:
        return _file(path).read_row_group(group, columns=[column])[column].to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is no parquet file that can be read ({error})") from error


def _features(file: pyarrow.parquet.ParquetFile) -> Mapping[str, Any]:
    try:
        found = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return found if isinstance(found, dict) else {}
    except (KeyError, TypeError, ValueError):
        return {}


FORMAT = Format(
    name="parquet",
    title="parquet, a file a split",
    documented="the guides on images in the documentation of https://github.com/huggingface/datasets",
    home="your own data, or any image data set exported by the datasets library",
    terms="as the data's own",
    matches=lambda folder: any(_is_table(path) and _place(path.relative_to(folder)) for path in all_files(folder)),
    read=_read,
    own=True,
)
