"""The commands that use adapters: serve the page, ask about a photo, write a merge, list what there is."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from lora_lab.backbones import DEFAULT
from lora_lab.cli.common import (
    AdaptersOption,
    BackboneOption,
    JsonOption,
    KnobOption,
    MembersOption,
    MethodOption,
    RecipeOption,
    SeedOption,
    console,
    fail,
    open_lab,
    print_json,
    progress,
    read_knobs,
    read_recipe,
    told,
    with_method,
)


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


@told
def predict(
    photo: Annotated[Path, typer.Argument(help="An image file.")],
    recipe: RecipeOption = None,
    members: MembersOption = None,
    method: MethodOption = None,
    knob: KnobOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    backbone: BackboneOption = DEFAULT,
    adapters_root: AdaptersOption = None,
) -> None:
    """Read every head's answer about a photo from one merged model; the best merge of all adapters if none is named."""
    from lora_lab.photos import Photo

    read = Photo.read(photo)  # before the backbone, so that a wrong path is told at once
    lab = open_lab(backbone, adapters_root, fast=True)
    asked = {"method": method, "knobs": read_knobs(knob), "seed": seed or None}
    chosen = with_method(read_recipe(lab, recipe, members) or lab.best(), asked)
    answer = lab.predict(read, chosen)
    if as_json:
        print_json(answer.to_json())
        return
    console.print(f"merge: {answer.recipe.title}", highlight=False)
    console.print(f"method: {lab.merger.methods[chosen.method].title}", highlight=False)
    table = Table("what", "task", "answer", "confidence")
    prediction = answer.prediction
    parts = [(f"face {i + 1}", face.predictions) for i, face in enumerate(prediction.faces)]
    for what, predictions in [*parts, ("photo", prediction.photo.predictions)]:
        for task, one in predictions.items():
            bounds = "" if one.low is None else f" ({one.low:.0f} to {one.high:.0f})"
            table.add_row(what, task, one.answer + bounds, "" if one.confidence is None else f"{one.confidence:.0%}")
    console.print(table)
    if prediction.note:
        console.print(prediction.note)
    taken = ", ".join(f"{part} {ms:.0f} ms" for part, ms in answer.milliseconds.model_dump().items())
    console.print(taken, highlight=False)


@told
def merge(
    out: Annotated[Path | None, typer.Argument(help="The folder to write; it must not hold an adapter yet.")] = None,
    recipe: RecipeOption = None,
    members: MembersOption = None,
    method: MethodOption = None,
    knob: KnobOption = None,
    seed: SeedOption = 0,
    repair: Annotated[str | None, typer.Option(help="A repair of the features; `lora-lab methods` lists them.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="What the method may look at: a folder of photos, or data with train images.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many images a task.")] = 1000,
    save: Annotated[str | None, typer.Option(help="Keep it under this name; it then needs no images.")] = None,
    as_json: JsonOption = False,
    backbone: BackboneOption = DEFAULT,
    adapters_root: AdaptersOption = None,
) -> None:
    """Write a merge as one adapter in peft's format, nothing lost, or keep it under a name with --save."""
    from lora_lab.sights import open_sight

    if out is None and save is None:
        fail("name a folder to write, or a name to keep the merge under with --save")
    lab = open_lab(backbone, adapters_root)
    asked = {"method": method, "knobs": read_knobs(knob), "seed": seed or None, "repair": repair}
    chosen = with_method(read_recipe(lab, recipe, members) or lab.best(), asked)
    with progress() as tell:
        sight = open_sight(lab.serving, lab.heads(chosen), images, limit, tell) if images else None
        if save:
            chosen = lab.save_merge(chosen, sight, save, f"{limit} of {images.name}" if images else "none")
            sight = None
        rank = lab.export(chosen, out, sight) if out else None
    if as_json:
        print_json({"folder": str(out) if out else None, "rank": rank, "recipe": chosen.model_dump(), "key": chosen.key})
        return
    if save:
        console.print(f"kept {chosen.title} as {chosen.method}", highlight=False)
    if out:
        console.print(f"wrote {chosen.title} to {out}, rank {rank}", highlight=False)


@told
def adapters(backbone: BackboneOption = DEFAULT, adapters_root: AdaptersOption = None, as_json: JsonOption = False) -> None:
    """List the adapters, with their scores."""
    from lora_lab.cards import list_cards

    cards = list_cards(backbone, adapters_root)
    if not cards:
        fail(f"no adapter for the backbone {backbone}: train one with `lora-lab train`, or name another with --backbone")
    if as_json:
        print_json([card.model_dump() for card in cards])
        return
    table = Table("adapter", "variant", "metric", "val", "test", "terms")
    for card in cards:
        metric = card.load_task().metric
        scores = [card.scores.get(split, {}).get(metric) for split in ("val", "test")]
        shown = [f"{score.value:.1f}" if score else "" for score in scores]
        table.add_row(card.name, card.variant, metric, *shown, card.licence)
    console.print(table)


@told
def tasks(as_json: JsonOption = False) -> None:
    """List the tasks."""
    from lora_lab.tasks import TASKS

    if as_json:
        fields = ("name", "title", "kind", "labels", "unit", "points", "metrics", "framing", "source", "licence", "version")
        print_json([{field: getattr(task, field) for field in fields} for task in TASKS.values()])
        return
    table = Table("task", "answers", "metric", "data", "terms")
    for task in TASKS.values():
        answers = ", ".join(task.labels) or (f"{task.points} points" if task.points else f"a number in {task.unit}")
        table.add_row(task.name, answers, task.metric, task.source, task.licence)
    console.print(table)
