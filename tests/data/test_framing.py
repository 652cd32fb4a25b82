"""Crops of a data set: many images at once give what one after another gives, and a broken one is told as it is."""

from io import BytesIO

import numpy as np
import pytest
from conftest import EXAMPLES
from PIL import Image

from lora_lab import framing
from lora_lab.errors import DataError
from lora_lab.framing import Framed, framed, framed_all


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def sources() -> list:
    colours = [png(Image.new("RGB", (40 + n, 30), (n, 2 * n, 3 * n))) for n in range(20)]
    return [*sorted(EXAMPLES.glob("*.jpg")), *colours, b"no picture", DataError("row 3 is gone"), Image.new("RGB", (9, 9))]


@pytest.mark.parametrize("how", ["square", "face", "padded_face"])
def test_many_at_once_are_framed_as_one_after_another(how: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(framing, "FEWEST", 4)
    given = sources()
    many = list(framed_all(given, how, 56, 72, len(given)))
    assert len(many) == len(given)
    for one, source in zip(many, given, strict=True):
        alone = framed(source, how, 56, 72)
        if isinstance(alone, str):
            assert one == alone
            continue
        assert isinstance(one, Framed)
        assert np.array_equal(one.pixels, alone.pixels)
        assert (one.frame, one.detected) == (alone.frame, alone.detected)
    assert many[-3] == "the data is no image that can be read; try JPEG, PNG or WebP"
    assert many[-2] == "row 3 is gone"
    assert any(isinstance(one, Framed) and one.detected for one in many) == (how == "face")
