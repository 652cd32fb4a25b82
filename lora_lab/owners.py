"""What visitors of a page keep on the machine that serves it: a folder for each, with limits in number and size."""

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from lora_lab.cache import cache_folder
from lora_lab.errors import LoraLabError

Kind = Literal["adapters", "merges"]
KINDS: tuple[Kind, ...] = ("adapters", "merges")
MOST = 4
"""How many adapters, and how many merges, one visitor keeps."""
MOST_BYTES = 200_000_000
ALL_MOST, ALL_BYTES = 400, 4_000_000_000
"""What all visitors together keep."""
DAYS = 30
"""What nobody has come back to for so long is removed."""


def owner_folder(owner: str) -> Path:
    """Where all lies that a visitor keeps; `owner` is a secret that nobody else has, and stands nowhere on disk."""
    return _root() / hashlib.sha256(owner.encode(errors="replace")).hexdigest()[:32]


def _root() -> Path:
    return cache_folder("owners")


def kept(folder: Path, kind: Kind) -> set[Path]:
    """The folders of what a visitor keeps of a kind."""
    return {place for place in folder.glob(f"{kind}/*/*") if not any(part.startswith(".") for part in place.parts[-2:])}


@contextmanager
def room_for(folder: Path, kind: Kind) -> Iterator[None]:
    """Lets a visitor keep one thing more while the block lasts; what it made is removed where it is too much.

    Raises `LoraLabError` where a limit is reached.
    """
    drop_unused()
    before = kept(folder, kind)
    if len(before) >= MOST:
        raise LoraLabError(f"you keep {len(before)} {kind} here, and {MOST} is the most: remove one first")
    _check_all()
    folder.mkdir(exist_ok=True)
    os.utime(folder)
    yield
    try:
        size = _size(folder)
        if size > MOST_BYTES:
            raise LoraLabError(
                f"with this you would keep {size / 1e6:.0f} MB here, and {MOST_BYTES / 1e6:.0f} is the most: remove something"
            )
        _check_all()
    except LoraLabError:
        for place in kept(folder, kind) - before:
            shutil.rmtree(place, ignore_errors=True)
        raise


def touch(folder: Path) -> None:
    """Note that a visitor has come back."""
    if folder.exists():
        os.utime(folder)


def drop_unused() -> None:
    """Remove what belongs to visitors who have not come back for `DAYS`."""
    for folder in _root().iterdir():
        try:
            if time.time() - folder.stat().st_mtime > DAYS * 86400:
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            continue


def _check_all() -> None:
    folders = list(_root().iterdir())
    count = sum(len(kept(folder, kind)) for folder in folders for kind in KINDS)
    if count > ALL_MOST or sum(map(_size, folders)) > ALL_BYTES:
        raise LoraLabError(
            "this server keeps as much for its visitors as it may: try again another day, or run LoRA Lab yourself"
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
