"""The command that learns a new task from a few images and the adapters that there are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from lora_lab.backbones import DEFAULT
from lora_lab.cli.common import (
    AdaptersOption,
    BackboneOption,
    DeviceOption,
    JsonOption,
    console,
    notes,
    open_lab,
    print_json,
    reads_data,
    told,
)
from lora_lab.devices import AUTO
from lora_lab.tasks.base import Framing

if TYPE_CHECKING:
    from lora_lab.composition import Composition
    from lora_lab.data import Reading

FolderOption = Annotated[Path, typer.Option("--data", help="A folder with a folder of images a class, or a task's data.")]
ShotsOption = Annotated[int, typer.Option(min=0, help="Images a class to learn from; 0 for all.")]
WaysOption = Annotated[
    str, typer.Option(help="Ways to compare: head_only, uniform, learned, lora, full; learned is always tried.")
]
MembersOption = Annotated[str | None, typer.Option("--adapters", help='Adapters to compose, such as "age_class,emotion:r64".')]
FramingOption = Annotated[Framing, typer.Option(help="For a task of your own: what is looked at.")]


@told
@reads_data
def compose(
    name: Annotated[str, typer.Argument(help="A name for the new task, or a task of the catalog.")],
    data: FolderOption,
    shots: ShotsOption = 5,
    seed: Annotated[int, typer.Option(help="Seed of the images drawn, the head and the order.")] = 0,
    members: MembersOption = None,
    leave_out: Annotated[str | None, typer.Option(help="Adapters that take no part, joined by commas.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of each way, at most 300.")] = 80,
    ways: WaysOption = "head_only,uniform,learned",
    framing: FramingOption = "square",
    out: Annotated[Path | None, typer.Option(help="Folder to write to; compositions/NAME if none.")] = None,
    as_json: JsonOption = False,
    backbone: BackboneOption = DEFAULT,
    device: DeviceOption = AUTO,
    adapters_root: AdaptersOption = None,
    *,
    reading: "Reading",
) -> None:
    """Learn a task that no adapter knows: a weight for each adapter at each layer, and a head, from a few labelled images.

    Adapters that know the images of the task itself take no part.
    """
    from lora_lab.composition import Plan, members_for, open_new_task, save_composition
    from lora_lab.composition import compose as learn
    from lora_lab.merging import MergeRecipe

    plan = Plan(_names(ways), steps, seed=seed)
    lab = open_lab(backbone, adapters_root, device)
    only = MergeRecipe.parse(members, lab.backbone.name) if members else None
    new = open_new_task(name, data, lab.backbone.image_size, shots or None, seed, framing, reading)
    chosen = members_for(lab, new.task, _names(leave_out or ""), only)
    with _bar(name) as tell:
        composition = learn(lab, chosen, new, plan, tell)
    folder = out or Path("compositions") / name
    save_composition(composition, folder)
    if as_json:
        card = composition.card.model_dump()
        print_json({**card, "recipe": composition.recipe.model_dump(), "folder": str(folder)})
        return
    _show(composition)
    console.print(f"wrote {folder}", highlight=False, soft_wrap=True)


def _names(joined: str) -> list[str]:
    return [name.strip() for name in joined.split(",") if name.strip()]


@contextmanager
def _bar(name: str) -> Iterator[Callable[[float, str], None]]:
    with Progress(console=notes) as progress:
        bar = progress.add_task(name, total=1.0)
        yield lambda share, what: progress.update(bar, completed=share, description=what)


def _show(composition: "Composition") -> None:
    from lora_lab.composition import WAYS

    card, metric = composition.card, composition.task.metric
    title = f"{composition.task.title}: {metric} after {card.images} images"
    table = Table("way", metric, "95 % interval", "held-out images", "seconds", "numbers trained beside the head", title=title)
    for name, result in card.ways.items():
        score = result.scores[metric]
        interval = f"{score.low:.1f} to {score.high:.1f}"
        row = (f"{score.value:.1f}", interval, str(score.n), f"{result.seconds:.0f}", f"{result.parameters:,}")
        table.add_row(WAYS[name].title, *row)
    console.print(table)
    console.print(_weights(composition))
    shares = ", ".join(f"{name} {share:.0%}" for name, share in composition.carrying[:3])
    console.print(f"carrying most, on average over the layers: {shares}", highlight=False, soft_wrap=True)


def _weights(composition: "Composition") -> Table:
    layers = composition.layers
    count = len(next(iter(layers.values())))
    table = Table("adapter", *map(str, range(1, count + 1)), title="weight at each layer, %")
    for name, _ in composition.carrying:
        table.add_row(name, *(f"{100 * weight:.0f}" for weight in layers[name]))
    return table
