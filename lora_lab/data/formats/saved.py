"""Data sets that the `datasets` library saved to disk: dataset_dict.json with a folder a split, or one split in the folder.

A split's folder has Arrow files, named in state.json, and dataset_info.json with the names of the classes. See `cells` for
what a picture may be.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc

from lora_lab.cache import small_text
from lora_lab.data.dataset import Dataset, Split
from lora_lab.data.files import report_rest, stamp_of
from lora_lab.data.formats.base import Format, Found, dataset_of
from lora_lab.data.formats.cells import Group, TableImages, class_names, image_column, named, row_names
from lora_lab.data.formats.names import split_name
from lora_lab.data.labels import kind_of, label_column
from lora_lab.data.reading import Reading
from lora_lab.data.report import Report
from lora_lab.data.splitting import with_made_splits
from lora_lab.data.texts import clean_columns
from lora_lab.errors import DataError, NotFoundError

SPLITS, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"


def _read(folder: Path, reading: Reading) -> Dataset:
    if not _matches(folder):
        raise NotFoundError(f"{folder} lacks {SPLITS} or {STATE}, which `save_to_disk` of the datasets library writes")
    report = Report()
    folders = _folders(folder)
    splits: dict[str, Split] = {}
    names: list[str] | None = None
    used: list[Path] = [folder / SPLITS]
    column = reading.column
    for name, place in folders.items():
        features = _json(place / INFO).get("features") or {}
        split, files = _split(place, features, reading.image_column, report)
        split = replace(split, names=[f"{name}, {row}" for row in split.names])
        used += [*files, place / STATE, place / INFO]
        if not len(split):
            report.say(f"the split {name} has no rows")
            continue
        column = label_column(list(split.columns), column, str(place))
        names = names or class_names(features, column)
        splits[name] = split
    if not splits or column is None:
        raise DataError(f"{folder} holds no rows in {', '.join(folders)}: save the data set again")
    report_rest(folder, used, report)
    train = splits.get("train")
    by_class = train and (names or kind_of(train.columns[column], f"column {column!r} of {folder}").kind == "classes")
    made = with_made_splits(splits, classes=train.columns[column] if train and by_class else None)
    return dataset_of("saved", folder, Found(made, report=report), column, names)


def _folders(folder: Path) -> dict[str, Path]:
    if not (folder / SPLITS).is_file():
        return {"train": folder}
    there = _json(folder / SPLITS).get("splits")
    if not isinstance(there, list) or not all(isinstance(name, str) and (folder / name / STATE).is_file() for name in there):
        raise DataError(f"{folder / SPLITS} names splits that are not there: save the data set again")
    return {split_name(name): folder / name for name in there}


def _split(folder: Path, features: Mapping[str, Any], image: str | None, report: Report) -> tuple[Split, list[Path]]:
    files = [folder / str(one.get("filename")) for one in _json(folder / STATE).get("_data_files") or []]
    columns: dict[str, list[Any]] = {}
    rows: list[str] = []
    groups: list[Group] = []
    column = ""
    for path in files:
        for number, batch in enumerate(_batches(path)):
            table = pyarrow.Table.from_batches([batch])
            column = image_column(table.schema, features, image, path)
            rows += row_names(table, column, len(rows))
            for name in table.column_names:
                if name != column:
                    columns.setdefault(name, []).extend(named(table[name].to_pylist(), class_names(features, name)))
            groups.append(Group(path, batch.num_rows, partial(_column, path, number)))
    stamp = stamp_of(f"saved 1 {image or ''}", folder, files)
    return Split(TableImages(groups, column), rows, clean_columns(columns, report), stamp), files


def _batches(path: Path) -> list[pyarrow.RecordBatch]:
    try:
        with pyarrow.memory_map(str(path)) as file:
            return list(pyarrow.ipc.open_stream(file))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is no Arrow file that can be read ({error}): save the data set again") from error


def _column(path: Path, number: int, column: str) -> list[Any]:
    return _batches(path)[number].column(column).to_pylist()


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(small_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: save the data set again") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no JSON object: save the data set again")
    return found


def _matches(folder: Path) -> bool:
    return (folder / SPLITS).is_file() or ((folder / STATE).is_file() and (folder / INFO).is_file())


FORMAT = Format(
    name="saved",
    title="a data set that the datasets library saved to disk",
    documented="save_to_disk in the documentation of https://github.com/huggingface/datasets",
    home="your own data, or any image data set that the datasets library reads",
    terms="as the data's own",
    matches=_matches,
    read=_read,
    own=True,
)
