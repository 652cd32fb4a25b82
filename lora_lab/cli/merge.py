"""The command that writes a merge, or keeps it under a name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    open_lab,
    print_json,
    progress,
    read_knobs,
    read_recipe,
    reads_data,
    told,
    with_method,
)
from lora_lab.devices import AUTO

if TYPE_CHECKING:
    from lora_lab.data import Reading
    from lora_lab.exports import Exported
    from lora_lab.merging import MergeRecipe


@told
@reads_data
def merge(
    out: Annotated[Path | None, typer.Argument(help="The folder to write; it must not hold an export yet.")] = None,
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
    rank: Annotated[int | None, typer.Option(min=1, help="The nearest adapter of at most this rank.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Write the whole backbone with the heads, for transformers.")] = False,
    save: Annotated[str | None, typer.Option(help="Keep it under this name; it then needs no images.")] = None,
    as_json: JsonOption = False,
    backbone: BackboneOption = DEFAULT,
    device: DeviceOption = AUTO,
    adapters_root: AdaptersOption = None,
    *,
    reading: "Reading",
) -> None:
    """Write a merge as one adapter in peft's format, nothing lost, or keep it under a name with --save."""
    from lora_lab.evaluation import Images
    from lora_lab.exports import export_adapter, export_full
    from lora_lab.sights import open_sight

    _check(out, rank, full, save)
    lab = open_lab(backbone, adapters_root, device)
    asked = {"method": method, "knobs": read_knobs(knob), "seed": seed or None, "repair": repair}
    chosen = with_method(read_recipe(lab, recipe, members) or lab.best(), asked)
    done = None
    with progress() as tell:
        seen = Images(images, "train", limit, reading=reading) if images else None
        sight = open_sight(lab.serving, lab.heads(chosen), seen, tell=tell) if seen else None
        if save:
            chosen = lab.save_merge(chosen, sight, save, f"{limit} of {images.name}" if images else "none")
            sight = None
        if out:
            done = export_full(lab, chosen, out, sight) if full else export_adapter(lab, chosen, out, sight, rank)
    _tell(chosen, done, save is not None, as_json)


def _check(out: Path | None, rank: int | None, full: bool, save: str | None) -> None:
    if out is None and save is None:
        fail("name a folder to write, or a name to keep the merge under with --save")
    if rank and full:
        fail("give --rank or --full, not both: a whole backbone loses nothing")
    if out is None and (rank or full):
        fail("--rank and --full are for what is written: name a folder")


def _tell(recipe: "MergeRecipe", done: "Exported | None", kept: bool, as_json: bool) -> None:
    if as_json:
        written: dict[str, object] = {"folder": None, "rank": None}
        if done:
            losses = {"loss": done.loss, "output_loss": done.output_loss}
            written = {"folder": str(done.folder), "rank": done.rank, **losses}
        print_json({**written, "recipe": recipe.model_dump(), "key": recipe.key})
        return
    if kept:
        console.print(f"kept {recipe.title} as {recipe.method}", highlight=False)
    if done:
        what = f"rank {done.rank}, relative Frobenius error {done.loss:.2g}" if done.rank else "a whole backbone with its heads"
        console.print(f"wrote {recipe.title} to {done.folder}: {what}", highlight=False, soft_wrap=True)
