"""A photo as everybody else sees it: upright, RGB, 8 bits."""

import hashlib
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lora_lab.errors import DataError

LARGEST_PIXELS = 200_000_000


@dataclass(frozen=True, eq=False)
class Photo:
    """An upright RGB image, and a key that is the same for the same file."""

    image: Image.Image
    key: str

    @classmethod
    def read(cls, source: Path | bytes) -> "Photo":
        """A photo from a file or its bytes. Raises `DataError`."""
        image = open_photo(source)
        content = source if isinstance(source, bytes) else source.read_bytes()
        return cls(image, hashlib.sha256(content).hexdigest())


def open_photo(source: Path | bytes) -> Image.Image:
    """An RGB photo after its EXIF rotation; transparency is laid on white, 16 bits are brought to 8.

    Raises `DataError` for what is no image, and for one of more than 200 megapixels.
    """
    name = source.name if isinstance(source, Path) else "the data"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(source) if isinstance(source, bytes) else source)
            if image.width * image.height > LARGEST_PIXELS:
                raise DataError(
                    f"{name} has {image.width} × {image.height} pixels, over {LARGEST_PIXELS // 10**6} million: scale it down"
                )
            return to_rgb(image)
    except FileNotFoundError as error:
        raise DataError(f"{source} is not there; check the path") from error
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise DataError(f"{name} is no image that can be read; try JPEG, PNG or WebP") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """The image upright and in RGB, whatever its mode."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    # Pillow clips instead of scaling; 16-bit files use 0–65535, floats mostly 0–1.
    values = np.asarray(image, dtype=np.float64)
    full = 65535 if image.mode.startswith("I") and values.max(initial=0) > 255 else max(values.max(initial=0), 1)
    if image.mode.startswith("I") and values.max(initial=0) <= 255:
        full = 255
    return Image.fromarray((values / full * 255).clip(0, 255).round().astype(np.uint8))
