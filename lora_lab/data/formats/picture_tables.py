"""Tables whose rows name picture files: metadata.csv, .tsv, .jsonl or .parquet, and tables of other names beside pictures."""

import posixpath
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from lora_lab.data.formats.names import SPLIT_NAMES, split_name
from lora_lab.data.labels import is_missing
from lora_lab.data.reading import Reading
from lora_lab.data.report import Report
from lora_lab.data.texts import clean_columns, header_of, read_text_table, typed
from lora_lab.errors import DataError

METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
TEXT_ENDINGS = (".csv", ".tsv", ".jsonl")
FILE_COLUMNS = ("file_name", "filename", "file", "image", "image_path", "image_name", "image_id", "img", "path", "filepath")
SPLIT_COLUMN = "split"
URL = re.compile(r"[a-z][a-z0-9+.\-]*://", re.IGNORECASE)
NOT_THERE = "named in the table and not there"
NO_ROW = "no row in the table"


@dataclass(frozen=True)
class Rows:
    """The rows whose pictures are there, with their splits; `every` are the columns of all rows, as the table has them."""

    paths: list[Path]
    names: list[str]
    columns: dict[str, list[Any]]
    splits: list[str | None]
    every: dict[str, list[Any]]


def find_tables(folder: Path, files: Iterable[Path], reading: Reading, has_classes: bool) -> list[Path]:
    """The tables that name the pictures; those called metadata, else such as have a column of files, at the top of the folder.

    Where folders name classes already, a table of another name is taken only if --image-column asks for it.
    """
    files = list(files)
    named = [path for path in files if path.name.lower() in METADATA]
    if named or (has_classes and reading.image_column is None):
        return named
    tables = [path for path in files if path.parent == folder and path.suffix.lower() in TEXT_ENDINGS]
    wanted = (reading.image_column,) if reading.image_column else FILE_COLUMNS
    return [path for path in tables if any(name in wanted or name.lower() in wanted for name in header_of(path))]


def read_tables(folder: Path, tables: Sequence[Path], pictures: Sequence[Path], reading: Reading, report: Report) -> Rows:
    """All tables as one. Raises `DataError` for a table without a column of files, and where no picture is there."""
    files = _Files(folder, pictures)
    kept: list[tuple[Path, dict[str, Any], str | None]] = []
    every: dict[str, list[Any]] = {}
    for table in tables:
        columns = _columns(table, report)
        file_column = _file_column(table, list(columns), reading)
        names = columns.pop(file_column)
        for name, values in columns.items():
            every.setdefault(name, []).extend(values)
        in_splits = columns.pop(SPLIT_COLUMN, None) if reading.column != SPLIT_COLUMN else None
        for row, name in enumerate(names):
            path = files.find(table, name)
            if path is None:
                report.leave(f"{name or f'row {row + 1}'} of {table.name}", NOT_THERE)
                continue
            split = str(in_splits[row]) if in_splits and in_splits[row] else _split_of(folder, table, path)
            kept.append((path, {column: values[row] for column, values in columns.items()}, split))
    _report_others(folder, pictures, {path for path, _, _ in kept}, report)
    if not kept:
        raise DataError(f"none of the pictures that {tables[0].name} names is in {folder}: {report.lines[0]}")
    names = list(dict.fromkeys(name for _, row, _ in kept for name in row))
    splits = _agreed([split for _, _, split in kept])
    return Rows(
        paths=[path for path, _, _ in kept],
        names=[path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path) for path, _, _ in kept],
        columns={name: [row.get(name) for _, row, _ in kept] for name in names},
        splits=splits,
        every=every,
    )


def _agreed(splits: list[str | None]) -> list[str | None]:
    # Folders are splits where train is among them; folders of other names, such as images, are none.
    found = {split for split in splits if split}
    known = found & set(SPLIT_NAMES)
    if not known:
        return [None] * len(splits)
    return [split if "train" in known or split in known else None for split in splits]


def _split_of(folder: Path, table: Path, path: Path) -> str | None:
    if split_name(table.stem) in SPLIT_NAMES:
        return split_name(table.stem)
    parts = path.relative_to(folder).parts if path.is_relative_to(folder) else ()
    return split_name(parts[0]) if len(parts) > 1 else None


def _report_others(folder: Path, pictures: Iterable[Path], used: set[Path], report: Report) -> None:
    for path in pictures:
        if path not in used:
            report.leave(path.relative_to(folder).as_posix(), NO_ROW)


def _columns(table: Path, report: Report) -> dict[str, list[Any]]:
    if table.suffix.lower() == ".parquet":
        try:
            columns = {str(name): values for name, values in pyarrow.parquet.read_table(table).to_pydict().items()}
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise DataError(f"{table} is no parquet file that can be read ({error})") from error
        return clean_columns(columns, report)
    columns = clean_columns(read_text_table(table, report).columns, report)
    if table.suffix.lower() == ".jsonl":
        return columns
    return {name: values if name in FILE_COLUMNS else typed(values) for name, values in columns.items()}


def _file_column(table: Path, columns: Sequence[str], reading: Reading) -> str:
    if reading.image_column:
        if reading.image_column not in columns:
            raise DataError(f"{table.name} has no column {reading.image_column!r}; it has {', '.join(columns) or 'none'}")
        return reading.image_column
    by_name = {name.lower(): name for name in reversed(columns) if name != reading.column}
    found = next((by_name[name] for name in FILE_COLUMNS if name in by_name), None)
    if found is None:
        has = ", ".join(columns) or "none"
        raise DataError(f"{table.name} has no column file_name; it has {has}: say which names the pictures with --image-column")
    return found


class _Files:
    """Pictures by the names that tables have for them: in another Unicode form, with \\ for /, or without their ending."""

    def __init__(self, folder: Path, pictures: Iterable[Path]):
        self._folder = folder
        self._whole: dict[str, Path] = {}
        self._bare: dict[str, list[Path]] = {}
        for path in pictures:
            name = _form(path.relative_to(folder).as_posix())
            self._whole[name] = path
            self._bare.setdefault(posixpath.splitext(name)[0], []).append(path)

    def find(self, table: Path, name: Any) -> Path | None:
        """The picture that a table's cell names, None where it is not there. Raises `DataError` for an address."""
        if is_missing(name):
            return None
        text = _form(str(name))
        if URL.match(text):
            raise DataError(f"{table.name} names addresses, such as {text[:60]}: fetch the pictures first, and name the files")
        here = table.parent.relative_to(self._folder).as_posix()
        for spelled in (text, text.replace("\\", "/")):
            key = posixpath.normpath(posixpath.join(here, spelled))
            if key in self._whole:
                return self._whole[key]
            if len(self._bare.get(key, ())) == 1:
                return self._bare[key][0]
        outside = table.parent / text
        try:
            return outside if outside.is_file() else None
        except (OSError, ValueError):
            return None


def _form(text: str) -> str:
    return unicodedata.normalize("NFC", text)
