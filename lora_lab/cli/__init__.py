"""The command `lora-lab`."""

import io
import sys

import typer

from lora_lab.cli.compose import compose
from lora_lab.cli.evaluate import evaluate
from lora_lab.cli.league import league, methods
from lora_lab.cli.merge import merge
from lora_lab.cli.own import add, forget
from lora_lab.cli.predict import predict
from lora_lab.cli.suggest import suggest
from lora_lab.cli.sweep import sweep
from lora_lab.cli.train import train
from lora_lab.cli.use import adapters, serve, tasks

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Merge vision LoRA adapters on one Vision Transformer.")
app.command("app")(serve)
for command in (predict, merge, methods, league, suggest, compose, train, evaluate, sweep, adapters, add, forget, tasks):
    app.command()(command)


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal of few letters gets ? for × and –, and no traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()
