"""Tables of text: any encoding and separator that spreadsheets write, each cell exactly as it stands.

Nothing but an empty cell is missing: NA, None, null and nan are labels, and so are 01, 1.0 and True. Space around a cell is
trimmed, letters are brought to one Unicode form (NFC), and both are said.
"""

import csv
import json
import re
import sys
import unicodedata
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from lora_lab.data.report import Report, listed
from lora_lab.errors import DataError

SEPARATORS = ",;\t|"
WHOLE = re.compile(r"0|-?[1-9]\d{0,15}")
DECIMAL = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")
MOST_WHOLE = 50
"""As many whole numbers without a gap are names of classes, see `kind_of`."""


@dataclass(frozen=True)
class TextTable:
    """The columns of a table by name, all of one length; None stands for an empty cell."""

    path: Path
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def read_text_table(path: Path, report: Report) -> TextTable:
    """A .csv, .tsv or .jsonl file. Raises `DataError` for one that cannot be read as a table."""
    text = _decoded(path, report)
    rows = _lines(path, text, report) if path.suffix.lower() == ".jsonl" else _cells(path, text, report)
    names = list(dict.fromkeys(name for row in rows[:1] for name in row)) or []
    for row in rows:
        names += [name for name in row if name not in names] if len(row) > len(names) else []
    return TextTable(path, {name: [row.get(name) for row in rows] for name in names})


def header_of(path: Path) -> list[str]:
    """The names of a table's columns; none where it is no table of text. Little of the file is read."""
    try:
        with path.open("rb") as file:
            text = decoded(file.read(1 << 16))
    except (OSError, UnicodeDecodeError):
        return []
    first = text.lstrip("\ufeff\r\n").split("\n", 1)[0].rstrip("\r")
    if path.suffix.lower() != ".jsonl":
        return [name.strip() for name in next(csv.reader([first], delimiter=_separator(first)), [])]
    try:
        row = json.loads(first)
    except ValueError:
        return []
    return list(row) if isinstance(row, dict) else []


def clean_columns(columns: dict[str, list[Any]], report: Report) -> dict[str, list[Any]]:
    """The columns with texts trimmed and in one Unicode form, an empty text as None; what was changed is reported."""
    return {name: _clean(name, values, report) for name, values in columns.items()}


def typed(values: Sequence[Any]) -> list[Any]:
    """Texts that are numbers one and all as numbers; whole ones without a gap, and all else, as they stand."""
    there = [value for value in values if value is not None]
    if not there or not all(isinstance(value, str) and DECIMAL.fullmatch(value) for value in there):
        return list(values)
    if all(WHOLE.fullmatch(value) for value in there):
        return [None if value is None else int(value) for value in values]
    numbers = {float(value) for value in there}
    dense = (
        all(n.is_integer() for n in numbers) and 1 < len(numbers) <= MOST_WHOLE and max(numbers) - min(numbers) < len(numbers)
    )
    padded = any(re.match(r"[-+]?0\d", value) for value in there)
    if dense or padded:
        return list(values)
    return [None if value is None else float(value) for value in values]


def decoded(data: bytes) -> str:
    """Text in UTF-8 or UTF-16 by its mark, UTF-8 without one. Raises `UnicodeDecodeError`."""
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return data[: len(data) // 2 * 2].decode("utf-16")
    if data.startswith(BOM_UTF8):
        return data.decode("utf-8-sig", "ignore" if len(data) == 1 << 16 else "strict")
    return data.decode("utf-8", "ignore" if len(data) == 1 << 16 else "strict")


def _decoded(path: Path, report: Report) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = data.decode("utf-8") if not data.startswith((BOM_UTF8, BOM_UTF16_LE, BOM_UTF16_BE)) else decoded(data)
    except UnicodeDecodeError:
        report.say(f"{path.name} is no UTF-8 and was read as Windows-1252 (latin-1)")
        text = data.decode("cp1252", "replace")
    if "\0" in text:
        raise DataError(f"{path.name} is no table of text: save it as CSV in UTF-8")
    return text.lstrip("\ufeff")


def _separator(header: str) -> str:
    outside = re.sub(r'"[^"]*"', "", header)
    return max(SEPARATORS, key=lambda sign: (outside.count(sign), -SEPARATORS.index(sign)))


def _cells(path: Path, text: str, report: Report) -> list[dict[str, Any]]:
    separator = _separator(text.split("\n", 1)[0])
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        rows = list(csv.reader(StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise DataError(f"{path.name} cannot be read as a table: {error}") from error
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        raise DataError(f"{path.name} is empty: it needs a header with file_name and label, and a row for each image")
    header = [name.strip() for name in rows[0]]
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise DataError(f"{path.name} has {listed(twice)} more than once in its header: give each column its own name")
    kept = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) < len(header) or any(cell.strip() for cell in row[len(header) :]):
            report.leave(f"row {number} of {path.name}", f"cells: {len(row)}, in the header: {len(header)}")
        else:
            kept.append({name: cell for name, cell in zip(header, row, strict=False) if name})
    return kept


def _lines(path: Path, text: str, report: Report) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            report.leave(f"line {number} of {path.name}", "no JSON object")
    return rows


def _clean(column: str, values: list[Any], report: Report) -> list[Any]:
    trimmed, formed, cleaned = 0, 0, []
    for value in values:
        if isinstance(value, str):
            bare = value.strip()
            one = unicodedata.normalize("NFC", bare)
            trimmed, formed = trimmed + (bare != value and bool(bare)), formed + (one != bare)
            value = one or None
        cleaned.append(value)
    if trimmed:
        report.say(f"spaces around {trimmed} values of {column!r} were trimmed")
    if formed:
        report.say(f"{formed} values of {column!r} were brought to one Unicode form (NFC)")
    return cleaned
