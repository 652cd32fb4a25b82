"""Image files in folders: found in a fixed order, read when asked for, and stamped."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lora_lab.errors import DataError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class FileImages(Sequence[Any]):
    """The bytes of files; an item is read when it is asked for. Raises `DataError` for a file that cannot be read."""

    def __init__(self, paths: Sequence[Path]):
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return FileImages(self._paths[index])
        path = self._paths[index]
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); check the path and its rights") from error


def image_files(folder: Path) -> Iterator[Path]:
    """Image files in a folder and those below it, by name; hidden ones are left out."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(ENDINGS) and not name.startswith("."):
                yield Path(place, name)


def stamp_of(layout: str, folder: Path, paths: Iterable[Path]) -> str:
    """A split's stamp from the sizes and times of the files that it comes from; a missing file counts as such."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            stat = path.stat()
            digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path}\0missing\n".encode())
    return json.dumps([layout, str(folder.resolve()), digest.hexdigest()[:32]])


def relative_names(folder: Path, paths: Iterable[Path]) -> list[str]:
    """What files are called in messages: their paths below the folder."""
    return [path.relative_to(folder).as_posix() for path in paths]


def first_folder(*folders: Path) -> Path | None:
    """The first of some folders that is there."""
    return next((folder for folder in folders if folder.is_dir()), None)
