"""Serve LoRA Lab's page; this is what a Hugging Face Space starts."""

import os
import sys
from contextlib import suppress
from importlib import import_module

with suppress(ImportError):  # on ZeroGPU it has to come before torch
    import_module("spaces")

from lora_lab.errors import LoraLabError
from lora_lab.lab import Lab
from lora_lab.ui import launch
from lora_lab.ui.address import port_of

if __name__ == "__main__":
    try:
        launch(Lab(precision=None), os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), port_of(os.environ))
    except LoraLabError as error:
        sys.exit(f"lora-lab: {error}")
