"""The commands about merge methods: list them, show how they stand, and measure that anew."""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from lora_lab.backbones import DEFAULT
from lora_lab.cards import PRETRAINED
from lora_lab.cli.common import (
    AdaptersOption,
    BackboneOption,
    DeviceOption,
    JsonOption,
    console,
    fail,
    notes,
    open_lab,
    print_json,
    reads_data,
    told,
)
from lora_lab.cli.sweep import announce, follow
from lora_lab.devices import AUTO
from lora_lab.merge_times import MergeTime, merge_times

if TYPE_CHECKING:
    from lora_lab.data import Reading
    from lora_lab.evaluation import Images
    from lora_lab.standings import Standing


class Size(StrEnum):
    """How many adapters a merge has; six stands for all of them."""

    SIX = "six"
    PAIRS = "pairs"
    TRIPLES = "triples"

    @property
    def count(self) -> int | None:
        return {"six": None, "pairs": 2, "triples": 3}[self.value]


class Training(StrEnum):
    """How long the adapters were trained whose records are shown."""

    LONG = "long"
    SHORT = "short"


class Which(StrEnum):
    """The tables of the league."""

    PLAIN = "plain"
    REPAIRED = "repaired"
    TRAINED = "trained"


@told
def methods(as_json: JsonOption = False) -> None:
    """List the merge methods and the repairs."""
    from lora_lab.merging import MERGE_METHODS
    from lora_lab.repairs import REPAIRS

    times = _times()
    found: list[dict[str, Any]] = [
        {**_described(method), "first_ms": time.first, "move_ms": time.move}
        for name, method in MERGE_METHODS.items()
        for time in [times.get(name, MergeTime())]
    ]
    repairs = [{k: getattr(one, k) for k in ("name", "title", "paper", "needs", "summary")} for one in REPAIRS.values()]
    if as_json:
        print_json({"methods": found, "repairs": repairs})
        return
    table = Table("method", "title", "family", "needs", "knobs", "first merge, ms", "a slider move, ms", "paper")
    for one in found:
        knobs = ", ".join(f"{knob['name']} {knob['default']:g} ({knob['low']:g} to {knob['high']:g})" for knob in one["knobs"])
        taken = ("" if one[kind] is None else f"{one[kind]:.0f}" for kind in ("first_ms", "move_ms"))
        table.add_row(one["name"], one["title"], one["family"], one["needs"], knobs, *taken, one["paper"])
    for one in repairs:
        table.add_row(one["name"], one["title"], "repair", one["needs"], "", "", "", one["paper"])
    console.print(table)


@told
@reads_data
def league(
    merge: Annotated[Size, typer.Option(help="All six adapters, pairs, or triples.")] = Size.SIX,
    table: Annotated[Which | None, typer.Option(help="One table; all if none.")] = None,
    rank: Annotated[int | None, typer.Option(help="Only adapters of this rank; bounds are always shown.")] = None,
    run: Annotated[bool, typer.Option("--run", help="Measure it: hours on two cores; what is measured stays.")] = False,
    data: Annotated[Path | None, typer.Option(help="The folder of the data sets, to measure.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only this stage; all of them in their order if none.")] = None,
    training: Annotated[Training, typer.Option(help="Records of the adapters that are served, or of their forerunners.")] = (
        Training.LONG
    ),
    records: Annotated[Path | None, typer.Option(help="The folder of the records; that of LoRA Lab if none.")] = None,
    precision: Annotated[str, typer.Option(help="bfloat16, or float32 in twice the time.")] = "bfloat16",
    backbone: BackboneOption = DEFAULT,
    device: DeviceOption = AUTO,
    adapters_root: AdaptersOption = None,
    as_json: JsonOption = False,
    *,
    reading: "Reading",
) -> None:
    """Show how the merge methods stand, the best first, or measure it with --run --data."""
    from lora_lab.evaluation import Images
    from lora_lab.records import TRAININGS
    from lora_lab.standings import TRAINED, in_table, read_standings

    folder = records or TRAININGS[training.value]
    if run:
        if data is None:
            fail("--run measures on images: name the folder of the data sets with --data")
        lab = open_lab(backbone, adapters_root or PRETRAINED, device, fast=precision == "bfloat16")
        images = Images(data.resolve(), "train", reading=reading)
        _run(lab, images, folder, TRAINED if table == Which.TRAINED else None, stage, precision)
    rows = in_table(read_standings(backbone, folder), table.value if table else None, merge.count)
    rows = [row for row in rows if rank is None or row.bound or row.rank == rank]
    if as_json:
        print_json([row.to_json() for row in rows])
    elif rows:
        console.print(_table(rows))
    else:
        console.print(f"nothing is measured yet in {folder}: `lora-lab league --run --data DATA` does", highlight=False)


