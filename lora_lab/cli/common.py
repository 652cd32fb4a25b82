"""What the commands share: their common options, where they print, and the one place where an error becomes a line."""

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lora_lab.cache import reason
from lora_lab.devices import AUTO
from lora_lab.errors import LoraLabError, shortened

console = Console()
notes = Console(stderr=True)

BackboneOption = Annotated[str, typer.Option(help="A backbone of the catalog, a hub id or a local folder.")]
DeviceOption = Annotated[str, typer.Option(help="Where to compute: auto (a GPU if there is one), cpu, cuda or mps.")]
AdaptersOption = Annotated[Path | None, typer.Option(help="The folder that holds the adapters; those of LoRA Lab if none.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataOption = Annotated[Path, typer.Option(help="The task's folder of parquet files, or the folder that holds it.")]
RecipeOption = Annotated[Path | None, typer.Option(help="A recipe, as JSON.")]
MembersOption = Annotated[
    str | None, typer.Option("--adapters", help='Adapters with weights, such as "age_class=1,landmarks:r16=0.5".')
]
MethodOption = Annotated[str | None, typer.Option(help="A merge method; `lora-lab methods` lists them.")]
KnobOption = Annotated[list[str] | None, typer.Option(help="A knob of the method, such as density=0.2; repeatable.")]
SkipOption = Annotated[bool, typer.Option("--skip-faulty", help="Leave out images with faults.")]
FormatOption = Annotated[str | None, typer.Option("--format", help="How the images lie on disk; found out if none.")]
ColumnOption = Annotated[str | None, typer.Option("--column", "--label-column", help="The column of the labels.")]
ImageColumnOption = Annotated[str | None, typer.Option(help="The column of the images, or of the names of their files.")]
LabelsOption = Annotated[
    str | None,
    typer.Option(help='What labels mean that are numbers or other words: fer2013, rafdb …, a file, or pairs such as "4=sad".'),
]
SeedOption = Annotated[int, typer.Option(help="For the methods that draw.")]

READING: dict[str, tuple[Any, Any]] = {
    "layout": (FormatOption, None),
    "column": (ColumnOption, None),
    "image_column": (ImageColumnOption, None),
    "labels": (LabelsOption, None),
    "skip_faulty": (SkipOption, False),
}
"""The options of every command that reads data, by the field of `Reading` that each one fills, with their defaults."""


def reads_data(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say how its data is read, in the place of its argument `reading`."""

    @wraps(command)
    def run(**given: Any) -> None:
        from lora_lab.data import Reading

        reading = Reading(**{name: given.pop(name) for name in READING})
        command(**given, reading=reading)

    own = {name: one for name, one in inspect.signature(command).parameters.items() if name != "reading"}
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option)
        for name, (option, default) in READING.items()
    ]
    asked = inspect.Signature([*own.values(), *options])
    # What typer asks a command for.
    vars(run).update(__signature__=asked)
    run.__annotations__ = {name: one.annotation for name, one in asked.parameters.items()}
    return run


def told(command: Callable[..., None]) -> Callable[..., None]:
    """The one place where an error becomes a line for the user."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        from lora_lab.data.report import listening

        try:
            with listening(tell_note):
                command(*args, **kwargs)
        except LoraLabError as error:
            fail(str(error))
        except BrokenPipeError:
            # Whoever read what is printed has had enough, as `head` has; what is still to come goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            fail(shortened(f"{place}{reason(error)}; check the place, its rights, and the space on its disk"))

    return run


def tell_note(line: str) -> None:
    """Say what is worth knowing beside the outcome."""
    notes.print(line, highlight=False, soft_wrap=True, markup=False)


def fail(message: str) -> NoReturn:
    """Say what is wrong and end with status 2."""
    lines = "\n".join(map(shortened, message.split("\n")))
    notes.print(f"lora-lab: {lines}", style="red", highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(2)


def open_lab(backbone: str, adapters_root: Path | None, device: str = AUTO, fast: bool = False) -> Any:
    """The lab with these adapters on a device; `fast` takes the precision in which its forward is quickest."""
    import torch

    from lora_lab.lab import Lab

    return Lab(backbone, adapters_root, None if fast else torch.float32, device)


def read_recipe(lab: Any, path: Path | None, members: str | None) -> Any:
    """A recipe from a file or from the names of adapters, or none."""
    from lora_lab.merging import MergeRecipe

    if path and members:
        fail("give --recipe or --adapters, not both")
    if path:
        return MergeRecipe.read(path)
    return MergeRecipe.parse(members, lab.backbone.name) if members else None


def with_method(recipe: Any, asked: dict[str, Any]) -> Any:
    """A recipe with what is asked of its method and not None; another method starts from its own defaults.

    Raises `DataError` for what no recipe holds.
    """
    changes = {name: value for name, value in asked.items() if value not in (None, {})}
    if changes.get("method", recipe.method) != recipe.method:
        changes = {"knobs": {}, **changes}
    return recipe.changed(**changes)


def read_knobs(texts: list[str] | None) -> dict[str, float]:
    """Knobs from such as "density=0.2"."""
    knobs = {}
    for text in texts or []:
        name, _, value = text.partition("=")
        try:
            knobs[name.strip()] = float(value)
        except ValueError:
            fail(f"--knob {text!r} is no name=number; write e.g. --knob density=0.2")
    return knobs


def print_json(thing: Any) -> None:
    """For other programs."""
    sys.stdout.write(json.dumps(thing, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def progress() -> Iterator[Callable[[float, str], None]]:
    """A bar that shows how far a merge is; gone when it ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share, what: bar.update(task, completed=share, description=what)
