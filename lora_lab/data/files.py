"""Image files in folders: found in a fixed order, through links as well, read when asked for, and stamped.

What systems and storage boxes leave in folders (thumbnails, indices, recycle bins) does not count; whatever else is not
used goes into a `Report`.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lora_lab.data.report import NO_PICTURE, Report, tell_once
from lora_lab.errors import DataError
from lora_lab.pictures import formats, is_heif, is_picture

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Files that end so are taken for pictures unseen; of all others the content decides."""
SYSTEM = frozenset(
    {
        *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler"),
        *("system volume information", "lost+found", "__macosx", "__pycache__"),
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
    }
)
NEEDS_HEIF = "needs pillow-heif"
AGAIN = "a folder that is read already"
HEAD = 64


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


def is_system(name: str) -> bool:
    """Whether a file or folder of this name belongs to a system or a storage box, or is hidden: it does not count."""
    return name.startswith(".") or name.lower() in SYSTEM


def all_files(folder: Path, report: Report | None = None) -> list[Path]:
    """All files in a folder and below it, by path, as paths below `folder`; what belongs to a system is left out.

    Links are followed, to each folder once: one that leads to nothing, or to a folder that is read already, is reported.
    """
    report = report or Report()
    found: list[Path] = []
    root = folder.resolve()
    seen = {root}
    links = _walk(folder, found, seen, report, folder)
    while links:
        link = links.pop(0)
        target = link.resolve()
        if target in seen or target in root.parents:
            report.leave(link.relative_to(folder).as_posix(), AGAIN)
        else:
            seen.add(target)
            links += _walk(link, found, seen, report, folder)
    return sorted(found)


def _walk(start: Path, found: list[Path], seen: set[Path], report: Report, root: Path) -> list[Path]:
    # Gives the links to folders, which come after all real folders, so that these keep their names.
    def unreadable(error: OSError) -> None:
        report.leave(Path(error.filename).relative_to(root).as_posix(), f"cannot be read: {error.strerror}")

    links: list[Path] = []
    for place, folders, files in os.walk(start, onerror=unreadable):
        inside = [Path(place, name) for name in sorted(folders) if not is_system(name)]
        links += [path for path in inside if path.is_symlink()]
        real = [path for path in inside if not path.is_symlink()]
        again = {path for path in real if path.resolve() in seen}
        for path in again:
            report.leave(path.relative_to(root).as_posix(), AGAIN)
        folders[:] = [path.name for path in real if path not in again]
        seen.update(path.resolve() for path in real)
        found += _files(Path(place), files, report, root)
    return links


def _files(place: Path, names: Sequence[str], report: Report, root: Path) -> Iterator[Path]:
    for path in (place / name for name in sorted(names) if not is_system(name)):
        if path.is_file():
            yield path
        else:
            why = "a broken link" if path.is_symlink() else "no file"
            report.leave(path.relative_to(root).as_posix(), why)


def image_files(folder: Path, report: Report | None = None) -> Iterator[Path]:
    """The pictures in a folder and those below it, by path, whatever their names end in; other files are reported."""
    report = report or Report()
    for path in all_files(folder, report):
        why = not_a_picture(path)
        if why:
            report.leave(path.relative_to(folder).as_posix(), why)
        else:
            yield path


def find_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder and those below it; what is not used is told. Raises `DataError` where there are none."""
    report = Report()
    found = list(image_files(folder, report)) if folder.is_dir() else []
    if not found:
        seen = f"; {report.lines[0]}" if report.lines else ""
        raise DataError(f"no photos in {folder}: name a folder that holds some{seen}")
    tell_once(report.lines)
    return found


def not_a_picture(path: Path) -> str | None:
    """Why a file is not taken for a picture; none where it is."""
    if path.suffix.lower() in ENDINGS:
        return None
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if is_heif(head) and "HEIF" not in formats():
        return NEEDS_HEIF
    return None if is_picture(path) else NO_PICTURE


def report_rest(folder: Path, used: Iterable[Path], report: Report, why: str = "not part of the data") -> None:
    """Report all files in a folder but those that are used."""
    taken = set(used)
    for path in all_files(folder, report):
        if path not in taken:
            report.leave(path.relative_to(folder).as_posix(), why)


def stamp_of(layout: str, folder: Path, paths: Iterable[Path]) -> str:
    """A split's stamp from the sizes and times of the files that it comes from; a missing file counts as such."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            stat = path.stat()
            # A copy may bring its old time along, but no file gets back the time of its last change on disk.
            digest.update(
                f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n".encode("utf-8", "surrogateescape")
            )
        except OSError:
            digest.update(f"{path}\0missing\n".encode("utf-8", "surrogateescape"))
    return json.dumps([layout, str(folder.resolve()), digest.hexdigest()[:32]])


def relative_names(folder: Path, paths: Iterable[Path]) -> list[str]:
    """What files are called in messages: their paths below the folder."""
    return [path.relative_to(folder).as_posix() for path in paths]


def first_folder(*folders: Path) -> Path | None:
    """The first of some folders that is there."""
    return next((folder for folder in folders if folder.is_dir()), None)
