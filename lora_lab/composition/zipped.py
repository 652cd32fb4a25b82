"""A new task from a zip with a folder of images a class. It is read where it lies: nothing of it is written or kept."""

import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from lora_lab.archives import BROKEN, safe_places
from lora_lab.composition.few_shot import NewTask, drawn_rows, few_shot
from lora_lab.data import Crops, Dataset, own_task
from lora_lab.data.dataset import reader_of
from lora_lab.data.files import ENDINGS, is_system
from lora_lab.data.report import NO_PICTURE, Report, tell_once
from lora_lab.errors import DataError
from lora_lab.faces import centre_square, detect
from lora_lab.photos import open_photo
from lora_lab.pictures import is_picture
from lora_lab.tasks import Task
from lora_lab.tasks.base import Framing

MOST_BYTES = 200_000_000
MOST_IMAGES = 2000
FEWEST = 2
NAME = "new_task"
TOLD = "it should hold a folder a class with images in it"


def task_of_zip(path: Path, size: int, shots: int, seed: int = 0, framing: Framing = "square") -> NewTask:
    """The new task of a zip, for a backbone whose input is `size` pixels wide.

    One image of each class is held out, and those that are not drawn. Raises `DataError` for what is no such zip.
    """
    task, crops = read_zip(path, size, framing)
    held_out = drawn_rows(task, crops.targets, 1, seed)
    rest = np.setdiff1d(np.arange(len(crops)), held_out)
    return few_shot(task, crops.part(rest), crops.part(held_out), shots, seed)


def read_zip(path: Path, size: int, framing: Framing = "square") -> tuple[Task, Crops]:
    """The task that a zip's folders name, and its images, framed."""
    try:
        with zipfile.ZipFile(path) as archive:
            report = Report()
            classes = _classes(archive, report)
            framed = _framed(archive, classes, (size, framing), report)
            tell_once(report.lines)
            classes = _checked({info: classes[info] for info in framed})
            labels = tuple(sorted(set(classes.values())))
            pixels = np.stack(list(framed.values()))
    except BROKEN as error:
        raise DataError(f"{path.name} is no zip that can be read: {TOLD}") from error
    dataset = Dataset(Path(path.stem), "imagefolder", (), reader_of(path, {}), "classes", "label", labels)
    targets = np.array([labels.index(label) for label in classes.values()], np.int64)
    return own_task(NAME, dataset, framing), Crops(pixels, targets, None, None)


def _classes(archive: zipfile.ZipFile, report: Report) -> dict[zipfile.ZipInfo, str]:
    files = {info: place for info, place in safe_places(archive).items() if not any(map(is_system, place.parts))}
    _check_size(files)
    others = {info for info, place in files.items() if not _is_image(archive, info, place)}
    for info in others:
        report.leave(str(files[info]), NO_PICTURE)
    images = _without_top({info: place for info, place in files.items() if info not in others})
    for place in (place for place in images.values() if len(place.parts) == 1):
        report.leave(str(place), "in no class's folder")
    return {info: place.parts[0] for info, place in images.items() if len(place.parts) > 1}


def _is_image(archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: PurePosixPath) -> bool:
    return place.name.lower().endswith(ENDINGS) or is_picture(archive.read(info))


def _check_size(files: dict[zipfile.ZipInfo, PurePosixPath]) -> None:
    total = sum(info.file_size for info in files)
    if total > MOST_BYTES or len(files) > MOST_IMAGES:
        raise DataError(
            f"the zip holds {len(files)} images of {total / 1e6:.0f} MB together: "
            f"take at most {MOST_IMAGES} and {MOST_BYTES / 1e6:.0f} MB"
        )


def _without_top(files: dict[zipfile.ZipInfo, PurePosixPath]) -> dict[zipfile.ZipInfo, PurePosixPath]:
    # A zip of a folder has that folder around all classes.
    wrapped = len({place.parts[0] for place in files.values()}) == 1 and all(len(place.parts) > 2 for place in files.values())
    return {info: PurePosixPath(*place.parts[1:]) if wrapped else place for info, place in files.items()}


def _checked(classes: dict[zipfile.ZipInfo, str]) -> dict[zipfile.ZipInfo, str]:
    counts = Counter(classes.values())
    if len(counts) < FEWEST:
        raise DataError(f"the zip holds {len(counts)} classes, and there must be {FEWEST} or more: {TOLD}")
    lacking = [name for name, count in counts.items() if count < FEWEST]
    if lacking:
        raise DataError(f"there must be {FEWEST} images a class or more; there are fewer of {', '.join(sorted(lacking))}")
    return classes


def _framed(
    archive: zipfile.ZipFile, files: Iterable[zipfile.ZipInfo], how: tuple[int, Framing], report: Report
) -> dict[zipfile.ZipInfo, np.ndarray]:
    framed = {}
    for info in files:
        try:
            framed[info] = np.asarray(_crop(open_photo(archive.read(info)), *how))
        except DataError as error:
            report.leave(info.filename, str(error))
    return framed


def _crop(photo: Image.Image, size: int, framing: Framing) -> Image.Image:
    # Where no face is found the centre square is taken, as it is for data on disk.
    faces = detect(photo) if framing == "face" else ()
    return (faces[0].frame if faces else centre_square(photo)).crop(photo, size)
