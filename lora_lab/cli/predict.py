"""The command that asks a merge about photos."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from lora_lab.backbones import DEFAULT
from lora_lab.cli.common import (
    AdaptersOption,
    BackboneOption,
    DeviceOption,
    JsonOption,
    KnobOption,
    MembersOption,
    MethodOption,
    RecipeOption,
    SeedOption,
    console,
    fail,
    notes,
    open_lab,
    print_json,
    progress,
    read_knobs,
    read_recipe,
    told,
    with_method,
)
from lora_lab.devices import AUTO

if TYPE_CHECKING:
    from lora_lab.lab import Lab
    from lora_lab.merging import MergeRecipe
    from lora_lab.photos import Photo
    from lora_lab.records import PhotoPrediction


@told
def predict(
    photos: Annotated[list[Path], typer.Argument(help="Image files, or folders that hold some.")],
    recipe: RecipeOption = None,
    members: MembersOption = None,
    method: MethodOption = None,
    knob: KnobOption = None,
    seed: SeedOption = 0,
    csv: Annotated[Path | None, typer.Option(help="Write all answers into this table, a row an answer.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the photo with faces and landmarks drawn, 900 pixels long.")] = None,
    as_json: JsonOption = False,
    backbone: BackboneOption = DEFAULT,
    device: DeviceOption = AUTO,
    adapters_root: AdaptersOption = None,
) -> None:
    """Read every head's answer about photos from one merged model; the best merge of all adapters if none is named."""
    from lora_lab.photos import Photo
    from lora_lab.tables import find_photos

    several = len(photos) > 1 or photos[0].is_dir()
    paths = find_photos(photos)
    _check_outputs(csv, out, several, as_json)
    read = None if several or csv else Photo.read(paths[0])  # before the backbone, so that what is no photo is told at once
    lab = open_lab(backbone, adapters_root, device, fast=True)
    asked = {"method": method, "knobs": read_knobs(knob), "seed": seed or None}
    chosen = with_method(read_recipe(lab, recipe, members) or lab.best(), asked)
    if csv:
        _write_table(lab, chosen, paths, csv)
    elif read:
        _tell_one(lab, chosen, read, out, as_json)
    else:
        _tell_many(lab, chosen, paths, as_json)


def _check_outputs(csv: Path | None, out: Path | None, several: bool, as_json: bool) -> None:
    from lora_lab.sights import SUFFIXES

    if csv and as_json:
        fail("give --csv or --json, not both")
    if out and (several or csv):
        fail("--out draws one photo: name one, and leave out --csv")
    if out and out.suffix.lower() not in SUFFIXES:
        fail(f"{out} names no kind of image: let it end in {', '.join(SUFFIXES)}")
    for path in (csv, out):
        if path and (path.is_dir() or not path.parent.is_dir()):
            fail(f"{path} cannot be written: name a file in a folder that is there")


def _tell_one(lab: "Lab", recipe: "MergeRecipe", photo: "Photo", out: Path | None, as_json: bool) -> None:
    answer = lab.predict(photo, recipe)
    if out:
        _draw(photo, answer.prediction, out)
    if as_json:
        print_json(answer.to_json())
        return
    _tell_merge(lab, recipe)
    table = Table("what", "task", "answer", "confidence")
    for row in _rows(answer.prediction):
        table.add_row(*row)
    console.print(table)
    if answer.prediction.note:
        console.print(answer.prediction.note)
    taken = ", ".join(f"{part} {ms:.0f} ms" for part, ms in answer.milliseconds.model_dump().items())
    console.print(taken, highlight=False)
    if out:
        console.print(f"drew what was found into {out}", highlight=False, soft_wrap=True)


def _tell_many(lab: "Lab", recipe: "MergeRecipe", paths: Sequence[Path], as_json: bool) -> None:
    from lora_lab.tables import answers

    with progress() as tell:
        found = list(answers(lab, recipe, paths, tell))
    if as_json:
        print_json({"recipe": recipe.model_dump(), "photos": [one.to_json() for one in found]})
        return
    _tell_merge(lab, recipe)
    table = Table("photo", "what", "task", "answer", "confidence")
    for one in found:
        for row in _rows(one.prediction) if one.prediction else ():
            table.add_row(one.photo, *row)
    console.print(table)
    for one in found:
        why = one.prediction.note if one.prediction else one.error
        if why:
            notes.print(f"{one.photo}: {why}", highlight=False, soft_wrap=True, markup=False)


def _tell_merge(lab: "Lab", recipe: "MergeRecipe") -> None:
    console.print(f"merge: {recipe.title}", highlight=False)
    console.print(f"method: {lab.merger.methods[recipe.method].title}", highlight=False)


def _rows(prediction: "PhotoPrediction") -> list[tuple[str, str, str, str]]:
    parts: list[tuple[str, Any]] = [(f"face {i}", face.predictions) for i, face in enumerate(prediction.faces, 1)]
    rows = []
    for what, predictions in [*parts, ("photo", prediction.photo.predictions)]:
        for task, one in predictions.items():
            bounds = "" if one.low is None else f" ({one.low:.0f} to {one.high:.0f})"
            rows.append((what, task, one.answer + bounds, "" if one.confidence is None else f"{one.confidence:.0%}"))
    return rows


def _write_table(lab: "Lab", recipe: "MergeRecipe", paths: Sequence[Path], csv: Path) -> None:
    from lora_lab.tables import answers_table, write_csv

    with progress() as tell:
        table = answers_table(lab, recipe, paths, tell)
    write_csv(table, csv)
    answered = int(table.answer.notna().sum())
    console.print(f"wrote {answered} answers about {len(paths)} photos to {csv}", highlight=False, soft_wrap=True)
    noted = int(table.note.notna().sum())
    if noted:
        notes.print(f"{noted} photos lack some or all answers: the column note says why", highlight=False, soft_wrap=True)


def _draw(photo: "Photo", prediction: "PhotoPrediction", out: Path) -> None:
    from lora_lab.cache import whole_file
    from lora_lab.drawing import draw, preview

    shown = preview(photo.image)
    with whole_file(out) as part:
        draw(shown, shown.width / photo.width, prediction).save(part, format=_format(out))


def _format(out: Path) -> str:
    from PIL import Image

    return Image.registered_extensions()[out.suffix.lower()]
