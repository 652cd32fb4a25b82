"""What stronger adapters are worth: what each task scores alone and after merging all of them, by training and by method.

An adapter that was trained for longer scores more alone and is harder to merge. What counts is the score after merging.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from lora_lab.backbones import DEFAULT
from lora_lab.findings import METRIC, Interval
from lora_lab.records import TRAININGS, RecordFile
from lora_lab.standings import Standing, in_table, read_standings
from lora_lab.sweeps.league import LEAGUE, LOW
from lora_lab.tasks import TASKS


@dataclass(frozen=True)
class Reached:
    """A merge of all adapters of one training: what a task scores alone and in it, both on the same images."""

    training: str
    standing: Standing
    alone: Interval
    merged: Interval


@cache
def merges_of(training: str, file: str = LEAGUE) -> tuple[Standing, ...]:
    """All merges of all adapters of a training that a file of the league holds on val, the best first; no bounds."""
    rows = in_table(read_standings(DEFAULT, TRAININGS[training], file), None)
    return tuple(row for row in rows if not row.bound and row.rank == LOW and row.table != "trained")


@cache
def alone_in(training: str, file: str = LEAGUE) -> dict[str, Interval]:
    """What each adapter of a training scores alone, on the same images of val."""
    rows = RecordFile(TRAININGS[training] / file).read()
    rows = rows[(rows.subject == "adapter") & (rows.split == "val") & rows.adapters.str.contains(f":r{LOW}=")]
    found = {}
    for name, task in TASKS.items():
        of = rows[(rows.task == name) & (rows.metric == task.metric) & rows.label.isna()]
        if len(of):
            last = of.iloc[-1]
            found[name] = Interval(float(last.value), float(last.low), float(last.high))
    return found


def reached(task: str) -> list[Reached]:
    """What a task reaches by every method and training."""
    found = []
    for training in TRAININGS:
        alone = alone_in(training).get(task)
        for row in merges_of(training):
            merged = row.at(task, METRIC)
            if alone and merged:
                found.append(Reached(training, row, alone, merged))
    return found


def undominated(rows: Sequence[Standing]) -> list[Standing]:
    """Those than which none keeps more in as little time, the quickest first."""
    timed = sorted((row for row in rows if row.seconds is not None), key=lambda row: (row.seconds, -row.mean.value))
    front: list[Standing] = []
    for row in timed:
        if not front or row.mean.value > front[-1].mean.value:
            front.append(row)
    return front
