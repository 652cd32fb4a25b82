"""Five ways to learn a task that no adapter knows, from 1, 5, 20 or all images a class; writes the record.

`python benchmarks/composition.py DATA [--minutes 60]`, DATA being the folder that holds `galaxy`, `land_cover` and `age`. The
adapters that know a task's images are left out. Scores are the task's first metric on min(500, all) val images. Each cell is
written when it is done, so that it can be stopped and taken up again.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from lora_lab.composition import WAYS, Lesson, Plan, members_for, open_new_task, scores_of
from lora_lab.composition.ways import timed
from lora_lab.lab import Lab
from lora_lab.provenance import commit
from lora_lab.results.composition import RECORD

TASKS = ("galaxy", "land_cover", "age_class")
SHOTS, SEEDS = (5, 1, 20), (0, 1, 2)
FULL_SHOT_WAYS = ("head_only", "uniform", "learned", "lora")
STEPS, FULL_STEPS, FULL_BATCH = 80, 300, 32


class Cell(NamedTuple):
    """One training; `shots` a class, all images where it is none."""

    task: str
    shots: int | None
    seed: int
    way: str


def cells() -> Iterator[Cell]:
    """All of them, those that tell most first: each seed brings all tasks but the last, which comes when these are through."""
    for tasks in (TASKS[:-1], TASKS[-1:]):
        for seed, shots in product(SEEDS, SHOTS):
            yield from (Cell(task, shots, seed, way) for task in tasks for way in WAYS)
        yield from (Cell(task, None, 0, way) for task in tasks for way in FULL_SHOT_WAYS)


def measure(lab: Lab, cell: Cell, data: Path, plan: Plan) -> dict[str, Any]:
    """The record of a cell."""
    new = open_new_task(cell.task, data, lab.backbone.image_size, cell.shots, cell.seed)
    members = members_for(lab, new.task)
    factors = {a.name: lab.adapter(a.name, a.rank).factors for a in members}
    lesson = Lesson(lab.backbone, factors, new.task, new.crops, cell.seed, plan.steps, plan.batch)
    trained, seconds = timed(WAYS[cell.way], lesson)
    metric = new.task.metric
    score = scores_of(trained, new.held_out)[metric]
    figures = {name: round(getattr(score, name), 3) for name in ("value", "low", "high")}
    found = {**cell._asdict(), "metric": metric, **figures, "n": score.n, "images": len(new.crops), "steps": plan.steps}
    found |= {"batch": lesson.size, "parameters": trained.parameters, "seconds": seconds, "commit": commit()}
    if cell.way == "learned" and trained.layers is not None:
        means = dict(zip(factors, trained.layers.mean(1).tolist(), strict=True))
        rows = dict(zip(factors, trained.layers.tolist(), strict=True))
        found["weights"] = {name: round(value, 4) for name, value in sorted(means.items(), key=lambda one: -one[1])}
        found["layers"] = {name: [round(value, 4) for value in row] for name, row in rows.items()}
    return found


def plan_of(cell: Cell, steps: int) -> Plan:
    """How long a cell learns."""
    return Plan(steps=FULL_STEPS, batch=FULL_BATCH) if cell.shots is None else Plan(steps=steps)


def main(data: Path, minutes: float, steps: int, out: Path, lab: Lab | None = None) -> None:
    """Measure what is not in the record yet, until the time is up."""
    end = time.monotonic() + 60 * minutes
    found = json.loads(out.read_text(encoding="utf-8"))["cells"] if out.exists() else []
    done = {Cell(*(one[name] for name in Cell._fields)) for one in found}
    lab = lab or Lab()
    for cell in cells():
        if cell in done:
            continue
        if time.monotonic() > end:
            break
        found.append(measure(lab, cell, data, plan_of(cell, steps)))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"cells": found}, indent=1) + "\n", encoding="utf-8")
        sys.stderr.write(f"{tuple(cell)}: {found[-1]['value']:.2f} in {found[-1]['seconds']:.0f} s\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0, help="No cell is begun after so many minutes.")
    parser.add_argument("--steps", type=int, default=STEPS, help="Steps of the cells with few images.")
    parser.add_argument("--out", type=Path, default=RECORD, help="The record.")
    given = parser.parse_args()
    main(given.data, given.minutes, given.steps, given.out)
