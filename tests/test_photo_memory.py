"""What decoding a picture at the limit takes, in a process of its own: with the model it stays below 1.5 GB."""

import subprocess
import sys
from pathlib import Path

import pytest

from lora_lab.pictures import COSTS, LARGEST_DECODED, LARGEST_PIXELS

MODEL = 0.5
"""GB that torch and the model take."""
MAKE = """
import sys
from PIL import Image
Image.MAX_IMAGE_PIXELS = None
mode, side, path, options = sys.argv[1], int(sys.argv[2]), sys.argv[3], eval(sys.argv[4])
Image.new(mode, (side, side), 0.5 if mode == "F" else 3).save(path, **options)
"""
READ = """
import re, sys
from pathlib import Path
from lora_lab.photos import Photo
image = Photo.read(Path(sys.argv[1])).image
assert image.width * image.height <= 25_000_000
# Not getrusage, which knows the memory of the process that started this one as well.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024)
"""
QUICK = {"compress_level": 1}


def side(cost: float) -> int:
    """Of the largest square whose decoding takes so many bytes a pixel."""
    return int(min(LARGEST_PIXELS, LARGEST_DECODED / cost) ** 0.5)


def run(code: str, *words: object) -> str:
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("mode", "ending", "cost", "options"),
    [
        ("RGBA", "png", 4, QUICK),
        ("I;16", "png", 4, QUICK),
        ("P", "png", 4, {**QUICK, "transparency": 3}),
        ("P", "gif", 4, {}),
        ("CMYK", "jpg", 4, {}),
        ("F", "tif", 8, {"compression": "tiff_deflate"}),
        ("RGBA", "webp", COSTS["WEBP"], {"lossless": True, "method": 0}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory otherwise")
def test_a_picture_of_the_limit_leaves_room(mode: str, ending: str, cost: float, options: dict, tmp_path: Path):
    path = tmp_path / f"large.{ending}"
    run(MAKE, mode, side(cost), path, options)
    peak = int(run(READ, path)) / 1e9
    assert 0.1 < peak < 1.5 - MODEL
