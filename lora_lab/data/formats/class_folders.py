"""What the data sets share whose classes are folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_lab.data.dataset import Split
from lora_lab.data.files import FileImages, image_files, is_system, relative_names, stamp_of
from lora_lab.data.formats.names import SPLIT_NAMES, split_name
from lora_lab.data.labels import plain
from lora_lab.data.report import Report, listed
from lora_lab.errors import NotFoundError


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder and the links to folders, by name, without those of a system."""
    return sorted(path for path in folder.iterdir() if not is_system(path.name) and path.is_dir())


def has_classes(folder: Path, names: Mapping[str, str], least: int) -> bool:
    """Whether a folder's folders are classes of these names and no others, at least so many of them."""
    if not folder.is_dir():
        return False
    there = [plain(path.name) for path in folders_in(folder)]
    return len(there) >= least and set(there) <= {plain(name) for name in names}


def read_classes(layout: str, folder: Path, names: Mapping[str, str], report: Report) -> Split:
    """The images in a folder's class folders; `names` gives the label of a folder's name. Raises `NotFoundError`."""
    labels_by_name = {plain(name): label for name, label in names.items()}
    paths, labels = [], []
    for path in image_files(folder, report):
        place = path.relative_to(folder).parts[0]
        if plain(place) in labels_by_name:
            paths.append(path)
            labels.append(labels_by_name[plain(place)])
        else:
            report.leave(path.name, "in no class's folder")
    empty = [path.name for path in folders_in(folder) if labels_by_name[plain(path.name)] not in labels]
    if empty:
        report.say(f"there is no picture in {listed(empty)}")
    if not paths:
        raise NotFoundError(f"{folder} has folders of classes, but no image in them")
    return Split(FileImages(paths), relative_names(folder, paths), {"label": labels}, stamp_of(layout, folder, paths))


@dataclass(frozen=True)
class Placed:
    """Which split and which class each image's folders name, None where they name none, and what there is to say of it.

    `bases` are the folders, seen from the top, whose folders are classes.
    """

    splits: tuple[str | None, ...]
    classes: tuple[str | None, ...]
    bases: tuple[str, ...]
    notes: tuple[str, ...]


def place(names: Sequence[str]) -> Placed:
    """The splits and classes of images from their paths below the top, folders joined by /.

    At the top there may be folders of splits, or one folder around everything. The next folder is the class; whatever is
    below it belongs to it, but for folders of splits in each class.
    """
    parts = [tuple(name.split("/")[:-1]) for name in names]
    notes: list[str] = []
    around = _around(parts)
    top = [one[len(around) :] for one in parts]
    splits: list[str | None] = [None] * len(parts)
    bases = ["/".join(around)]
    if _are_splits(top):
        splits = [split_name(one[0]) if one else None for one in top]
        folders = sorted({one[0] for one in top if one})
        top = [one[1:] for one in top]
        inside = _around([one for one in top if one])
        top = [one[len(inside) :] for one in top]
        bases = ["/".join((*around, name, *inside)) for name in folders]
        around = (*around, "…", *inside) if inside else around
    elif _end_in_splits(top):
        splits = [split_name(one[1]) if len(one) > 1 else None for one in top]
        top = [(one[0], *one[2:]) for one in top]
        notes.append("each class has folders of splits in it")
    classes = [one[0] if one else None for one in top]
    deeper = sorted({"/".join(one[:2]) for one in top if len(one) > 1})
    if deeper or around:
        taken = listed(sorted({one for one in classes if one}), 8)
        where = f" (the folders in {'/'.join(around)})" if around else ""
        below = f"; folders below belong to them, such as {listed(deeper, 2)}" if deeper else ""
        notes.append(f"taken as the classes: {taken}{where}{below}")
    return Placed(tuple(splits), tuple(classes), tuple(bases), tuple(notes))


def _around(parts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    # The folders, one in the other, that all images are in, above two folders or more.
    around: tuple[str, ...] = ()
    rest = [one for one in parts if one]
    while rest and all(len(one) > 1 for one in rest) and _only(rest) and split_name(rest[0][0]) not in SPLIT_NAMES:
        around, rest = (*around, rest[0][0]), [one[1:] for one in rest]
    return around if rest and (not _only(rest) or split_name(rest[0][0]) in SPLIT_NAMES) else ()


def _only(parts: Sequence[tuple[str, ...]]) -> bool:
    return len({one[0] for one in parts}) == 1


def _are_splits(parts: Sequence[tuple[str, ...]]) -> bool:
    # "train" may be a class as well, among cars and ships.
    below: dict[str, set[str]] = {}
    for one in parts:
        if one:
            below.setdefault(split_name(one[0]), set()).update(one[1:2])
    tops = set(below)
    if not tops or all(not one for one in parts):
        return False
    if tops <= set(SPLIT_NAMES):
        return True
    others = set().union(*(below[top] for top in tops if top not in SPLIT_NAMES))
    named = len(tops & set(SPLIT_NAMES))
    return bool(below.get("train")) and (named > 1 or bool(below["train"] & others))


def _end_in_splits(parts: Sequence[tuple[str, ...]]) -> bool:
    second = {split_name(one[1]) if len(one) > 1 else "" for one in parts if one}
    return bool(second) and second <= set(SPLIT_NAMES) and "train" in second
