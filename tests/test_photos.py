"""Every kind of image file becomes an upright RGB photo, or one clear line."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_lab import pictures
from lora_lab.errors import DataError
from lora_lab.photos import Photo, open_photo


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def two_tone() -> Image.Image:
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (0, 0, 20, 20))
    return image


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    photo = open_photo(encoded(two_tone(), "JPEG", exif=exif, quality=95))
    assert photo.size == (20, 40)
    top, bottom = np.asarray(photo)[5, 10], np.asarray(photo)[35, 10]
    assert top[2] > 200 > 60 > top[0]
    assert bottom[0] > 200 > 60 > bottom[2]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA"])
def test_every_mode_becomes_rgb(mode: str):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    photo = open_photo(encoded(two_tone().convert(mode), kind))
    assert photo.mode == "RGB"
    assert photo.size == (40, 20)


def test_transparency_is_laid_on_white():
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert np.asarray(open_photo(encoded(clear, "PNG"))).min() == 255


def test_sixteen_bits_are_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    photo = np.asarray(open_photo(encoded(Image.fromarray(ramp), "PNG")))[..., 0]
    assert photo[0, 0] == 0
    assert photo[-1, -1] == 255
    assert abs(int(photo[8, 0]) - 128) <= 2


def test_too_large_an_image_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pictures, "LARGEST_PIXELS", 500)
    with pytest.raises(DataError, match="scale it down"):
        open_photo(encoded(two_tone(), "PNG"))


def test_a_large_image_is_read():
    photo = Photo.read(encoded(Image.new("L", (12000, 9000)), "PNG"))
    assert photo.image.size == (4000, 3000)
    assert photo.width == 12000


def test_what_is_no_image_is_told(tmp_path: Path):
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    with pytest.raises(DataError, match=r"notes\.txt is no image"):
        open_photo(text)
    with pytest.raises(DataError, match="is not there"):
        open_photo(tmp_path / "missing.jpg")
    with pytest.raises(DataError, match="is no image"):
        open_photo(encoded(two_tone(), "JPEG")[:300])


def test_the_same_file_has_the_same_key():
    data = encoded(two_tone(), "PNG")
    assert Photo.read(data).key == Photo.read(data).key != Photo.read(encoded(two_tone(), "JPEG")).key


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_chunk_that_unpacks_to_over_a_megabyte_is_ignored(kind: bytes):
    png, data = encoded(two_tone(), "PNG"), b"c\0\0" + zlib.compress(bytes(3_000_000))
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    assert open_photo(png[:33] + chunk + png[33:]).tobytes() == two_tone().tobytes()
