"""A photo as everybody else sees it: upright, RGB, 8 bits."""

import hashlib
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from PIL import Image

from lora_lab.errors import DataError
from lora_lab.memory import give_back
from lora_lab.pictures import LARGEST_PIXELS, WORKING_PIXELS, bare_png, check_size, cost, formats, is_heif
from lora_lab.pixels import to_rgb

T = TypeVar("T")
SMALLER = "smaller"
"""What an image's `info` calls how many times smaller than its file it is."""
LONGEST_NAME = 60
HEAVY = 100_000_000
"""Pictures whose decoding takes more bytes are decoded one after another."""

_one_at_a_time = threading.Lock()


@dataclass(frozen=True, eq=False)
class Photo:
    """An upright RGB image, and a key that is the same for the same file.

    Of more than 25 megapixels it is some whole number of times smaller than its file, see `times_smaller`.
    """

    image: Image.Image
    key: str

    @classmethod
    def read(cls, source: Path | bytes) -> "Photo":
        """A photo from a file or its bytes. Raises `DataError`."""
        image = open_photo(source)
        if isinstance(source, bytes):
            return cls(image, hashlib.sha256(source).hexdigest())
        try:
            with source.open("rb") as file:
                return cls(image, hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise DataError(f"{_name(source)} cannot be read: {error.strerror}") from error

    @property
    def width(self) -> int:
        """The width in the pixels of its file, in which boxes and points are told; of a smaller photo, rounded up."""
        return self.image.width * times_smaller(self.image)

    @property
    def size_bytes(self) -> int:
        """What keeping it takes: Pillow holds four bytes a pixel."""
        return 4 * self.image.width * self.image.height


def times_smaller(image: Image.Image) -> int:
    """How many times smaller than its file a photo is, a whole number."""
    return image.info.get(SMALLER, 1)


def open_photo(source: Path | bytes) -> Image.Image:
    """An RGB photo after its EXIF rotation; transparency is laid on white, 16 bits are brought to 8.

    One of more than 25 megapixels is made smaller. Raises `DataError` for what is no picture, what is too large, and what
    cannot be read.
    """
    return read_safely(source, _photo)


def read_safely(source: Path | bytes, read: Callable[[Image.Image], T]) -> T:
    """What `read` makes of an opened picture that is within the limits. Raises `DataError`, whatever the decoder raised."""
    name = _name(source)
    head = _checked_head(source, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read(source, name, read)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{name} has more pixels than the limit of {LARGEST_PIXELS / 1e6:.0f} million: scale it down"
        ) from error
    except Exception as error:
        # A decoder raises whatever it likes about a broken file.
        if is_heif(head) and "HEIF" not in formats():
            told = (
                f"{name} is a HEIC picture: to read it, install pillow-heif (pip install 'lora-lab[heif]'), or save it as JPEG"
            )
            raise DataError(told) from error
        raise DataError(f"{name} is no image that can be read; try JPEG, PNG or WebP") from error


def _read(source: Path | bytes, name: str, read: Callable[[Image.Image], T]) -> T:
    try:
        return _opened(BytesIO(source) if isinstance(source, bytes) else source, name, read)
    except (DataError, Image.DecompressionBombError):
        raise
    except Exception:
        # Texts and profiles of a PNG that cannot be read are not the picture.
        data = bare_png(source if isinstance(source, bytes) else source.read_bytes())
        if data is None:
            raise
        return _opened(BytesIO(data), name, read)


def _opened(file: BytesIO | Path, name: str, read: Callable[[Image.Image], T]) -> T:
    with Image.open(file, formats=formats()) as image:
        check_size(image, name)
        with _alone() if image.width * image.height * cost(image) > HEAVY else nullcontext():
            return read(image)


def _photo(image: Image.Image) -> Image.Image:
    times, drawn = math.ceil(math.sqrt(image.width * image.height / WORKING_PIXELS)), 1
    if times > 1 and image.format in ("JPEG", "MPO"):
        # JPEG is decoded at a half, a quarter or an eighth.
        wide = image.width
        image.draft(None, (image.width // times, image.height // times))
        drawn = round(wide / image.width)
    photo = to_rgb(image, math.ceil(times / drawn))
    if times > 1:
        photo.info[SMALLER] = drawn * math.ceil(times / drawn)
    return photo


@contextmanager
def _alone() -> Iterator[None]:
    with _one_at_a_time:
        yield
    give_back()


def _name(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return "the data"
    name = source.name or str(source)
    name = "".join(sign if sign.isprintable() else "�" for sign in name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}…{name[-LONGEST_NAME // 2 :]}"


def _checked_head(source: Path | bytes, name: str) -> bytes:
    try:
        if isinstance(source, bytes):
            head = source[:64]
        elif not source.exists():
            raise DataError(f"{_shown(source)} is not there; check the path")
        elif not source.is_file():
            raise DataError(f"{name} is no file, so it is no image; name one")
        else:
            with source.open("rb") as file:
                head = file.read(64)
    except (OSError, ValueError) as error:
        raise DataError(f"{name} cannot be read ({getattr(error, 'strerror', None) or error}); check the path") from error
    if not head:
        raise DataError(f"{name} is empty, so it is no image; copy it anew")
    return head


def _shown(source: Path) -> str:
    shown = str(source)
    return shown if len(shown) <= 150 and shown.isprintable() else _name(source)
