"""What a moved slider costs until every answer is there: `python benchmarks/slider.py` writes the record.

A photo with one face is looked at by all six adapters (the face and the centre square, two crops), and by the four that look
at faces (one crop). In turns: the plain backbone's forward of these crops; the answers after a moved slider, from the merge to
every head (`Lab.predict`); and all that the page does for it, drawn photo and tables with it (`respond`). Medians of all
rounds, in the precision that the page serves in. Run it while nothing else does.
"""

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from lora_lab.backbones import fast_precision
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.provenance import commit
from lora_lab.recent import Recent
from lora_lab.tasks import TASKS
from lora_lab.ui.merge_panel import Look, respond

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "assets" / "benchmarks" / "slider.json"
PHOTO = ROOT / "assets" / "examples" / "grace_hopper.jpg"
ROUNDS, MOVED = 120, "landmarks"
METHODS = ("exact", "regmean", "ties", "svd")


def recipe(lab: Lab, names: list[str], method: str, move: int) -> MergeRecipe:
    """All at 1 but for one slider, which is somewhere else at each move."""
    adapters = [RecipeAdapter(name=name, rank=16, weight=(1 + move % 150) / 100 if name == MOVED else 1.0) for name in names]
    return lab.recipe(adapters).model_copy(update={"method": method})


def in_turns(works: dict[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """The median milliseconds of each work."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(-10, rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work(round_)
            if round_ >= 0:
                taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: round(median(times), 2) for name, times in taken.items()}


def measure(lab: Lab, names: list[str], method: str) -> dict:
    """One row: milliseconds of the forward, the answers and the page, and how often the forward the answers take."""
    photo, previews = lab.photo(PHOTO), Recent(8)
    located = lab.locate(photo)
    faces_only = all(TASKS[name].framing == "face" for name in names)
    pixels = located.face_pixels if faces_only else torch.cat([located.face_pixels, located.square_pixels])

    def forward(_: int) -> object:
        with torch.no_grad():
            return lab.serving.encode(pixels)

    works: dict[str, Callable[[int], object]] = {
        "forward": forward,
        "answers": lambda move: lab.predict(photo, recipe(lab, names, method, move)),
        "page": lambda move: respond(lab, previews, str(PHOTO), recipe(lab, names, method, move), Look()),
    }
    taken = in_turns(works, ROUNDS)
    ratios = {f"{name}_ratio": round(taken[name] / taken["forward"], 3) for name in ("answers", "page")}
    return {
        "method": method,
        "adapters": len(names),
        "crops": len(pixels),
        **{f"{n}_ms": t for n, t in taken.items()},
        **ratios,
    }


def main() -> None:
    """Measure all and write the record."""
    lab = Lab(precision=fast_precision())
    faces = [name for name in TASKS if TASKS[name].framing == "face"]
    rows = [measure(lab, names, method) for names in (list(TASKS), faces) for method in METHODS]
    about = {"machine": platform.machine(), "threads": torch.get_num_threads(), "precision": str(lab.serving.dtype)}
    record = {"rounds": ROUNDS, "rows": rows, **about, "torch": torch.__version__, "commit": commit()}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
