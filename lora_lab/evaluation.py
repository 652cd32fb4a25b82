"""Measure adapters and merges on framed images with labels."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab import metrics
from lora_lab.backbones import Backbone, Deltas, Features
from lora_lab.data import Crops, load_crops
from lora_lab.inference import MergedModel
from lora_lab.provenance import commit
from lora_lab.records import Record
from lora_lab.tasks import TASKS, Head, Task

BATCH = 64


@dataclass(frozen=True)
class Images:
    """Which images are measured: a folder in the layout of the data, a split, and at most how many, by a fixed seed."""

    data: Path
    split: str
    limit: int | None = None
    seed: int = 0

    def crops(self, task: Task, size: int) -> Crops:
        """The framed images of a task."""
        crops = load_crops(task, self.data, self.split, size)
        if self.limit is None or self.limit >= len(crops):
            return crops
        rows = np.random.default_rng(self.seed).permutation(len(crops))[: self.limit]
        return crops.part(np.sort(rows))


def evaluate(
    model: MergedModel, images: Images, subject: Literal["adapter", "head_only", "merge"], recipe_key: str
) -> Iterator[Record]:
    """Records of every head of a model, each metric with its 95 % interval; one forward serves the heads that share images."""
    start = time.monotonic()
    encoded: dict[tuple[str, str], Tensor] = {}
    for name, head in model.heads.items():
        task = TASKS[name]
        place = (task.folder, task.stored)
        crops = images.crops(task, model.backbone.image_size)
        if place not in encoded:
            encoded[place] = encode_crops(model.backbone, crops, model.deltas)
        outputs = head_outputs(head, encoded[place])
        for score in metrics.score(task, outputs, crops.targets, crops.normaliser, images.seed):
            yield Record(
                subject=subject,
                recipe=recipe_key,
                task=name,
                split=images.split,
                metric=score.metric,
                label=score.label,
                value=score.value,
                low=score.low,
                high=score.high,
                n=len(crops),
                seed=images.seed,
                seconds=round(time.monotonic() - start, 2),
                commit=commit(),
            )


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
