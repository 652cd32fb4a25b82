"""Serve LoRA Lab's page; this is what a Hugging Face Space starts."""

import os

from lora_lab.ui import launch

if __name__ == "__main__":
    launch(host=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")))
