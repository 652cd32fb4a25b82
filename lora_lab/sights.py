"""Images for the methods that must look at some: from data sets, or from anybody's photos."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Backbone
from lora_lab.data import FOUND_OUT, Report, find_pictures, is_named_for, tell_once
from lora_lab.errors import DataError, LoraLabError
from lora_lab.evaluation import Images
from lora_lab.inference import locate
from lora_lab.merging import Sight
from lora_lab.merging.base import nobody
from lora_lab.photos import Photo
from lora_lab.tasks import Head

Tell = Callable[[float, str], None]
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def open_sight(
    backbone: Backbone, heads: Iterable[Head], folder: Path | Images, limit: int = 1000, tell: Tell = nobody
) -> Sight:
    """Train images of the heads' data where the folder holds such, else all photos in it. Raises `DataError`.

    A folder that no task is named for holds data where it is that of all heads.
    """
    heads = list(heads)
    images = folder if isinstance(folder, Images) else Images(folder, "train", limit)
    named = images.reading != FOUND_OUT or any(is_named_for(head.task, images.data) for head in heads)
    if named or all(images.open(head.task) for head in heads):
        return sight_from_data(backbone, heads, images, tell)
    return sight_from_photos(backbone, heads, images.data, tell)


def sight_from_data(backbone: Backbone, heads: Iterable[Head], images: Images, tell: Tell = nobody) -> Sight:
    """Images of each head's own data, with their labels. Raises `NotFoundError` where there are none of a split."""
    by_name = {head.task.name: head for head in heads}
    shared: dict[tuple[str, str], Tensor] = {}
    pixels, labels = {}, {}
    for name, head in by_name.items():
        dataset = images.open(head.task)
        if dataset is None:
            raise DataError(
                f"no {images.split} images of {head.task.folder} in {images.data}, which a merge of {name} must see"
            )
        crops = images.crops(head.task, backbone.image_size, dataset)
        place = (head.task.folder, head.task.stored)
        if place not in shared:
            raw = np.ascontiguousarray(crops.centre(backbone.image_size))
            shared[place] = backbone.normalise(torch.from_numpy(raw).to(backbone.device).permute(0, 3, 1, 2).float() / 255)
        pixels[name], labels[name] = shared[place], torch.from_numpy(np.asarray(crops.targets)).to(backbone.device)
    return Sight(backbone, pixels, by_name, labels, tell)


def sight_from_photos(backbone: Backbone, heads: Iterable[Head], photos: Path, tell: Tell = nobody) -> Sight:
    """The faces and centre squares of all photos in a folder, without labels. Raises `DataError` where there are none."""
    paths, report = find_pictures(photos), Report()
    pictures = Pictures.read(backbone, paths, tell, report)
    tell_once(report.lines)
    return sight_of(backbone, heads, pictures, tell)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Photos as a backbone is shown them: all the faces in them, and the centre square of each."""

    faces: Float[Tensor, "faces 3 H W"]
    squares: Float[Tensor, "photos 3 H W"]

    @classmethod
    def read(cls, backbone: Backbone, paths: Sequence[Path], tell: Tell = nobody, report: Report | None = None) -> "Pictures":
        """Read photos one after another, at least one; only their crops are kept.

        Raises `DataError` for one that cannot be read; with a report it is left out and reported, as long as others are left.
        """
        located = []
        for place, path in enumerate(paths):
            tell(place / len(paths), f"photo {place + 1} of {len(paths)}")
            try:
                located.append(locate(Photo.read(path).image, backbone))
            except DataError as error:
                if report is None or (len(paths) == place + 1 and not located):
                    raise
                report.leave(path.name, str(error).removeprefix(f"{path.name} "))
        return cls(torch.cat([one.face_pixels for one in located]), torch.cat([one.square_pixels for one in located]))

    def of(self, head: Head) -> Float[Tensor, "n 3 H W"]:
        """What a head looks at."""
        return self.faces if head.task.framing == "face" else self.squares


def sight_of(backbone: Backbone, heads: Iterable[Head], pictures: Pictures, tell: Tell = nobody) -> Sight:
    """Photos as what each head looks at, without labels. Raises `LoraLabError` where faces are asked for and there are none."""
    by_name = {head.task.name: head for head in heads}
    pixels = {name: pictures.of(head) for name, head in by_name.items()}
    blind = [name for name, seen in pixels.items() if not len(seen)]
    if blind:
        count = len(pictures.squares)
        raise LoraLabError(f"no face was found in {count} photos, and {', '.join(blind)} must see some: add portraits")
    return Sight(backbone, pixels, by_name, tell=tell)
