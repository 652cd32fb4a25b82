"""The layouts that are read, the most particular first, and how a folder is opened."""

from collections.abc import Iterable
from pathlib import Path

from lora_lab.catalog import Catalog
from lora_lab.data.dataset import Dataset
from lora_lab.data.files import NEEDS_HEIF, all_files, not_a_picture, report_rest
from lora_lab.data.formats import (
    eurosat,
    expw,
    fer2013,
    firerisk,
    galaxy10,
    imagefolder,
    parquet,
    saved,
    utkface,
    w300,
    wflw,
)
from lora_lab.data.formats.base import Format
from lora_lab.data.reading import Reading
from lora_lab.data.report import Report
from lora_lab.errors import DataError, NotFoundError

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
            saved.FORMAT,
            parquet.FORMAT,
            imagefolder.FORMAT,
        )
    ),
)


def open_dataset(
    folder: Path, format: str | None = None, column: str | None = None, image_column: str | None = None
) -> Dataset:
    """What lies in a folder, by the first layout that matches or the named one.

    `column` names the labels' column and `image_column` that of the images or of their files. Raises `NotFoundError` for a
    folder that is not there or of no known layout, and `DataError` for one that is broken.
    """
    if not folder.is_dir():
        raise NotFoundError(f"no folder {folder}; name the one that holds the data with --data")
    folder = folder.resolve()
    layout = FORMATS[format] if format else next((one for one in FORMATS.values() if one.matches(folder)), None)
    if layout is None:
        raise _unknown(folder)
    if image_column and not layout.own:
        raise DataError(f"{layout.name} names its pictures itself: leave out --image-column")
    return layout.read(folder, Reading(layout.name, column, image_column))


def _unknown(folder: Path) -> NotFoundError:
    report = Report()
    files = all_files(folder, report)
    if any(path.suffix == ".tar" for path in files):
        return NotFoundError(
            f"{folder} holds .tar files (webdataset), which are not read: unpack them, a folder for each class"
        )
    report_rest(folder, (), report, "no data that is known")
    for path in files:
        if not_a_picture(path) == NEEDS_HEIF:
            return NotFoundError(
                f"{folder} holds no picture that can be read: {path.name} {NEEDS_HEIF}: install it, or save as JPEG"
            )
    seen = report.lines[0] if report.lines else "it is empty"
    titles = "; ".join(layout.title for layout in FORMATS.values())
    return NotFoundError(f"{folder} holds no data in a layout that is known; looked for: {titles}; {seen}")


def format_table(formats: Iterable[Format]) -> str:
    """Markdown: a row for each layout with its name, what it is, where it is documented and had, and its terms."""
    lines = ["| format | what it is | layout documented in | where to get it | terms |", "|---|---|---|---|---|"]
    lines += [f"| `{f.name}` | {f.title} | {f.documented} | {f.home} | {f.terms} |" for f in formats]
    return "\n".join(lines)
