"""Adapters as people bring them, and images to train their heads on."""

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image

from lora_lab.backbones import Backbone

CONFIG, FACTORS = "adapter_config.json", "adapter_model.safetensors"


def by_peft(backbone: Backbone, folder: Path, **options: object) -> Path:
    """A folder as peft writes it, of an adapter that changes the backbone visibly."""
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ["k_proj", "v_proj"], "init_lora_weights": False, **options}
    torch.manual_seed(0)
    get_peft_model(backbone.to(torch.float32).module, LoraConfig(**settings)).save_pretrained(str(folder))  # type: ignore[arg-type]
    return folder


def coloured(channel: int, number: int) -> bytes:
    pixels = np.random.default_rng((channel, number)).integers(0, 150, (32, 32, 3), dtype=np.uint8)
    pixels[..., channel] += 100
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def files_of(folder: Path, top: str = "") -> dict[str, bytes]:
    return {top + path.name: path.read_bytes() for path in folder.iterdir()}


def write_paints(path: Path) -> Path:
    """A zip of 15 pictures for each of two colours."""
    files = {f"{colour}/{i}.png": coloured(channel, i) for channel, colour in enumerate(("red", "green")) for i in range(15)}
    return zipped(path, files)
