"""Splits in the Hugging Face `datasets` layout: a folder a data set, a parquet file a split, a column `image`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from lora_lab.errors import DataError, NotFoundError


@dataclass(frozen=True)
class Split:
    """n encoded images and their other columns."""

    path: Path
    images: list[bytes]
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.images)


def split_path(folder: Path, split: str) -> Path:
    """The file of a split. Raises `NotFoundError` where there is none."""
    path = folder / f"{split}.parquet"
    if not path.exists():
        there = sorted(p.stem for p in folder.glob("*.parquet"))
        hint = f"it holds {', '.join(there)}" if there else "it holds no parquet file"
        raise NotFoundError(f"no split {split!r} in {folder}: {hint}; name another with --data or --split")
    return path


def read_split(folder: Path, split: str) -> Split:
    """All of a split. Raises `DataError` for a file that is no such table."""
    path = split_path(folder, split)
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is no parquet file that can be read ({error})") from error
    if "image" not in table.column_names:
        raise DataError(f"{path} has no column 'image'; it has {', '.join(table.column_names)}")
    columns = {name: table[name].to_pylist() for name in table.column_names if name != "image"}
    return Split(path, [row["bytes"] for row in table["image"].to_pylist()], columns)
