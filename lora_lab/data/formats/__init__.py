"""The layouts that are read, the most particular first, and how a folder is opened."""

from collections.abc import Iterable
from pathlib import Path

from lora_lab.catalog import Catalog
from lora_lab.data.dataset import Dataset
from lora_lab.data.formats import (
    eurosat,
    expw,
    fer2013,
    firerisk,
    galaxy10,
    imagefolder,
    parquet,
    utkface,
    w300,
    wflw,
)
from lora_lab.data.formats.base import Format
from lora_lab.errors import NotFoundError

__all__ = ["FORMATS", "Format", "format_table", "open_dataset"]

FORMATS: Catalog[Format] = Catalog(
    "format",
    (
        (layout.name, layout)
        for layout in (
            wflw.FORMAT,
            w300.FORMAT,
            expw.FORMAT,
            fer2013.FORMAT,
            galaxy10.FORMAT,
            firerisk.FORMAT,
            eurosat.FORMAT,
            utkface.FORMAT,
            parquet.FORMAT,
            imagefolder.FORMAT,
        )
    ),
)


def open_dataset(folder: Path, format: str | None = None, column: str | None = None) -> Dataset:
    """What lies in a folder, by the first layout that matches or the named one; `column` names the labels' column.

    Raises `NotFoundError` for a folder that is not there or of no known layout, and `DataError` for one that is broken.
    """
    if not folder.is_dir():
        raise NotFoundError(f"no folder {folder}; name the one that holds the data with --data")
    if format is not None:
        return FORMATS[format].read(folder, column)
    layout = next((layout for layout in FORMATS.values() if layout.matches(folder)), None)
    if layout is None:
        titles = "; ".join(layout.title for layout in FORMATS.values())
        raise NotFoundError(f"{folder} holds no data in a layout that is known; looked for: {titles}")
    return layout.read(folder, column)


def format_table(formats: Iterable[Format]) -> str:
    """Markdown: a row for each layout with its name, what it is, where it is documented and had, and its terms."""
    lines = ["| format | what it is | layout documented in | where to get it | terms |", "|---|---|---|---|---|"]
    lines += [f"| `{f.name}` | {f.title} | {f.documented} | {f.home} | {f.terms} |" for f in formats]
    return "\n".join(lines)
