"""Photos cut to one annotated face, so that the face meant is the one that is found in them."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from lora_lab.errors import DataError
from lora_lab.records import Box

MARGIN = 1.8


class FaceCrops(Sequence[Any]):
    """The part of each photo in its box, an RGB image, cut when it is asked for; boxes end where the photo ends.

    Boxes are in pixels of the file as it is stored, before any EXIF rotation, for so are annotations made. Raises
    `DataError` for a photo that cannot be read.
    """

    def __init__(self, paths: Sequence[Path], boxes: Sequence[Box]):
        self._paths, self._boxes = paths, boxes

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return FaceCrops(self._paths[index], self._boxes[index])
        path, (left, top, right, bottom) = self._paths[index], self._boxes[index]
        try:
            with Image.open(BytesIO(path.read_bytes())) as photo:
                box = (int(left), int(top), min(int(right), photo.width), min(int(bottom), photo.height))
                if box[2] <= box[0] or box[3] <= box[1]:
                    raise DataError(f"the face of {path.name} lies outside the photo of {photo.width} × {photo.height} pixels")
                # A new image, so that no EXIF rotation is left to be applied.
                return Image.fromarray(np.asarray(photo.convert("RGB").crop(box)))
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
            raise DataError(f"{path.name} is no image that can be read; try JPEG, PNG or WebP") from error


def box_around(box: Box, margin: float = MARGIN) -> Box:
    """A square of whole pixels around a box, `margin` times as wide as its longer side, cut off at the photo's left and top."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half = max(box[2] - box[0], box[3] - box[1]) * margin / 2
    return (max(0.0, np.floor(x - half)), max(0.0, np.floor(y - half)), np.ceil(x + half), np.ceil(y + half))


def cut_to_points(paths: Sequence[Path], points: Sequence[np.ndarray]) -> tuple[FaceCrops, list[list[float]]]:
    """Photos cut around their points (k, 2), and the points moved along, as x, y, x, y, …"""
    boxes = [box_around((*each.min(0), *each.max(0))) for each in points]
    moved = [(each - box[:2]).ravel().tolist() for each, box in zip(points, boxes, strict=True)]
    return FaceCrops(paths, boxes), moved
