"""The commands that bring an adapter of one's own, and remove it again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_lab.backbones import DEFAULT
from lora_lab.cli.common import (
    BackboneOption,
    DeviceOption,
    JsonOption,
    console,
    open_lab,
    print_json,
    progress,
    reads_data,
    told,
)
from lora_lab.devices import AUTO
from lora_lab.tasks.base import Framing

if TYPE_CHECKING:
    from lora_lab.data import Reading

SourceArgument = Annotated[str, typer.Argument(help="An adapter in peft's format: a folder, a zip, or a hub id owner/name.")]
ImagesOption = Annotated[
    Path | None, typer.Option(help="Labelled images to train a head on: a folder with a folder a class, or a zip of it.")
]


@told
@reads_data
def add(
    source: SourceArgument,
    name: Annotated[str, typer.Option(help="What it will be called here.")],
    images: ImagesOption = None,
    framing: Annotated[Framing, typer.Option(help="What of the images is looked at.")] = "square",
    as_json: JsonOption = False,
    backbone: BackboneOption = DEFAULT,
    device: DeviceOption = AUTO,
    *,
    reading: "Reading",
) -> None:
    """Bring an adapter of your own, so that it can be merged with the others.

    It needs a head: its own, beside a card of LoRA Lab, or one that is trained here in seconds on a few labelled images.
    """
    from lora_lab.own_adapters import Offer
    from lora_lab.own_adapters import add as bring

    lab = open_lab(backbone, None, device)
    with progress() as tell:
        card = bring(lab, Offer(source, name, images, framing, reading), tell)
    if as_json:
        print_json(card.model_dump())
        return
    metric = card.load_task().metric
    score = card.scores.get("val", {}).get(metric)
    found = f", {metric} on {score.n} images {score.value:.1f} ({score.low:.1f} to {score.high:.1f})" if score else ""
    console.print(f"added {card.name} {card.variant}{found}", highlight=False, soft_wrap=True)


@told
def forget(
    name: Annotated[str, typer.Argument(help="An adapter of your own.")],
    backbone: BackboneOption = DEFAULT,
) -> None:
    """Remove an adapter of your own."""
    from lora_lab.own_adapters import forget as remove

    remove(backbone, name)
    console.print(f"removed {name}", highlight=False)
