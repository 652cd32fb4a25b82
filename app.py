"""Serve LoRA Lab's page; this is what a Hugging Face Space starts."""

import os
from contextlib import suppress
from importlib import import_module

with suppress(ImportError):  # on ZeroGPU it has to come before torch
    import_module("spaces")

from lora_lab.lab import Lab
from lora_lab.ui import launch

if __name__ == "__main__":
    host, port = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    launch(Lab(precision=None), host, port)
