"""Images for the methods that must look at some: from data sets, or from anybody's photos."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Backbone
from lora_lab.data import has_split
from lora_lab.errors import DataError, LoraLabError
from lora_lab.evaluation import Images
from lora_lab.inference import locate
from lora_lab.merging import Sight
from lora_lab.merging.base import nobody
from lora_lab.photos import Photo
from lora_lab.tasks import Head

Tell = Callable[[float, str], None]
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def open_sight(backbone: Backbone, heads: Iterable[Head], folder: Path, limit: int, tell: Tell = nobody) -> Sight:
    """Train images of the heads' data where the folder holds such, else all photos in it. Raises `DataError`."""
    heads = list(heads)
    if any(has_split(head.task, folder, "train") for head in heads):
        return sight_from_data(backbone, heads, Images(folder, "train", limit), tell)
    return sight_from_photos(backbone, heads, folder, tell)


def sight_from_data(backbone: Backbone, heads: Iterable[Head], images: Images, tell: Tell = nobody) -> Sight:
    """Images of each head's own data, with their labels. Raises `NotFoundError` where there are none of a split."""
    by_name = {head.task.name: head for head in heads}
    shared: dict[tuple[str, str], Tensor] = {}
    pixels, labels = {}, {}
    for name, head in by_name.items():
        if not has_split(head.task, images.data, images.split):
            raise DataError(
                f"no {images.split} images of {head.task.folder} in {images.data}, which a merge of {name} must see"
            )
        crops = images.crops(head.task, backbone.image_size)
        place = (head.task.folder, head.task.stored)
        if place not in shared:
            raw = np.ascontiguousarray(crops.centre(backbone.image_size))
            shared[place] = backbone.normalise(torch.from_numpy(raw).to(backbone.device).permute(0, 3, 1, 2).float() / 255)
        pixels[name], labels[name] = shared[place], torch.from_numpy(np.asarray(crops.targets)).to(backbone.device)
    return Sight(backbone, pixels, by_name, labels, tell)


def sight_from_photos(backbone: Backbone, heads: Iterable[Head], photos: Path, tell: Tell = nobody) -> Sight:
    """The faces and centre squares of all photos in a folder, without labels. Raises `DataError` where there are none."""
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in SUFFIXES) if photos.is_dir() else []
    if not paths:
        raise DataError(f"no photos in {photos}: name a folder that holds some ({', '.join(SUFFIXES)})")
    return sight_of(backbone, heads, Pictures.read(backbone, paths), tell)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Photos as a backbone is shown them: all the faces in them, and the centre square of each."""

    faces: Float[Tensor, "faces 3 H W"]
    squares: Float[Tensor, "photos 3 H W"]

    @classmethod
    def read(cls, backbone: Backbone, paths: Sequence[Path], tell: Tell = nobody) -> "Pictures":
        """Read photos one after another, at least one; only their crops are kept. Raises `DataError`."""
        located = []
        for place, path in enumerate(paths):
            tell(place / len(paths), f"photo {place + 1} of {len(paths)}")
            located.append(locate(Photo.read(path).image, backbone))
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
