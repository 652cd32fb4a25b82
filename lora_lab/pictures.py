"""What is a picture by its content, how large it may be, and how its file is opened."""

import struct
import warnings
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from PIL import Image

from lora_lab.errors import DataError

LARGEST_PIXELS = 120_000_000
"""The limit of any picture."""
LARGEST_DECODED = 600_000_000
"""What decoding a picture may take, in bytes; it keeps the whole program below 1.5 GB."""
WORKING_PIXELS = 25_000_000
"""A photo with more is made smaller by a whole number, so that it has at most as many."""
COSTS = {"AVIF": 12, "DDS": 60, "HEIF": 12, "JPEG2000": 25, "QOI": 8, "WEBP": 16}
"""Bytes for each pixel that decoding takes at most, as measured; other formats take at most 4 or what `cost` says.

DDS takes no more than they, but two seconds for each million of pixels.
"""
NOT_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""What Pillow knows by name and cannot decode, or hands to another program."""
NEEDED_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND")
PNG_START = b"\x89PNG\r\n\x1a\n"
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEAD = 64


@cache
def formats() -> tuple[str, ...]:
    """The names of the formats that are read, the commonest first."""
    Image.preinit()
    Image.init()
    if find_spec("pillow_heif"):
        from pillow_heif import register_heif_opener

        register_heif_opener(thumbnails=False)
    return tuple(name for name in Image.ID if name not in NOT_PICTURES)


def is_picture(source: Path | bytes) -> bool:
    """Whether a file, or its bytes, begins as a picture does, whatever it is called; HEIC counts where it cannot be read."""
    try:
        head = _head(source)
        if is_heif(head) or head.startswith(PNG_START):
            return True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=formats()).close()
        return bool(head)
    except Image.DecompressionBombError:
        return True
    except Exception:  # noqa: BLE001 (decoders raise whatever they like about what is no picture)
        return False


def is_heif(head: bytes) -> bool:
    """Whether a file that begins so is HEIC or HEIF."""
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and b"avif" not in head[8:HEAD]


def check_size(image: Image.Image, name: str) -> None:
    """Refuse what would take too much memory, before it is decoded. Raises `DataError`."""
    most = min(LARGEST_PIXELS, int(LARGEST_DECODED / cost(image)))
    if image.width * image.height > most:
        kind = "" if most == LARGEST_PIXELS else f" that a {image.format} of its kind may have"
        raise DataError(
            f"{name} has {image.width} × {image.height} pixels, over the limit of {most / 1e6:.0f} million{kind}: scale it down"
        )


def cost(image: Image.Image) -> float:
    """Bytes for each pixel that decoding an opened picture takes at most."""
    if image.format == "TIFF":
        # A strip may be the whole picture, and is unpacked beside it.
        bits = image.tag_v2.get(258, (8,))  # pyright: ignore[reportAttributeAccessIssue] (of this format's class alone)
        return 4 + max(4, sum(bits) / 8)
    if image.format in ("JPEG", "MPO") and image.info.get("progressive"):
        # All coefficients, of two bytes each, are held, whatever the scale.
        layers = image.layer  # pyright: ignore[reportAttributeAccessIssue] (of this format's class alone)
        whole = max(across for _, across, _, _ in layers) * max(down for _, _, down, _ in layers)
        return 2 * sum(across * down for _, across, down, _ in layers) / whole + 1
    return COSTS.get(image.format or "", 4)


def bare_png(data: bytes) -> bytes | None:
    """A PNG with nothing but what its pixels and its turning need; none where it is no PNG."""
    if not data.startswith(PNG_START):
        return None
    parts, place = [PNG_START], len(PNG_START)
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        if data[place + 4 : place + 8] in NEEDED_CHUNKS:
            parts.append(data[place : place + 12 + length])
        place += 12 + length
    return b"".join(parts)


def _head(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:HEAD]
    if not source.is_file():
        return b""
    with source.open("rb") as file:
        return file.read(HEAD)
