"""Measure adapters and merges on framed images with labels."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab import metrics
from lora_lab.backbones import Backbone, Deltas, Features
from lora_lab.data import Crops, has_split, load_crops
from lora_lab.inference import MergedModel
from lora_lab.provenance import commit
from lora_lab.records import Record, Subject
from lora_lab.tasks import Head, Task

BATCH = 64


logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Origin:
    """What a record is of, beside its task and its figures."""

    subject: Subject
    recipe: str
    split: str
    seed: int = 0


def evaluate(model: MergedModel, images: Images, subject: Subject, recipe_key: str) -> Iterator[Record]:
    """Records of every head of a model, each metric with its 95 % interval; one forward serves the heads that share images.

    Tasks without images are left out with a warning.
    """
    origin = Origin(subject, recipe_key, images.split, images.seed)
    encoded: dict[tuple[str, str], Tensor] = {}
    for head in model.heads.values():
        start = time.monotonic()
        task = head.task
        if not has_split(task, images.data, images.split):
            logger.warning("no %s images of %s in %s: left out", images.split, task.folder, images.data)
            continue
        place = (task.folder, task.stored)
        crops = images.crops(task, model.backbone.image_size)
        if place not in encoded:
            encoded[place] = encode_crops(model.backbone, crops, model.deltas)
        yield from measure(head, encoded[place], crops, origin, start)


def measure(head: Head, pooled: Float[Tensor, "n D"], crops: Crops, origin: Origin, start: float) -> Iterator[Record]:
    """Records of one head from pooled features of its images; `start` is the monotonic second that the work began in."""
    scores = metrics.score(head.task, head_outputs(head, pooled), crops.targets, crops.normaliser, origin.seed)
    for score in scores:
        yield Record(
            subject=origin.subject,
            recipe=origin.recipe,
            task=head.task.name,
            split=origin.split,
            metric=score.metric,
            label=score.label,
            value=score.value,
            low=score.low,
            high=score.high,
            n=len(crops),
            seed=origin.seed,
            seconds=round(time.monotonic() - start, 2),
            commit=commit(),
        )


def encode_crops(backbone: Backbone, crops: Crops, deltas: Deltas | None) -> Float[Tensor, "n D"]:
    """Pooled features of all crops, as the backbone is shown them."""
    return pooled_features(backbone, crops, lambda pixels: backbone.encode(pixels, deltas))


@torch.no_grad()
def pooled_features(
    backbone: Backbone, crops: Crops, encode: Callable[[Float[Tensor, "B 3 H W"]], Features]
) -> Float[Tensor, "n D"]:
    """Pooled features of all crops by another way to encode them than the backbone's own."""
    images = crops.centre(backbone.image_size)
    pooled = []
    for start in range(0, len(images), BATCH):
        pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).permute(0, 3, 1, 2)
        pixels = backbone.normalise(pixels.to(backbone.device).float() / 255)
        pooled.append(encode(pixels).pooled)
    return torch.cat(pooled)


@torch.no_grad()
def head_outputs(head: Head, pooled: Float[Tensor, "n D"]) -> np.ndarray:
    """A head's outputs (n, outputs) for pooled features."""
    nothing = pooled.new_zeros(len(pooled), 0, pooled.shape[1])
    return head(Features(pooled, nothing)).float().cpu().numpy()
