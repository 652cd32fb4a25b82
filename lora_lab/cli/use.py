"""The commands that serve the page and list what there is."""

from typing import Annotated

import typer
from rich.table import Table

from lora_lab.backbones import DEFAULT
from lora_lab.cli.common import AdaptersOption, BackboneOption, DeviceOption, JsonOption, console, fail, print_json, told
from lora_lab.devices import AUTO


@told
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on, 0 for any that is free.")] = 7860,
    mcp: Annotated[bool, typer.Option("--mcp", help="Serve the endpoints as tools for language models as well.")] = False,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes",
            help="Let visitors add adapters and keep merges of their own, though others than you reach the page.",
        ),
    ] = False,
    backbone: BackboneOption = DEFAULT,
    device: DeviceOption = AUTO,
    adapters_root: AdaptersOption = None,
) -> None:
    """Serve the page."""
    from lora_lab.lab import Lab
    from lora_lab.ui import launch  # gradio takes seconds to import

    launch(Lab(backbone, adapters_root, None, device), host, port, mcp, allow_changes)


@told
def adapters(backbone: BackboneOption = DEFAULT, adapters_root: AdaptersOption = None, as_json: JsonOption = False) -> None:
    """List the adapters, with their scores; those that you have added are marked as yours."""
    from lora_lab.cards import cards_of, list_cards, own_root, roots_of

    cards = cards_of(backbone, roots_of(adapters_root))
    own = [] if adapters_root else list_cards(backbone, own_root())
    if not cards:
        fail(f"no adapter for the backbone {backbone}: train one with `lora-lab train`, or name another with --backbone")
    if as_json:
        print_json([card.model_dump() | {"own": card in own} for card in cards])
        return
    table = Table("adapter", "variant", "metric", "val", "test", "terms", "from")
    for card in cards:
        metric = card.load_task().metric
        scores = [card.scores.get(split, {}).get(metric) for split in ("val", "test")]
        shown = [f"{score.value:.1f}" if score else "" for score in scores]
        table.add_row(card.name, card.variant, metric, *shown, card.licence, "you" if card in own else "")
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
