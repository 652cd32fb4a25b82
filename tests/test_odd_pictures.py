"""Pictures that are rare and right: deep samples, floats, other colours, broken tags, extreme shapes, and what is no file."""

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import PORTRAIT
from PIL import Image

from lora_lab.errors import DataError
from lora_lab.faces import MOST_FACES
from lora_lab.inference import is_blank, locate
from lora_lab.lab import Lab
from lora_lab.photos import open_photo
from lora_lab.pixels import to_rgb

LARGEST_SAMPLE, ORIENTATION = 281, 274


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(most: float, kind: type) -> Image.Image:
    """16 × 16 pixels from 0 to `most`."""
    return Image.fromarray(np.linspace(0, most, 256).reshape(16, 16).astype(kind))


def red(source: bytes) -> np.ndarray:
    photo = open_photo(source)
    assert photo.mode == "RGB"
    return np.asarray(photo)[..., 0]


@pytest.mark.parametrize("most", [1023, 4095, 16383, 65535])
def test_samples_of_ten_to_sixteen_bits_are_scaled_by_what_they_hold(most: int):
    found = red(encoded(ramp(most, np.uint16), "TIFF"))
    wanted = np.linspace(0, 255, 256).reshape(16, 16)
    assert np.abs(found - wanted).max() <= 1


def test_a_dark_picture_of_twelve_bits_stays_dark_where_its_tag_says_so():
    found = red(encoded(ramp(1000, np.uint16), "TIFF", tiffinfo={LARGEST_SAMPLE: 4095}))
    assert found.max() == pytest.approx(255 * 1000 / 4095, abs=1)


@pytest.mark.parametrize("most", [1.0, 255.0, 70_000.0])
def test_floats_are_scaled_by_what_they_hold_and_no_number_is_black(most: float):
    values = np.linspace(0, most, 256).reshape(16, 16).astype(np.float32)
    values[3, 3], values[4, 4] = np.nan, np.inf
    found = red(encoded(Image.fromarray(values), "TIFF"))
    wanted = np.linspace(0, 255, 256).reshape(16, 16)
    wanted[3, 3], wanted[4, 4] = 0, 255
    assert np.abs(found - wanted).max() <= 1


def test_a_picture_without_a_number_is_one_line():
    nothing = Image.fromarray(np.full((4, 4), np.nan, np.float32))
    with pytest.raises(DataError, match="holds no number, only NaN or infinity; write it anew"):
        open_photo(encoded(nothing, "TIFF"))


def test_lab_colours_become_those_of_the_screen():
    # L*a*b* 53, 80, 67 is the red of sRGB; Pillow holds L in 255ths of 100, and 128 more than a and b.
    lab = Image.new("LAB", (4, 4), (round(53.2 * 255 / 100), 128 + 80, 128 + 67))
    colour = np.asarray(open_photo(encoded(lab, "TIFF")))[0, 0].astype(int)
    assert np.abs(colour - (255, 0, 0)).max() <= 12


@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_colours_that_were_multiplied_by_their_alpha_are_divided_again(mode: str):
    whole = Image.new("RGBA" if mode == "RGBa" else "LA", (4, 4), (200, 100, 0, 128) if mode == "RGBa" else (200, 128))
    found = np.asarray(to_rgb(whole.convert(mode)))[0, 0].astype(int)
    wanted = [round(value * 128 / 255 + 255 * 127 / 255) for value in ((200, 100, 0) if mode == "RGBa" else (200,) * 3)]
    assert np.abs(found - wanted).max() <= 2


def tag(turn: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    return exif.tobytes()


@pytest.mark.parametrize("exif", [tag(0), tag(9), tag(65535), b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"no tags at all"])
def test_a_tag_that_tells_no_turn_turns_nothing(exif: bytes):
    image = Image.new("RGB", (6, 3), "red")
    image.paste("blue", (0, 0, 3, 3))
    found = np.asarray(open_photo(encoded(image, "PNG", exif=exif)))
    assert np.array_equal(found, np.asarray(image))


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (1, 1), (3, 7000)])
def test_extreme_shapes_are_answered(tiny_lab: Lab, size: tuple[int, int], tmp_path: Path):
    path = tmp_path / "thin.png"
    Image.new("RGB", size, "teal").save(path)
    answer = tiny_lab.predict(tiny_lab.photo(path), tiny_lab.uniform())
    assert not answer.prediction.faces
    assert set(answer.prediction.photo.predictions) == {"galaxy", "land_cover"}


def test_what_is_no_file_is_one_line(tiny_lab: Lab, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name in ("pipe", "folder", "empty", "loop", "nowhere"):
        with pytest.raises(DataError, match=rf"{name}\.jpg") as told:
            tiny_lab.photo(tmp_path / f"{name}.jpg")
        assert len(str(told.value).splitlines()) == 1


def test_a_heic_is_read_as_what_it_shows():
    pytest.importorskip("pillow_heif").register_heif_opener()
    image = Image.new("RGB", (64, 48), "red")
    image.paste("blue", (0, 0, 32, 48))
    found = np.asarray(open_photo(encoded(image, "HEIF", quality=95))).astype(int)
    assert found.shape == (48, 64, 3)
    assert np.abs(found[24, 8] - (0, 0, 255)).max() <= 20
    assert np.abs(found[24, 56] - (255, 0, 0)).max() <= 20


def test_more_faces_than_are_answered_are_said(tiny_lab: Lab):
    with Image.open(PORTRAIT) as image:
        face = image.convert("RGB").crop((130, 0, 330, 200)).resize((100, 100))
    crowd = Image.new("RGB", (600, 600))
    for place in range(36):
        crowd.paste(face, (100 * (place % 6), 100 * (place // 6)))
    located = locate(crowd, tiny_lab.backbone)
    assert located.found > MOST_FACES
    assert len(located.faces) == MOST_FACES
    assert f"{located.found} faces were found, and the {MOST_FACES} largest are answered" in (located.note or "")


def test_a_calm_sea_is_no_blank_picture():
    noise = np.random.default_rng(0).normal(0, 0.73, (64, 64, 3))
    sea = Image.fromarray((np.array([30, 60, 90]) + noise).round().clip(0, 255).astype(np.uint8))
    assert not is_blank(sea)
    assert is_blank(Image.new("RGB", (64, 64), (30, 60, 90)))
