"""What the data sets share whose classes are folders of fixed names."""

from collections.abc import Mapping
from pathlib import Path

from lora_lab.data.dataset import Split
from lora_lab.data.files import FileImages, image_files, relative_names, stamp_of
from lora_lab.data.labels import plain
from lora_lab.errors import NotFoundError


def has_classes(folder: Path, names: Mapping[str, str], least: int) -> bool:
    """Whether a folder's folders are classes of these names and no others, at least so many of them."""
    if not folder.is_dir():
        return False
    there = [plain(path.name) for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return len(there) >= least and set(there) <= {plain(name) for name in names}


def read_classes(layout: str, folder: Path, names: Mapping[str, str]) -> Split:
    """The images in a folder's class folders; `names` gives the label of a folder's name. Raises `NotFoundError`."""
    labels_by_name = {plain(name): label for name, label in names.items()}
    paths, labels = [], []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        found = list(image_files(place))
        paths += found
        labels += [labels_by_name[plain(place.name)]] * len(found)
    if not paths:
        raise NotFoundError(f"{folder} has folders of classes, but no image in them")
    return Split(FileImages(paths), relative_names(folder, paths), {"label": labels}, stamp_of(layout, folder, paths))
