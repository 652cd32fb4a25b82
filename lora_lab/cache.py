"""Where converted weights and prepared crops are kept, and how a file gets there whole or not at all."""

import atexit
import errno
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path
from safetensors import SafetensorError

from lora_lab.errors import DataError, LoraLabError

logger = logging.getLogger(__name__)

NAME_START = 60
"""Characters of a name that stand in that of its temporary twin, which may not be too long for the file system."""
CURES = {
    errno.ENOSPC: "free some space, or name a place on another disk",
    errno.EDQUOT: "free some space, or name a place on another disk",
    errno.EROFS: "it is for reading only; name a place that can be written, for the cache by LORA_LAB_CACHE",
    errno.EACCES: "take the right to write there, or name another place, for the cache by LORA_LAB_CACHE",
    errno.EPERM: "take the right to write there, or name another place, for the cache by LORA_LAB_CACHE",
    errno.ENOENT: "make its folder first, or name another place",
    errno.ENAMETOOLONG: "take a shorter name",
}
MOST_BYTES = 2_000_000
_PART = re.compile(r"^\.(.+)\.[^.]{8}\.part$")
LFS_POINTER = b"version https://git-lfs"


def cache_folder(*parts: str) -> Path:
    """A folder of the user's cache, made if need be; the variable LORA_LAB_CACHE moves all of it."""
    root = os.environ.get("LORA_LAB_CACHE")
    folder = (Path(root) if root else user_cache_path("lora-lab")).joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        # What lies there already, such as the backbone in an installation for reading only, was found by the call above.
        place = _spare(str(folder.parents[len(parts) - 1] if parts else folder), reason(error)).joinpath(*parts)
        place.mkdir(parents=True, exist_ok=True)
        return place
    return folder


@cache
def _spare(missing: str, why: str) -> Path:
    # Once for each cache, which is told once.
    folder = tempfile.TemporaryDirectory(prefix="lora-lab-cache-")
    atexit.register(folder.cleanup)
    logger.warning("the cache %s cannot be made (%s), so %s stands in until the program ends", missing, why, folder.name)
    return Path(folder.name)


def reason(error: OSError) -> str:
    """Why the system refused, in its words."""
    return error.strerror or str(error) or type(error).__name__


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Raises `LoraLabError` where the block cannot write for a reason of the system's, such as a full disk."""
    try:
        yield
    except OSError as error:
        cure = CURES.get(error.errno or 0, "check the place, or name another")
        raise LoraLabError(f"{_meant(path)} cannot be written ({reason(error)}): {cure}") from error
    except SafetensorError as error:
        # It has the system's number in its text alone.
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else 0
        why, cure = os.strerror(number) if number else str(error), CURES.get(number, "check the place, or name another")
        raise LoraLabError(f"{_meant(path)} cannot be written ({why}): {cure}") from error
    except RuntimeError as error:
        # torch.save says no number at all.
        if "inline_container" not in str(error):
            raise
        cure = CURES[errno.ENOSPC]
        raise LoraLabError(f"{_meant(path)} cannot be written (torch could not write all of it): {cure}") from error


def _meant(path: Path) -> Path:
    # What is written whole is written under a name of its own first, which nobody has asked for.
    return Path(*(_PART.sub(r"\1", part) for part in path.parts))


def small_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file of settings, UTF-8 with or without a byte order mark, of at most `most` bytes. Raises `DataError`."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise DataError(f"{path} has more than {most} bytes, which no such file has: is it another file?")
        if content.startswith(LFS_POINTER):
            raise DataError(f"{path} is a pointer of git-lfs and not the file itself: fetch it with `git lfs pull`")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8: save it so") from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place only when the block ends without an error."""
    with written(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:NAME_START]}.", suffix=".part")
        os.close(handle)
        part = Path(name)
        try:
            yield part
            part.chmod(0o644)  # a temporary file is for its owner alone, the file that it becomes is not
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files are in `folder` only when the block ends without an error, and otherwise none of them.

    A new folder appears at once. One that is there keeps what else lies in it; what has the name of something new is replaced.
    Raises `LoraLabError` where the place is a file.
    """
    place = folder.resolve()
    file = next((path for path in (place, *place.parents) if path.exists() and not path.is_dir()), None)
    if file:
        raise LoraLabError(f"{file} is a file: name another folder")
    with written(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        # Within a folder that is there, since what lies around it may belong to others.
        around = place if place.exists() else place.parent
        part = Path(tempfile.mkdtemp(dir=around, prefix=f".{place.name[:NAME_START]}.", suffix=".part"))
        try:
            part.chmod(0o755)  # as for a file: a temporary one is for its owner alone
            yield part
            if around == place:
                _move_in(part, place)
            else:
                os.rename(part, place)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _move_in(part: Path, place: Path) -> None:
    """Move all that lies in a folder into another on the same disk; where one move fails, those before it are taken back."""
    old = Path(tempfile.mkdtemp(dir=part.parent, prefix=".old.", suffix=".part"))
    moved: list[Path] = []
    try:
        for path in sorted(part.iterdir()):
            target = place / path.name
            if target.exists():
                os.rename(target, old / path.name)
            moved.append(path)
            os.rename(path, target)
    except OSError:
        for path in moved:
            if (place / path.name).exists():
                os.rename(place / path.name, path)
            if (old / path.name).exists():
                os.rename(old / path.name, place / path.name)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
