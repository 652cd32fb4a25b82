"""The command that measures many merges."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lora_lab.backbones import DEFAULT
from lora_lab.cards import PRETRAINED
from lora_lab.cli.common import (
    AdaptersOption,
    BackboneOption,
    DataOption,
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
from lora_lab.devices import AUTO

if TYPE_CHECKING:
    from lora_lab.data import Reading
    from lora_lab.sweeps import Cell, Sweep

RanksOption = Annotated[str, typer.Option(help="Ranks, such as 16,64.")]
MethodsOption = Annotated[str, typer.Option(help="exact (weights 1), uniform (weights 1/K), or both with a comma.")]
OnlyOption = Annotated[
    list[str] | None, typer.Option(help="Only this set of adapters, such as age_class+landmarks; repeatable.")
]
RecordsOption = Annotated[Path | None, typer.Option(help="The file of records; that of LoRA Lab if none.")]
ClusterOption = Annotated[str | None, typer.Option(help='A Ray cluster: "local", "auto" or host:port.')]


@told
@reads_data
def sweep(
    plan: Annotated[str, typer.Argument(help="pairs, triples, subsets, weights, random or published.")],
    data: DataOption,
    ranks: RanksOption = "16",
    methods: MethodsOption = "exact",
    only: OnlyOption = None,
    split: Annotated[str, typer.Option(help="Which split.")] = "val",
    limit: Annotated[int, typer.Option(min=1, help="At most so many images a task, always the same.")] = 500,
    precision: Annotated[str, typer.Option(help="bfloat16, or float32 in twice the time.")] = "bfloat16",
    records: RecordsOption = None,
    cluster: ClusterOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how much there is to do, and how long it would take.")
    ] = False,
    backbone: BackboneOption = DEFAULT,
    device: DeviceOption = AUTO,
    adapters_root: AdaptersOption = None,
    as_json: JsonOption = False,
    *,
    reading: "Reading",
) -> None:
    """Measure many merges into a file of records, each beside its adapters alone.

    Stop it at any time: what is measured is in the file, and the same command goes on with the rest.
    """
    from lora_lab.evaluation import Images
    from lora_lab.records import RECORDS, RecordFile
    from lora_lab.sweeps import PLANS, Cell, Sweep

    chosen = PLANS[plan]
    lab = open_lab(backbone, adapters_root or PRETRAINED, device)
    scope = _scope(lab, ranks, methods, only or [])
    file = RecordFile(records or RECORDS)
    todo = Sweep(lab, Images(data.resolve(), split, limit, reading=reading), file, precision)
    if not todo.image_count(Cell(None)):
        fail(f"no {split} images of any of these tasks in {data}; it should hold folders such as age/{split}.parquet")
    told_of = {"records": str(file.path), **_measure(todo, chosen(scope, file.read), dry_run, cluster)}
    if as_json:
        print_json(told_of)
    elif not dry_run:
        console.print(f"{file.path} holds {len(file.read())} records", highlight=False, soft_wrap=True)


def _measure(todo: "Sweep", stages: Iterator[Any], dry_run: bool, cluster: str | None) -> dict[str, float]:
    sums: dict[str, float] = {"cells": 0, "images": 0, "minutes": 0}
    for stage in _known(stages) if dry_run else stages:
        cells = todo.cells(stage)
        found = announce(todo, cells, len(stage))
        sums = {name: sums[name] + found[name] for name in found}
        if cells and not dry_run:
            follow(todo, cells, cluster)
    return sums


def _known(stages: Iterator[Any]) -> Iterator[Any]:
    # A later stage may hang on records of an earlier one, which a dry run does not make.
    from lora_lab.errors import NotFoundError

    yield next(stages)
    try:
        yield from stages
    except NotFoundError as error:
        notes.print(f"more follows, which cannot be told yet: {error}", highlight=False, soft_wrap=True)


def _scope(lab: Any, ranks: str, methods: str, only: Sequence[str]) -> Any:
    from lora_lab.errors import DataError, NotFoundError
    from lora_lab.sweeps import WEIGHTINGS, Scope, parse_sets

    there = lab.ranks()
    wrong = [rank for rank in ranks.split(",") if not rank.strip().isdigit()]
    if wrong:
        raise DataError(f"--ranks takes numbers such as 16,64; this is none: {', '.join(wrong)}")
    wanted = tuple(int(rank) for rank in ranks.split(","))
    named = tuple(method.strip() for method in methods.split(","))
    for method in named:
        WEIGHTINGS[method]
    names = tuple(name for name, has in there.items() if set(wanted) <= set(has))
    if len(names) < 2:
        raise NotFoundError(f"no two adapters have rank {ranks}; see `lora-lab adapters` for what there is")
    return Scope(lab.backbone.name, names, wanted, named, parse_sets(only, names))


def announce(sweep: "Sweep", cells: "Sequence[Cell]", planned: int) -> dict[str, float]:
    images = sum(sweep.image_count(cell) for cell in cells)
    seconds = images * sweep.probe() if cells else 0.0
    notes.print(
        f"{planned} merges planned, {len(cells)} models to measure with those alone, {images} forwards of an image: "
        f"about {seconds / 60:.1f} minutes",
        highlight=False,
        soft_wrap=True,
    )
    return {"cells": len(cells), "images": images, "minutes": round(seconds / 60, 1)}


def follow(sweep: "Sweep", cells: "Sequence[Cell]", cluster: str | None) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=notes) as progress:
        bar = progress.add_task("models", total=len(cells), left="")
        start = time.monotonic()
        for step in sweep.run(cells, _measured(sweep, cells, cluster)):
            progress.update(bar, advance=1, left=f"{step.seconds_left / 60:.1f} minutes left")
            if not notes.is_terminal:
                minutes = (time.monotonic() - start) / 60
                notes.print(
                    f"{step.done} of {step.total} images in {minutes:.1f} minutes, {step.seconds_left / 60:.1f} left: "
                    f"{step.cell.title}",
                    highlight=False,
                    soft_wrap=True,
                )


def _measured(sweep: "Sweep", cells: "Sequence[Cell]", cluster: str | None) -> Iterator[Any] | None:
    if cluster is None:
        return None
    from lora_lab.sweeps.cluster import measure_on_cluster

    return measure_on_cluster(sweep, cells, None if cluster == "local" else cluster)
