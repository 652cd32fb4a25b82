"""Folders of images, as the `datasets` library's imagefolder reads them: a folder a class, or a table of file names.

With folders named train, val and test (or validation, valid, dev, …) at the top, these are the splits. A table is
metadata.csv, .jsonl or .parquet with a column `file_name`, paths seen from the table. The library's own cache stays in
ours, and nothing is fetched.
"""

from itertools import islice
from pathlib import Path
from typing import Any

from lora_lab.cache import cache_folder
from lora_lab.data.dataset import Dataset, Split
from lora_lab.data.files import FileImages, image_files, stamp_of
from lora_lab.data.formats.base import Format, Found, dataset_of
from lora_lab.data.formats.names import SPLIT_NAMES, split_name
from lora_lab.data.labels import kind_of, label_column
from lora_lab.data.splitting import with_made_splits
from lora_lab.errors import DataError, NotFoundError

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def _read(folder: Path, column: str | None) -> Dataset:
    root = folder.resolve()
    files = list(image_files(root))
    if not files:
        raise NotFoundError(f"{folder} holds no image: put them there, each in a folder of its class's name")
    tables = [path for name in TABLES for path in sorted(root.rglob(name))]
    stamp = stamp_of("imagefolder 1", root, [*tables, *files])
    paths, columns = _load(folder, [*files, *tables], stamp)
    column = label_column(list(columns), column, str(folder))
    names = [path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path) for path in paths]
    whole = Split(FileImages(paths), names, columns, stamp)
    splits = {split: whole.part(rows) for split, rows in _split_rows(folder, names, bool(tables)).items()}
    train = splits.get("train")
    by_class = train is not None and kind_of(train.columns[column], f"column {column!r} of {folder}").kind == "classes"
    found = Found(with_made_splits(splits, classes=train.columns[column] if train and by_class else None))
    return dataset_of("imagefolder", folder, found, column)


def _split_rows(folder: Path, names: list[str], has_table: bool) -> dict[str, list[int]]:
    # Folders at the top are splits where all are named so, or where the one of train has folders or a table in it: "train"
    # may be a class as well, among cars and ships.
    tops = [split_name(name.split("/")[0]) if "/" in name else "" for name in names]
    deep = any(top == "train" and name.count("/") > 1 for top, name in zip(tops, names, strict=True))
    all_named = set(tops) <= set(SPLIT_NAMES)
    if not all_named and not ("train" in tops and (deep or has_table)):
        return {"train": list(range(len(names)))}
    loose = [name for name in names if name.count("/") < 2]
    if not has_table and loose:
        raise DataError(
            f"{folder} has {len(loose)} images in no class's folder, such as {loose[0]}: move them, or add metadata.csv"
        )
    order = [split for split in SPLIT_NAMES if split in tops] + sorted(set(tops) - set(SPLIT_NAMES))
    return {split: [row for row, top in enumerate(tops) if top == split] for split in order}


def _load(folder: Path, files: list[Path], stamp: str) -> tuple[list[Path], dict[str, list[Any]]]:
    # Loaded here, for it takes seconds. Its builder is called by itself, since the way around it counts downloads.
    import datasets
    from datasets.data_files import DataFilesDict, DataFilesList
    from datasets.exceptions import DatasetsError
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    datasets.disable_progress_bars()
    listed = DataFilesDict({"train": DataFilesList([str(path) for path in files], [(stamp,)])})
    try:
        builder = ImageFolder(cache_dir=str(cache_folder("datasets")), data_files=listed)
        builder.download_and_prepare()
        loaded: Any = builder.as_dataset("train").cast_column("image", datasets.Image(decode=False))
    except (DatasetsError, ValueError, OSError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise DataError(f"{folder} cannot be read as folders of images: {reason}") from error
    return _columns(loaded.with_format("arrow")[:], loaded.features)


def _columns(table: Any, features: Any) -> tuple[list[Path], dict[str, list[Any]]]:
    paths = [Path(row["path"]) for row in table["image"].to_pylist()]
    columns = {}
    for name in table.column_names:
        if name != "image":
            values, names = table[name].to_pylist(), getattr(features[name], "names", None)
            columns[name] = [names[value] for value in values] if names else values
    return paths, columns


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
