"""Folders of images: a folder a class, or a table of file names.

With folders named train, val and test (or validation, valid, dev, …) at the top, these are the splits. Folders below a class
belong to it. A table is metadata.csv, .tsv, .jsonl or .parquet with a column `file_name`, paths seen from the table, as the
`datasets` library's imagefolder has it; a table of another name is taken where no folders name classes.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from lora_lab.data.dataset import Dataset, Split
from lora_lab.data.files import NEEDS_HEIF, FileImages, all_files, image_files, not_a_picture, stamp_of
from lora_lab.data.formats.base import Format, Found, dataset_of
from lora_lab.data.formats.class_folders import Placed, folders_in, place
from lora_lab.data.formats.names import SPLIT_NAMES
from lora_lab.data.formats.picture_tables import find_tables, read_tables
from lora_lab.data.labels import kind_of, label_column
from lora_lab.data.reading import Reading
from lora_lab.data.report import NO_PICTURE, Report, listed
from lora_lab.data.splitting import with_made_splits
from lora_lab.errors import DataError, NotFoundError

CLASS = "label"


def _read(folder: Path, reading: Reading) -> Dataset:
    report = Report()
    files = all_files(folder, report)
    why_not = {path: not_a_picture(path) for path in files}
    pictures = [path for path, why in why_not.items() if why is None]
    placed = place([path.relative_to(folder).as_posix() for path in pictures])
    tables = find_tables(folder, files, reading, has_classes=len({one for one in placed.classes if one}) > 1)
    for path, why in why_not.items():
        if why and path not in tables:
            report.leave(path.relative_to(folder).as_posix(), why)
    if not pictures:
        raise NotFoundError(_nothing(folder, report))
    if tables:
        return _of_tables(folder, tables, pictures, reading, report)
    return _of_folders(folder, pictures, placed, reading, report)


def _nothing(folder: Path, report: Report) -> str:
    seen = f"; {report.lines[0]}" if report.lines else ""
    return f"{folder} holds no image: put them there, each in a folder of its class's name{seen}"


def _of_tables(folder: Path, tables: Sequence[Path], pictures: Sequence[Path], reading: Reading, report: Report) -> Dataset:
    rows = read_tables(folder, tables, pictures, reading, report)
    column = label_column(list(rows.columns), reading.column, str(folder))
    kind = kind_of(rows.every[column], f"column {column!r} of {folder}")
    stamp = stamp_of("imagefolder 2", folder, [*tables, *rows.paths])
    whole = Split(FileImages(rows.paths), rows.names, rows.columns, stamp)
    return _dataset(folder, _parts(whole, rows.splits), column, kind.labels if kind.kind == "classes" else (), report)


def _of_folders(folder: Path, pictures: Sequence[Path], placed: Placed, reading: Reading, report: Report) -> Dataset:
    if reading.image_column:
        raise DataError(
            f"{folder} has no table with a column {reading.image_column!r}: leave out --image-column, or add metadata.csv"
        )
    kept = [row for row, name in enumerate(placed.classes) if name is not None]
    loose = [path.relative_to(folder).as_posix() for path, name in zip(pictures, placed.classes, strict=True) if name is None]
    if not kept:
        raise DataError(
            f"{folder} has {len(loose)} images in no class's folder, such as {loose[0]}: move them, or add metadata.csv"
        )
    for name in loose:
        report.leave(name, "in no class's folder")
    for note in placed.notes:
        report.say(note)
    _check_lost(folder, placed, report)
    paths = [pictures[row] for row in kept]
    names = [path.relative_to(folder).as_posix() for path in paths]
    labels = [placed.classes[row] for row in kept]
    whole = Split(FileImages(paths), names, {CLASS: labels}, stamp_of("imagefolder 2", folder, paths))
    column = label_column([CLASS], reading.column, str(folder))
    classes = kind_of(labels, f"column {CLASS!r} of {folder}").labels
    return _dataset(folder, _parts(whole, [placed.splits[row] for row in kept]), column, classes, report)


def _dataset(folder: Path, splits: dict[str, Split], column: str, labels: Sequence[str], report: Report) -> Dataset:
    train = splits.get("train")
    by_class = train.columns[column] if train and labels else None
    found = Found(with_made_splits(splits, classes=by_class), report=report)
    return dataset_of("imagefolder", folder, found, column, labels or None)


def _parts(whole: Split, splits: Sequence[str | None]) -> dict[str, Split]:
    named = [split or "train" for split in splits]
    order = [split for split in SPLIT_NAMES if split in named] + sorted(set(named) - set(SPLIT_NAMES))
    return {split: whole.part([row for row, name in enumerate(named) if name == split]) for split in order}


def _check_lost(folder: Path, placed: Placed, report: Report) -> None:
    # A class all of whose pictures cannot be read must not vanish; a folder without any is no class, and is told.
    there = {name for name in placed.classes if name}
    for base in placed.bases:
        below = f"{base}/" if base else ""
        for path in folders_in(folder / base) if (folder / base).is_dir() else []:
            if path.name in there:
                continue
            inside = f"{below}{path.name}/"
            lost = [(n, why) for why, names in report.left.items() if why != NO_PICTURE for n in names if n.startswith(inside)]
            if lost:
                raise _lost(path.name, lost)
            report.say(f"there is no picture in {below}{path.name}, so it is no class")


def _lost(name: str, files: list[tuple[str, str]]) -> DataError:
    why = files[0][1]
    cure = "install it, or save them as JPEG" if why == NEEDS_HEIF else "mend them, or remove the folder"
    shown = listed([file for file, _ in files], 2)
    return DataError(f"none of the {len(files)} pictures of the class {name} can be used: {shown} ({why}): {cure}")


FORMAT = Format(
    name="imagefolder",
    title="folders of images, a folder a class, or with metadata.csv or .jsonl",
    documented="the guides on images in the documentation of https://github.com/huggingface/datasets",
    home="your own data",
    terms="as the data's own",
    matches=lambda folder: bool(list(islice(image_files(folder), 1))),
    read=_read,
    own=True,
)
