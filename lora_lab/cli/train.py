"""The command that trains adapters."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lora_lab.backbones import DEFAULT
from lora_lab.cards import Tuning
from lora_lab.cli.common import (
    BackboneOption,
    DataOption,
    DeviceOption,
    JsonOption,
    console,
    fail,
    notes,
    print_json,
    reads_data,
    told,
)
from lora_lab.devices import AUTO
from lora_lab.tasks.base import Framing

if TYPE_CHECKING:
    from lora_lab.data import Reading
    from lora_lab.training.job import Job

FramingOption = Annotated[Framing, typer.Option(help="For a task of your own: what is looked at.")]
ToMergeOption = Annotated[bool, typer.Option("--to-merge", help="An adapter for each task, trained in their exact sums.")]
StartOption = Annotated[str | None, typer.Option(help="Go on from adapters of this variant, such as r16.")]
ImagesOption = Annotated[int | None, typer.Option(min=1, help="Image steps in all; the task's own number if none.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any other setting, such as batch=64 or learning_rate=1e-4; repeatable.")
]
LogOption = Annotated[Path | None, typer.Option(help="Folder for TensorBoard; one in the cache if none.")]
NoteOption = Annotated[bool, typer.Option("--note-seed", help="Only note the score on the card of the adapter that is there.")]


@told
@reads_data
def train(
    task: Annotated[str, typer.Argument(help="A task, a name for one of your own, several joined by commas, or all.")],
    data: DataOption,
    framing: FramingOption = "square",
    rank: Annotated[int, typer.Option(min=1, help="The rank of the factors.")] = 16,
    head_only: Annotated[bool, typer.Option("--head-only", help="Train a head alone, on features encoded once.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Train all weights of the backbone.")] = False,
    to_merge: ToMergeOption = False,
    start_from: StartOption = None,
    images: ImagesOption = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and views.")] = 0,
    settings: SetOption = None,
    log: LogOption = None,
    note_seed: NoteOption = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew even where a killed run could go on.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the data and say how long it would take.")] = False,
    backbone: BackboneOption = DEFAULT,
    device: DeviceOption = AUTO,
    out: Annotated[Path | None, typer.Option(help="Adapters folder to write to; that of LoRA Lab if none.")] = None,
    as_json: JsonOption = False,
    *,
    reading: "Reading",
) -> None:
    """Train an adapter; a run that was killed goes on where it was when it is started again."""
    from lora_lab.training.job import Job, Wish

    if head_only and full:
        fail("give --head-only or --full, not both")
    tuning: Tuning = "head_only" if head_only else "full" if full else "lora"
    changes = {"seed": seed, "to_merge": to_merge} | ({"images": images} if images else {}) | _settings(settings or [])
    wish = Wish(task, data, reading, framing, tuning, rank, start_from, backbone, device, out, changes)
    job = Job(wish)
    for note in job.notes:
        notes.print(note, highlight=False, soft_wrap=True)
    if dry_run:
        _tell_plan(job, as_json)
        return
    _train(job, log, fresh)
    if job.run.workers.first:
        _tell_seed(job.note_seed()) if note_seed else _tell_adapters(job.save(), as_json)


def _settings(given: list[str]) -> dict[str, str]:
    wrong = [one for one in given if "=" not in one]
    if wrong:
        fail(f"--set takes name=value, such as batch=64; this is none: {', '.join(wrong)}")
    return {name: value for name, _, value in (one.partition("=") for one in given)}


def _train(job: "Job", log: Path | None, fresh: bool) -> None:
    run = job.run
    if fresh:
        run.forget_checkpoint()
    went_on = run.load_checkpoint()
    if not went_on and run.older_checkpoint().exists():
        notes.print("an earlier version's run was stopped here; it does not say on which data, so this one begins anew")
    if not run.workers.first:
        for _ in run.steps():
            pass
        return
    if went_on:
        notes.print(f"going on from image {run.step * run.config.batch} of {run.config.images}", highlight=False)
    _follow(job, log or job.log_folder())


def _follow(job: "Job", folder: Path) -> None:
    from lora_lab.training.log import Log

    notes.print(f"TensorBoard: tensorboard --logdir {folder}", highlight=False, soft_wrap=True)
    with Log(folder, job.run) as log, _bar(job.run) as show:
        for step in job.run.steps():
            log.write(step)
            show(step)


@contextmanager
def _bar(run: Any) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    name = run.parts[0].task.name if len(run.parts) == 1 else f"{len(run.parts)} tasks"
    with Progress(*columns, console=notes) as progress:
        bar = progress.add_task(name, total=run.config.images, speed="", completed=run.step * run.config.batch)

        def show(step: Any) -> None:
            progress.update(bar, completed=step.images, speed=f"{step.images_per_second:.0f} images/s, loss {step.loss:.3f}")
            if step.check is not None:
                notes.print(
                    f"{step.images} images: {run.checked_by} {step.check:.2f} on val, best {step.best:.2f}, "
                    f"{step.images_per_second:.0f} images/s, {step.seconds_left / 60:.1f} minutes left",
                    highlight=False,
                )

        yield show


def _tell_plan(job: "Job", as_json: bool) -> None:
    from lora_lab.training.plan import plan

    found = plan(job.run)
    if as_json:
        print_json({**found.to_json(), "config": job.run.config.model_dump(), "folders": [str(f) for f in job.folders()]})
        return
    for task, splits in found.images.items():
        console.print(f"{task}: {splits['train']} images to train on, {splits['val']} for val", highlight=False)
    parts = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in found.seconds.items())
    console.print(
        f"{found.steps} steps of {job.run.config.batch} at {found.images_per_second:.0f} images/s: "
        f"about {found.total_seconds / 60:.1f} minutes ({parts}), {found.memory} MiB of memory",
        highlight=False,
        soft_wrap=True,
    )
    for folder in job.folders():
        console.print(f"would write {folder}", highlight=False, soft_wrap=True)


def _tell_adapters(saved: list[tuple[Any, Path]], as_json: bool) -> None:
    if as_json:
        print_json([adapter.card.model_dump() for adapter, _ in saved])
        return
    for adapter, folder in saved:
        metric = adapter.head.task.metric
        value = adapter.card.scores["val"][metric]
        console.print(
            f"wrote {folder}: {metric} on val {value.value:.2f} ({value.low:.2f} to {value.high:.2f})",
            highlight=False,
            soft_wrap=True,
        )


def _tell_seed(folder: Path) -> None:
    console.print(f"noted the score on the card in {folder}", highlight=False, soft_wrap=True)
