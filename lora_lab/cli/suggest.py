"""The command that suggests weights for some adapters."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lora_lab.backbones import DEFAULT
from lora_lab.cache import whole_file
from lora_lab.cli.common import (
    AdaptersOption,
    BackboneOption,
    DeviceOption,
    JsonOption,
    MembersOption,
    RecipeOption,
    SeedOption,
    console,
    fail,
    open_lab,
    print_json,
    progress,
    read_recipe,
    reads_data,
    told,
    with_method,
)
from lora_lab.devices import AUTO

if TYPE_CHECKING:
    from lora_lab.data import Reading
    from lora_lab.nearness import Figure
    from lora_lab.suggestions import Suggestion


@told
@reads_data
def suggest(
    recipe: RecipeOption = None,
    members: MembersOption = None,
    source: Annotated[str, typer.Option("--from", help="records, photos or labels.")] = "records",
    images: Annotated[
        Path | None, typer.Option(help="For photos, a folder of them; for labels, data with train images of every task.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many images a task of such data.")] = 200,
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option(help="Write the recipe to this JSON file.")] = None,
    as_json: JsonOption = False,
    backbone: BackboneOption = DEFAULT,
    device: DeviceOption = AUTO,
    adapters_root: AdaptersOption = None,
    *,
    reading: "Reading",
) -> None:
    """Suggest weights for some adapters, and say how each task fares before and after."""
    from lora_lab.evaluation import Images
    from lora_lab.forecast import findings_of, forecast_of
    from lora_lab.sights import open_sight
    from lora_lab.suggestions import SUGGESTERS, Question

    suggester = SUGGESTERS[source]
    if suggester.needs != "records" and images is None:
        fail(f"--from {source} must see {suggester.needs}: name a folder with --images")
    lab = open_lab(backbone, adapters_root, device)
    start = with_method(read_recipe(lab, recipe, members) or lab.best(), {"seed": seed or None})
    with progress() as tell:
        seen = Images(images, "train", limit, reading=reading) if images and suggester.needs != "records" else None
        sight = open_sight(lab.serving, lab.heads(start), seen, tell=tell) if seen else None
        forecast = forecast_of(findings_of(lab)) if suggester.needs == "records" else None
        found = suggester.suggest(Question(lab, start, forecast, sight, tell))
    if out:
        with whole_file(out) as part:
            part.write_text(found.recipe.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if as_json:
        before, after = (_plain(figures) for figures in (found.before, found.after))
        print_json({"recipe": found.recipe.model_dump(), "better": found.better, "before": before, "after": after})
        return
    _show(found)
    if out:
        console.print(f"wrote {out}", highlight=False, soft_wrap=True)


def _plain(figures: Mapping[str, "Figure"]) -> dict[str, dict]:
    return {
        name: {
            "metric": one.metric,
            "basis": one.basis,
            "value": one.score.value if one.score else None,
            "low": one.score.low if one.score else None,
            "high": one.score.high if one.score else None,
        }
        for name, one in figures.items()
    }


def _show(found: "Suggestion") -> None:
    if not found.better:
        console.print("nothing better was found; these weights stay")
    table = Table("task", "weight", "metric", "before", "after", "from")
    for a in found.recipe.adapters:
        scores = (found.before[a.name], found.after[a.name])
        shown = [one.score.text() if one.score else "not known" for one in scores]
        weight = f"{a.weight:g}" + (", a factor a layer" if a.layers else "")
        table.add_row(f"{a.name}:r{a.rank}", weight, scores[1].metric, *shown, scores[1].basis)
    console.print(table)
    console.print(f"method: {found.recipe.method}", highlight=False)
