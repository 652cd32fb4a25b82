"""Broken picture files of every format that can be written here give a photo or one line, and never a traceback."""

import struct
import warnings
import zlib
from functools import cache
from io import BytesIO

import numpy as np
from fuzzing import fuzz
from hypothesis import strategies as st
from PIL import Image

from lora_lab.errors import DataError
from lora_lab.photos import Photo
from lora_lab.pictures import PNG_START, formats, is_picture

MODES = ("RGB", "L", "RGBA", "P", "1", "LA", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I", "F")
SKIPPED = {"EPS", "PDF", "GRIB", "BUFR", "HDF5", "WMF", "XBM"}
CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"pHYs", b"tRNS", b"gAMA", b"cHRM", b"PLTE", b"acTL", b"fcTL", b"sRGB")


@cache
def seeds() -> tuple[bytes, ...]:
    """A small picture in each format and each mode that it takes."""
    formats()
    found = []
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
    for kind in sorted(set(Image.SAVE) - SKIPPED):
        for mode in MODES:
            exif = Image.Exif()
            exif[0x0112] = 6
            for options in ({"exif": exif}, {}):
                file = BytesIO()
                try:
                    image = noise.convert("L").convert(mode) if mode in ("I;16", "I", "F", "LA") else noise.convert(mode)
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        image.save(file, kind, **options)
                except (OSError, ValueError, TypeError, KeyError, AttributeError, SystemError):
                    continue
                found.append(file.getvalue())
                break
    return tuple(found)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A picture with bytes changed, cut out, doubled or put in; of a PNG whole chunks too, their sums being right."""
    data = bytearray(draw(st.sampled_from(seeds())))
    for _ in range(draw(st.integers(1, 6))):
        # Headers are where most decoders stumble.
        place = draw(st.one_of(st.integers(0, min(len(data), 120)), st.integers(0, len(data))))
        how = draw(st.sampled_from(("change", "cut", "out", "double", "insert", "number", "chunk")))
        if how == "change" and place < len(data):
            data[place] = draw(st.integers(0, 255))
        elif how == "cut" and place > 8:
            del data[place:]
        elif how == "out":
            del data[place : place + draw(st.integers(1, 40))]
        elif how == "double":
            data[place:place] = data[place : place + draw(st.integers(1, 60))]
        elif how == "insert":
            data[place:place] = draw(st.binary(max_size=30))
        elif how == "number":
            data[place : place + 4] = struct.pack(
                draw(st.sampled_from("<>")) + "I", draw(st.sampled_from((0, 1, 255, 2**31, 2**32 - 1)))
            )
        elif data.startswith(PNG_START):
            data = with_chunk(draw, data)
    return bytes(data)


def with_chunk(draw: st.DrawFn, data: bytearray) -> bytearray:
    """The PNG with one more chunk after a drawn one."""
    ends, place = [], len(PNG_START)
    while place + 12 <= len(data):
        place += 12 + struct.unpack(">I", data[place : place + 4])[0]
        ends.append(place)
    end = draw(st.sampled_from(ends or [len(PNG_START)]))
    content = draw(
        st.one_of(
            st.binary(max_size=40),
            st.just(b"Raw profile type exif\0no hex"),
            st.just(b"c\0\0" + zlib.compress(bytes(2_000_000))),
        )
    )
    data[end:end] = chunk(draw(st.sampled_from(CHUNKS)), content)
    return data


def a_photo_or_one_line(data: bytes) -> None:
    is_picture(data)
    try:
        photo = Photo.read(data)
    except DataError as error:
        photo, line = None, str(error)
    else:
        line = ""
    assert "\n" not in line
    assert len(line) <= 300
    assert photo is None or (photo.image.mode == "RGB" and min(photo.image.size) >= 1)


def test_broken_pictures_give_a_photo_or_one_line():
    assert len(seeds()) > 60
    assert fuzz("pictures", broken(), a_photo_or_one_line) > 10
