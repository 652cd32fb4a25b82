"""The command `lora-lab`."""

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from lora_lab.backbones import DEFAULT
from lora_lab.errors import LoraLabError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Merge vision LoRA adapters on one Vision Transformer.")
console = Console()
notes = Console(stderr=True)

BackboneOption = Annotated[str, typer.Option(help="A backbone of the catalog, a hub id or a local folder.")]
AdaptersOption = Annotated[Path | None, typer.Option(help="The folder that holds the adapters; those of LoRA Lab if none.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataOption = Annotated[Path, typer.Option(help="The task's folder of parquet files, or the folder that holds it.")]
RecipeOption = Annotated[Path | None, typer.Option(help="A recipe, as JSON.")]
MembersOption = Annotated[
    str | None, typer.Option("--adapters", help='Adapters with weights, such as "age_class=1,landmarks:r16=0.5".')
]


def told(command: Callable[..., None]) -> Callable[..., None]:
    """The one place where an error becomes a line for the user."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except LoraLabError as error:
            fail(str(error))

    return run


def fail(message: str) -> NoReturn:
    """Say what is wrong and end with status 2."""
    notes.print(f"lora-lab: {message}", style="red", highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(2)


@app.command("app")
@told
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    backbone: BackboneOption = DEFAULT,
    adapters_root: AdaptersOption = None,
) -> None:
    """Serve the page."""
    from lora_lab.ui import launch  # gradio takes seconds to import

    launch(backbone=backbone, adapters=adapters_root, host=host, port=port)


@app.command()
@told
def predict(
    photo: Annotated[Path, typer.Argument(help="An image file.")],
    recipe: RecipeOption = None,
    members: MembersOption = None,
    as_json: JsonOption = False,
    backbone: BackboneOption = DEFAULT,
    adapters_root: AdaptersOption = None,
) -> None:
    """Read every head's answer about a photo from one merged model; all adapters at uniform weights if none is named."""
    from lora_lab.photos import Photo

    read = Photo.read(photo)  # before the backbone, so that a wrong path is told at once
    lab = _lab(backbone, adapters_root)
    answer = lab.predict(read, _recipe(lab, recipe, members) or lab.uniform())
    if as_json:
        _print_json(answer.to_json())
        return
    console.print(f"merge: {answer.recipe.title}", highlight=False)
    table = Table("what", "task", "answer", "confidence")
    prediction = answer.prediction
    parts = [(f"face {i + 1}", face.predictions) for i, face in enumerate(prediction.faces)]
    for what, predictions in [*parts, ("photo", prediction.photo.predictions)]:
        for task, one in predictions.items():
            table.add_row(what, task, one.answer, "" if one.confidence is None else f"{one.confidence:.0%}")
    console.print(table)
    if prediction.note:
        console.print(prediction.note)
    taken = ", ".join(f"{part} {ms:.0f} ms" for part, ms in answer.milliseconds.model_dump().items())
    console.print(taken, highlight=False)


@app.command()
@told
def merge(
    out: Annotated[Path, typer.Argument(help="The folder to write; it must not hold an adapter yet.")],
    recipe: RecipeOption = None,
    members: MembersOption = None,
    as_json: JsonOption = False,
    backbone: BackboneOption = DEFAULT,
    adapters_root: AdaptersOption = None,
) -> None:
    """Write a merge as one adapter in peft's format: the factors side by side, which is exact."""
    lab = _lab(backbone, adapters_root)
    chosen = _recipe(lab, recipe, members) or lab.uniform()
    rank = lab.export(chosen, out)
    if as_json:
        _print_json({"folder": str(out), "rank": rank, "recipe": chosen.model_dump(), "key": chosen.key})
    else:
        console.print(f"wrote {chosen.title} to {out}, rank {rank}", highlight=False)


@app.command()
@told
def train(
    task: Annotated[str, typer.Argument(help="The task to train for; see `lora-lab tasks`.")],
    data: DataOption,
    rank: Annotated[int, typer.Option(min=1, help="The rank of the factors.")] = 16,
    head_only: Annotated[bool, typer.Option("--head-only", help="Train a head alone, on features encoded once.")] = False,
    images: Annotated[int | None, typer.Option(min=1, help="Image steps in all; the task's own number if none.")] = None,
    pretrain_images: Annotated[int | None, typer.Option(min=0, help="Image steps on the pre-training split.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and views.")] = 0,
    backbone: BackboneOption = DEFAULT,
    out: Annotated[Path | None, typer.Option(help="Adapters folder to write to; that of LoRA Lab if none.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train an adapter; a run that was killed goes on where it was when it is started again."""
    from lora_lab.adapters import adapter_folder, save_adapter
    from lora_lab.training import Run, TrainConfig, default_config, finish

    options = {"images": images, "pretrain_images": pretrain_images}
    config: TrainConfig = default_config(task, backbone, 0 if head_only else rank, seed)
    config = config.model_copy(update={name: value for name, value in options.items() if value is not None})
    run = Run(config, _backbone(backbone), data)
    if run.load_checkpoint():
        notes.print(f"going on from image {run.step * config.batch} of {config.images}", highlight=False)
    _follow(run)
    adapter = finish(run)
    folder = adapter_folder(run.backbone.name, task, config.rank, out)
    save_adapter(adapter, folder)
    run.forget_checkpoint()
    if as_json:
        _print_json(adapter.card.model_dump())
        return
    value = adapter.card.scores["val"][run.task.metric]
    console.print(
        f"wrote {folder}: {run.task.metric} on val {value.value:.2f} ({value.low:.2f} to {value.high:.2f})", highlight=False
    )


def _follow(run: Any) -> None:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    with Progress(*columns, console=notes) as progress:
        bar = progress.add_task(run.task.name, total=run.config.images, speed="", completed=run.step * run.config.batch)
        for step in run.steps():
            progress.update(bar, completed=step.images, speed=f"{step.images_per_second:.0f} images/s, loss {step.loss:.3f}")
            if step.check is not None:
                notes.print(
                    f"{step.images} images: {run.task.metric} {step.check:.2f} on val, best {step.best:.2f}, "
                    f"{step.images_per_second:.0f} images/s, {step.seconds_left / 60:.1f} minutes left",
                    highlight=False,
                )


@app.command()
@told
def evaluate(
    data: DataOption,
    split: Annotated[str, typer.Option(help="Which split.")] = "val",
    recipe: RecipeOption = None,
    members: MembersOption = None,
    head_only: Annotated[bool, typer.Option("--head-only", help="The heads alone, on the plain backbone.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images a task, always the same.")] = None,
    publish: Annotated[bool, typer.Option("--publish", help="Write the scores onto the adapters' cards.")] = False,
    as_json: JsonOption = False,
    backbone: BackboneOption = DEFAULT,
    adapters_root: AdaptersOption = None,
) -> None:
    """Score every adapter alone, or a merge on its members, or the heads alone."""
    from lora_lab.evaluation import Images
    from lora_lab.scoring import publish_scores, score_alone, score_merge

    lab = _lab(backbone, adapters_root)
    chosen = _recipe(lab, recipe, members)
    if chosen and (head_only or publish):
        fail("--head-only and --publish are for adapters alone: leave out --recipe and --adapters")
    if publish and limit:
        fail("--publish takes all images of the split: leave out --limit")
    images = Images(data, split, limit)
    records = []
    for record in score_merge(lab, chosen, images) if chosen else score_alone(lab, images, head_only):
        records.append(record)
        if record.label is None and not as_json:
            line = (
                f"{record.task} {record.metric} {record.value:.2f} ({record.low:.2f} to {record.high:.2f}), {record.n} images"
            )
            console.print(line, highlight=False)
    if not records:
        fail(f"no {split} images of any of these tasks in {data}; it should hold folders such as age/{split}.parquet")
    if publish:
        publish_scores(lab, records, images)
    if as_json:
        _print_json([record.model_dump() for record in records])


@app.command()
@told
def adapters(backbone: BackboneOption = DEFAULT, adapters_root: AdaptersOption = None, as_json: JsonOption = False) -> None:
    """List the adapters, with their scores."""
    from lora_lab.adapters import list_cards, rank_folder
    from lora_lab.tasks import TASKS

    cards = list_cards(backbone, adapters_root)
    if not cards:
        fail(f"no adapter for the backbone {backbone}: train one with `lora-lab train`, or name another with --backbone")
    if as_json:
        _print_json([card.model_dump() for card in cards])
        return
    table = Table("adapter", "rank", "metric", "val", "test", "terms")
    for card in cards:
        metric = TASKS[card.task].metric
        scores = [card.scores.get(split, {}).get(metric) for split in ("val", "test")]
        shown = [f"{score.value:.1f}" if score else "" for score in scores]
        table.add_row(card.name, rank_folder(card.rank), metric, *shown, card.licence)
    console.print(table)


@app.command()
@told
def tasks(as_json: JsonOption = False) -> None:
    """List the tasks."""
    from lora_lab.tasks import TASKS

    if as_json:
        fields = ("name", "title", "kind", "labels", "unit", "points", "metrics", "framing", "source", "licence", "version")
        _print_json([{field: getattr(task, field) for field in fields} for task in TASKS.values()])
        return
    table = Table("task", "answers", "metric", "data", "terms")
    for task in TASKS.values():
        answers = ", ".join(task.labels) or (f"{task.points} points" if task.points else f"a number in {task.unit}")
        table.add_row(task.name, answers, task.metric, task.source, task.licence)
    console.print(table)


def _backbone(name: str) -> Any:
    from lora_lab.backbones import load_backbone

    return load_backbone(name)


def _lab(backbone: str, adapters_root: Path | None) -> Any:
    from lora_lab.lab import Lab

    return Lab(backbone, adapters_root)


def _recipe(lab: Any, path: Path | None, members: str | None) -> Any:
    from lora_lab.merging import MergeRecipe

    if path and members:
        fail("give --recipe or --adapters, not both")
    if path:
        return MergeRecipe.read(path)
    return MergeRecipe.parse(members, lab.backbone.name) if members else None


def _print_json(thing: Any) -> None:
    sys.stdout.write(json.dumps(thing, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    """The entry point."""
    app()
