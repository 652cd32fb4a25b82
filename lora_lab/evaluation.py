"""Measure adapters and merges on framed images with labels."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Backbone, Deltas, Features
from lora_lab.data import Crops
from lora_lab.tasks import Head

BATCH = 64


@torch.no_grad()
def encode_crops(backbone: Backbone, crops: Crops, deltas: Deltas | None) -> Float[Tensor, "n D"]:
    """Pooled features of all crops, as the backbone is shown them."""
    images = crops.centre(backbone.image_size)
    pooled = []
    for start in range(0, len(images), BATCH):
        pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).permute(0, 3, 1, 2)
        pixels = backbone.normalise(pixels.to(backbone.device).float() / 255)
        pooled.append(backbone.encode(pixels, deltas).pooled)
    return torch.cat(pooled)


@torch.no_grad()
def head_outputs(head: Head, pooled: Float[Tensor, "n D"]) -> np.ndarray:
    """A head's outputs (n, outputs) for pooled features."""
    nothing = pooled.new_zeros(len(pooled), 0, pooled.shape[1])
    return head(Features(pooled, nothing)).float().cpu().numpy()