def _run(lab: Any, data: "Images", folder: Path, place: str | None, stage: str | None, precision: str) -> None:
    from lora_lab.records import RecordFile
    from lora_lab.sweeps.league import STAGES, league_of, rival
    from lora_lab.sweeps.plan import worst_pairs

    entered = league_of(lab, (), folder)
    pairs = worst_pairs(entered.scope, RecordFile(folder / "merges.parquet").read())
    entered = league_of(lab, pairs, folder)
    if place:
        entered = rival(entered, place)
    for one in [STAGES[stage]] if stage else STAGES.values():
        notes.print(f"stage {one.name}: {one.title}", style="bold", highlight=False, soft_wrap=True)
        _measure(one, entered, lab, data, precision)


def _measure(stage: Any, entered: Any, lab: Any, data: "Images", precision: str) -> None:
    from lora_lab.records import RecordFile
    from lora_lab.sweeps import Cell, Sweep
    from lora_lab.sweeps.league import LOW, seer

    recipes, images = stage.recipes(entered), replace(data, split=stage.split, limit=stage.limit)
    sweep = Sweep(lab, images, RecordFile(entered.folder / stage.file), precision, seer(lab, data), beside=LOW)
    if not sweep.image_count(Cell(None)):
        fail(
            f"no {stage.split} images of any of these tasks in {data.data}; "
            f"it should hold folders such as age/{stage.split}.parquet"
        )
    cells = sweep.cells(recipes, stage.joint)
    announce(sweep, cells, len(recipes))
    if cells:
        follow(sweep, cells, None)


def _described(method: Any) -> dict[str, Any]:
    from lora_lab.merging import LAWS

    fields = ("name", "title", "family", "paper", "needs", "summary")
    knobs = ("name", "title", "default", "low", "high", "meaning", "tried", "step")
    return {
        **{field: getattr(method, field) for field in fields},
        "laws": [law for law in LAWS if law in method.laws],
        "refuses": sorted(method.refuses),
        "knobs": [{field: getattr(knob, field) for field in knobs} for knob in method.knobs],
    }


def _times() -> dict[str, MergeTime]:
    """What each method costs: from the benchmark of merges, or what making it took in the league, where it looks at images."""
    from lora_lab.standings import in_table, read_standings

    rows = in_table(read_standings(DEFAULT), "plain")
    made = {row.method: MergeTime(1e3 * row.seconds) for row in rows if row.seconds is not None}
    return {**made, **merge_times()}


def _table(rows: "Sequence[Standing]") -> Table:
    shown = Table("method", "table", "tasks", "rank", "mean kept, %", "worst kept, %", "seconds", "needs", "knobs")
    for row in rows:
        name = f"{row.title} (bound)" if row.bound else row.title
        seconds = "" if row.seconds is None else f"{row.seconds:.2f}"
        tasks = str(len(row.tasks)) if len(row.tasks) > 3 else "+".join(row.tasks)
        worst = f"{row.worst.value:.1f} {row.worst_task}"
        knobs = ", ".join(f"{knob} {value:g}" for knob, value in row.recipe.knobs.items()) if row.recipe else ""
        shown.add_row(name, row.table, tasks, f"r{row.rank}", row.mean.text(), worst, seconds, row.needs, knobs)
    return shown
