"""What a training step learns from: features of random views, and their targets.

A batch depends on the seed and the step alone, so that a run that goes on sees what it would have seen.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from lora_lab.backbones import Backbone, Features
from lora_lab.data import Crops
from lora_lab.data.augment import Augmentation, random_view
from lora_lab.evaluation import encode_crops
from lora_lab.lora import Factors, deltas_of


class Batches:
    """Batches of `size` images for a backbone that is frozen but for the deltas of `factors`."""

    def __init__(self, backbone: Backbone, how: Augmentation, size: int, seed: int):
        self.backbone = backbone
        self.how = how
        self.size = size
        self.seed = seed

    def from_pixels(
        self, factors: Factors, source: Callable[[int], Crops], steps: Iterable[int]
    ) -> Iterator[tuple[Features, Tensor]]:
        """Random views encoded with the factors as they are at each step; `source` says which images a step sees."""
        for step in steps:
            crops = source(step)
            rows = np.sort(batch_rows(len(crops), self.size, step, self.seed))
            views, targets = self._views(crops, rows, step)
            yield self.backbone.encode(views, deltas_of(factors)), targets

    def from_features(self, crops: Crops, steps: Iterable[int]) -> Iterator[tuple[Features, Tensor]]:
        """Features of all images, encoded once and as they are, for a head alone."""
        with torch.no_grad():
            pooled = encode_crops(self.backbone, crops, None)
        targets = torch.from_numpy(crops.targets).to(pooled.device)
        nothing = pooled.new_zeros(self.size, 0, pooled.shape[1])
        for step in steps:
            rows = torch.from_numpy(batch_rows(len(pooled), self.size, step, self.seed))
            yield Features(pooled[rows], nothing), targets[rows]

    def _views(self, crops: Crops, rows: np.ndarray, step: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        pixels = torch.from_numpy(crops.pixels[rows]).to(self.backbone.device)
        targets = torch.from_numpy(crops.targets[rows]).to(self.backbone.device)
        views, targets = random_view(pixels, targets, self.backbone.image_size, self.how, generator)
        return self.backbone.normalise(views), targets


def batch_rows(n: int, batch: int, step: int, seed: int) -> np.ndarray:
    """The images of a step: a new random order each time all n were seen."""
    positions = np.arange(step * batch, (step + 1) * batch)
    rows = np.empty(batch, np.int64)
    for epoch in np.unique(positions // n):
        here = positions // n == epoch
        rows[here] = np.random.default_rng((seed, epoch)).permutation(n)[positions[here] % n]
    return rows
