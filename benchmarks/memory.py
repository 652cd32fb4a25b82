"""What memory a server takes: mixed calls about pictures of all kinds and sizes, each a merge of its own, in one process.

    python benchmarks/memory.py [CALLS]

Pictures are made, of every mode and format that Pillow writes, some of them near the limit. Prints the resident memory after
each hundred calls, and the highest, and writes the record.
"""

import json
import multiprocessing
import random
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from lora_lab.backbones import fast_precision
from lora_lab.errors import LoraLabError
from lora_lab.lab import Lab
from lora_lab.memory import keep_low
from lora_lab.merging import RecipeAdapter
from lora_lab.provenance import commit

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "assets" / "benchmarks" / "memory.json"
CALLS = 1000
PORTRAIT = ROOT / "assets" / "examples" / "astronaut.jpg"
METHODS = ("exact", "ties", "regmean", "knots_ties", "uniform")
LARGE = 10_900
"""The side of a square picture just below the limit."""


def saved(mode: str, side: int, colour: object, name: str, **options: object) -> Callable[[Path], Path]:
    """How to make a flat picture."""

    def make(folder: Path) -> Path:
        path = folder / name
        Image.new(mode, (side, side), colour).save(path, **options)  # type: ignore[arg-type]
        return path

    return make


def portrait(side: int, name: str) -> Callable[[Path], Path]:
    """How to make a photo of a face at this size."""

    def make(folder: Path) -> Path:
        path = folder / name
        Image.open(PORTRAIT).resize((side, side)).save(path)
        return path

    return make


PICTURES = (
    *(portrait(side, f"portrait-{side}.{ending}") for side in (200, 900, 3000) for ending in ("jpg", "png", "webp", "tif")),
    portrait(7000, "portrait-7000.jpg"),
    saved("RGBA", LARGE, (90, 120, 30, 90), "rgba.png", compress_level=1),
    saved("I;16", LARGE, 700, "deep.png", compress_level=1),
    saved("F", 8000, 0.5, "float.tif", compression="tiff_deflate"),
    saved("I", 8000, 70_000, "whole.tif", compression="tiff_deflate"),
    saved("CMYK", LARGE, (9, 9, 9, 9), "cmyk.jpg"),
    saved("P", LARGE, 3, "palette.gif"),
    saved("L", 20_000, 3, "too-large.png", compress_level=1),
)


def make_all(folder: str) -> None:
    """Make the pictures."""
    for make in PICTURES:
        make(Path(folder))


def resident() -> float:
    """Resident memory in GB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e9


def main(calls: int) -> None:
    """Answer so many calls, and tell and write the memory."""
    keep_low()
    lab, chosen = Lab(precision=fast_precision()), random.Random(0)
    names, now, refused = list(lab.ranks()), {}, 0
    with tempfile.TemporaryDirectory() as folder:
        # Made in a process of their own, so that only what answers is measured.
        maker = multiprocessing.get_context("spawn").Process(target=make_all, args=(folder,))
        maker.start()
        maker.join()
        paths = sorted(Path(folder).iterdir())
        assert len(paths) == len(PICTURES), "a picture could not be made"
        for call in range(1, calls + 1):
            some = chosen.sample(names, chosen.randint(1, len(names)))
            adapters = [RecipeAdapter(name=name, weight=round(chosen.uniform(0, 1.5), 2)) for name in some]
            recipe = lab.recipe(adapters).model_copy(update={"method": chosen.choice(METHODS)})
            try:
                lab.predict(lab.photo(chosen.choice(paths)), recipe)
            except LoraLabError:
                refused += 1
            if not call % 100 or call == calls:
                now[call] = round(resident(), 2)
                print(f"{call} calls: {now[call]:.2f} GB now", flush=True)  # noqa: T201
    highest = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    print(f"{calls} calls, {refused} refused: {highest:.2f} GB at the highest")  # noqa: T201
    found = {"calls": calls, "refused": refused, "pictures": len(PICTURES), "resident_gb": now, "highest_gb": highest}
    RECORD.write_text(json.dumps({**found, "commit": commit()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else CALLS)
