"""Where a person's adapter comes from: a folder, a zip, or the hub of models; of each only five files are ever read."""

import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HTTPError

from lora_lab.adapters import HEAD, STATISTICS
from lora_lab.archives import BROKEN, safe_places
from lora_lab.cards import CARD
from lora_lab.errors import DataError, NotFoundError
from lora_lab.peft_files import CONFIG, FACTORS

FILES = (CONFIG, FACTORS, CARD, HEAD, STATISTICS)
MOST_FILES, MOST_BYTES, MOST_JSON_BYTES = 100, 200_000_000, 2_000_000
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """A folder that holds what may be read of an adapter, what people call it, and the names of all that lay beside it."""

    folder: Path
    title: str
    names: frozenset[str]


@contextmanager
def opened(place: str) -> Iterator[Source]:
    """An adapter's files while the block lasts: of a folder, a zip, or a hub id "owner/name".

    Raises `NotFoundError` where there is nothing, and `DataError` for a zip or a hub's folder that is not to be trusted.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        folder = _adapter_in(path)
        _check_folder(folder)
        yield Source(folder, path.name, frozenset(file.name for file in folder.iterdir()))
    elif path.is_file():
        with tempfile.TemporaryDirectory(prefix="lora-lab-") as folder:
            yield Source(Path(folder), path.name, _unpacked(path, Path(folder)))
    elif HUB_ID.fullmatch(place):
        yield _fetched(place)
    else:
        raise NotFoundError(f"{place} is no folder, no zip and no hub id: name one that holds an adapter in peft's format")


def _adapter_in(folder: Path) -> Path:
    # peft puts an adapter that has a name into a folder of this name.
    if (folder / CONFIG).exists():
        return folder
    below = [path.parent for path in sorted(folder.glob(f"*/{CONFIG}"))]
    _check_one(below, folder.name)
    return below[0] if below else folder


def _check_folder(folder: Path) -> None:
    # Anything but a file, such as a pipe, would be waited for without end.
    there = [folder / name for name in FILES if (folder / name).exists()]
    odd = [path.name for path in there if not path.is_file()]
    if odd:
        raise DataError(f"{odd[0]} of {folder.name} is no regular file: put the adapter's own file in its place")
    _check_size({path.name: path.stat().st_size for path in there}, folder.name)


def _unpacked(path: Path, folder: Path) -> frozenset[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            places = safe_places(archive)
            _check_size({str(place): info.file_size for info, place in places.items()}, path.name)
            twice = [place for place, times in Counter(places.values()).items() if times > 1]
            if twice:
                raise DataError(f"{path.name} holds {twice[0]} more than once: make it anew from a folder")
            tops = [place.parent for place in places.values() if place.name == CONFIG]
            _check_one(tops, path.name)
            top = tops[0] if tops else _top(list(places.values()))
            beside = {info: place.name for info, place in places.items() if place.parent == top}
            for info, name in beside.items():
                if name in FILES:
                    (folder / name).write_bytes(archive.read(info))
    except BROKEN as error:
        raise DataError(f"{path.name} is no zip that can be read: it should hold {CONFIG} and {FACTORS}") from error
    return frozenset(beside.values())


def _top(places: list[PurePosixPath]) -> PurePosixPath:
    # Where peft's settings are missing, the other files say where the adapter would be.
    return next((place.parent for place in places if place.name.startswith("adapter_")), PurePosixPath())


def _fetched(repo: str) -> Source:
    try:
        about = HfApi().model_info(repo, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in about.siblings or ()}
        _check_size({name: size for name, size in sizes.items() if name in FILES}, repo)
        folder = snapshot_download(repo, revision=about.sha, allow_patterns=list(FILES))
    except (HTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        told = f"{repo} is no folder or zip here, and cannot be had from the hub: check the id and the network"
        raise NotFoundError(f"{told} ({reason})") from error
    return Source(Path(folder), repo, frozenset(sizes))


def _check_one(found: list, title: str) -> None:
    if len(found) > 1:
        raise DataError(f"{title} holds {len(found)} adapters, {', '.join(place.name for place in found)}: give one of them")


def _check_size(sizes: Mapping[str, int], title: str) -> None:
    total = sum(sizes.values())
    large = [name for name, size in sizes.items() if name.endswith(".json") and size > MOST_JSON_BYTES]
    if len(sizes) > MOST_FILES or total > MOST_BYTES:
        told = f"{title} holds {len(sizes)} files of {total / 1e6:.0f} MB together"
        raise DataError(f"{told}: an adapter has at most {MOST_FILES} and {MOST_BYTES / 1e6:.0f} MB")
    if large:
        raise DataError(f"{large[0]} of {title} is too large for a JSON file of an adapter: {sizes[large[0]] / 1e6:.0f} MB")
