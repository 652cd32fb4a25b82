"""What the commands share: their common options, where they print, and the one place where an error becomes a line."""

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from lora_lab.errors import LoraLabError

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


def open_lab(backbone: str, adapters_root: Path | None) -> Any:
    """The lab with these adapters."""
    from lora_lab.lab import Lab

    return Lab(backbone, adapters_root)


def read_recipe(lab: Any, path: Path | None, members: str | None) -> Any:
    """A recipe from a file or from the names of adapters, or none."""
    from lora_lab.merging import MergeRecipe

    if path and members:
        fail("give --recipe or --adapters, not both")
    if path:
        return MergeRecipe.read(path)
    return MergeRecipe.parse(members, lab.backbone.name) if members else None


def print_json(thing: Any) -> None:
    """For other programs."""
    sys.stdout.write(json.dumps(thing, indent=1, ensure_ascii=False) + "\n")
