"""What a training step learns from: random views of framed crops, or features of them as they are.

A batch depends on the seed and the step alone, so that a run that goes on sees what it would have seen. Where several
processes train together, each takes every nth image of the same batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lora_lab.backbones import Backbone, Features
from lora_lab.data import Crops
from lora_lab.data.augment import augmentation_for, random_view
from lora_lab.evaluation import encode_crops
from lora_lab.tasks import Task

Encode = Callable[[Float[Tensor, "B 3 H W"]], Features]


@dataclass(frozen=True)
class Share:
    """Which part of every batch a process takes: the images `rank`, `rank` + `count`, …"""

    rank: int = 0
    count: int = 1

    def of(self, rows: np.ndarray) -> slice:
        """Its part of these images."""
        if len(rows) % self.count:
            raise ValueError(f"a batch of {len(rows)} images cannot be shared by {self.count} processes")
        return slice(self.rank, None, self.count)


@dataclass(frozen=True)
class Views:
    """Random views of a task's images; `first` is seen in the steps before `until`, and `crops` from then on."""

    task: Task
    backbone: Backbone
    crops: Crops
    first: Crops | None
    until: int
    size: int
    seed: int

    def batch(self, step: int, share: Share) -> tuple[Float[Tensor, "B 3 H W"], Shaped[Tensor, "B *target"]]:
        """The views of a step, normalised, and their targets."""
        crops = self.first if self.first is not None and step < self.until else self.crops
        rows = np.sort(batch_rows(len(crops), self.size, step, self.seed))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        pixels = torch.from_numpy(crops.pixels[rows]).to(self.backbone.device)
        targets = torch.from_numpy(crops.targets[rows]).to(self.backbone.device)
        views, targets = random_view(pixels, targets, self.backbone.image_size, augmentation_for(self.task), generator)
        part = share.of(rows)
        return self.backbone.normalise(views[part]), targets[part]


@dataclass(frozen=True)
class EncodedOnce:
    """Features of a task's images, encoded once and as they are, for a head alone."""

    pooled: Float[Tensor, "n D"]
    targets: Shaped[Tensor, "n *target"]
    size: int
    seed: int

    @classmethod
    def of(cls, backbone: Backbone, crops: Crops, size: int, seed: int) -> "EncodedOnce":
        """Encode all crops."""
        with torch.no_grad():
            pooled = encode_crops(backbone, crops, None)
        return cls(pooled, torch.from_numpy(crops.targets).to(pooled.device), size, seed)

    def batch(self, step: int, share: Share) -> tuple[Features, Shaped[Tensor, "B *target"]]:
        """The features of a step and their targets."""
        rows = batch_rows(len(self.pooled), self.size, step, self.seed)
        own = torch.from_numpy(rows[share.of(rows)])
        return Features(self.pooled[own], self.pooled.new_zeros(len(own), 0, self.pooled.shape[1])), self.targets[own]


def batch_rows(n: int, batch: int, step: int, seed: int) -> np.ndarray:
    """The images of a step: a new random order each time all n were seen."""
    positions = np.arange(step * batch, (step + 1) * batch)
    rows = np.empty(batch, np.int64)
    for epoch in np.unique(positions // n):
        here = positions // n == epoch
        rows[here] = np.random.default_rng((seed, epoch)).permutation(n)[positions[here] % n]
    return rows
