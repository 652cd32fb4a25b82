"""The pixels of a decoded picture as upright RGB of 8 bits, made in strips: no second picture of its size is held."""

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms

from lora_lab.errors import DataError

STRIP_PIXELS = 2_000_000
ORIENTATION = 0x0112
LARGEST_SAMPLE = 281
BITS_PER_SAMPLE = 258
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
UNDIVIDED = {"La": "LA", "RGBa": "RGBA"}
DEPTHS = (8, 10, 12, 14, 16)


def to_rgb(image: Image.Image, smaller: int = 1) -> Image.Image:
    """The picture upright, in RGB, and `smaller` times smaller; transparency is laid on white, deep samples come to 8 bits.

    Raises `DataError` for floats none of which is a number, and whatever a decoder raises.
    """
    image.load()
    turn = orientation(image)
    white = _white(image) if _is_deep(image) else 0.0
    out = Image.new("RGB", (math.ceil(image.width / smaller), math.ceil(image.height / smaller)))
    for top, strip in _strips(image, smaller):
        rgb = _strip_to_rgb(_to_8_bits(strip, white) if white else strip)
        out.paste(rgb.reduce(smaller) if smaller > 1 else rgb, (0, top // smaller))
    return out.transpose(UPRIGHT[turn]) if turn in UPRIGHT else out


def orientation(image: Image.Image) -> int:
    """How a picture is turned by its EXIF tag, 1 to 8; 1 where that is lacking or broken."""
    try:
        turn = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 (a broken profile raises whatever it likes, and the pixels are there all the same)
        return 1
    return turn if turn in UPRIGHT else 1


def _strips(image: Image.Image, smaller: int) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, STRIP_PIXELS // image.width // smaller) * smaller
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _strip_to_rgb(strip: Image.Image) -> Image.Image:
    strip = strip.convert(UNDIVIDED[strip.mode]) if strip.mode in UNDIVIDED else strip
    if strip.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        turned = ImageCms.profileToProfile(strip, lab, rgb, outputMode="RGB")
        assert turned is not None
        return turned
    if strip.has_transparency_data:
        strip = strip.convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
    return strip.convert("RGB")


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _white(image: Image.Image) -> float:
    """The value that is shown as white: Pillow clips instead of scaling."""
    largest = [float(values[np.isfinite(values)].max(initial=-np.inf)) for values in map(_values, _parts(image))]
    most = max(largest)
    if most == -np.inf:
        raise DataError("the picture holds no number, only NaN or infinity; write it anew")
    if image.mode == "F":
        return max(most, 1.0)
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        # PNG has the whole range of 16 bits, save where somebody put 8 bits into it.
        return 255.0 if most <= 255 else max(65535.0, most)
    said = [float(tags.get(LARGEST_SAMPLE, (0,))[0]), 2.0 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1]
    told = [value for value in said if most <= value < 65535 and value > 0]
    return min(told) if told else next((2.0**bits - 1 for bits in DEPTHS if most < 2**bits), most)


def _parts(image: Image.Image) -> Iterator[Image.Image]:
    return (strip for _, strip in _strips(image, 1))


def _values(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.float64)


def _to_8_bits(strip: Image.Image, white: float) -> Image.Image:
    values = np.nan_to_num(_values(strip), nan=0.0, posinf=white, neginf=0.0)
    return Image.fromarray((values / white * 255).clip(0, 255).round().astype(np.uint8))
