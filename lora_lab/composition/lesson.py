"""What every way to learn a new task is given and gives, and the one loop that trains them all.

All ways see the same batches of plain centre crops for the same number of steps, and begin with the same head.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lora_lab.backbones import Backbone, Features
from lora_lab.data import Crops
from lora_lab.inference import MergedModel
from lora_lab.lora import Factors
from lora_lab.merging.base import nobody
from lora_lab.tasks import Head, Task, make_head
from lora_lab.training import TrainConfig
from lora_lab.training.batches import batch_rows
from lora_lab.training.tuned import Tuned

HEAD_RATE = 1e-3
Batch = tuple[Features, Shaped[Tensor, "B *target"]]


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is learned from: a backbone in float32, adapters' factors by name, and labelled images.

    `tell` is called with the share that is done and a word; what it raises ends the work.
    """

    backbone: Backbone
    members: Mapping[str, Factors]
    task: Task
    crops: Crops
    seed: int = 0
    steps: int = 80
    batch: int = 16
    tell: Callable[[float, str], None] = nobody

    @property
    def size(self) -> int:
        """Images a step: no image twice in a batch, however few there are."""
        return min(self.batch, len(self.crops))

    def new_head(self) -> Head:
        """The head that every way begins with."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            head = make_head(self.task, self.backbone.width)
        head.expect(torch.from_numpy(self.crops.targets))
        return head.to(self.backbone.device)

    def pixels(self, rows: np.ndarray) -> Float[Tensor, "B 3 H W"]:
        """These images as the backbone takes them."""
        images = np.ascontiguousarray(self.crops.centre(self.backbone.image_size)[rows])
        return self.backbone.normalise(torch.from_numpy(images).to(self.backbone.device).permute(0, 3, 1, 2).float() / 255)


@dataclass(frozen=True, eq=False)
class Trained:
    """What a way ends with: a model of one head, and the layer weights where there are some.

    `parameters` counts the numbers that were trained beside the head.
    """

    model: MergedModel
    layers: Float[Tensor, "adapters layers"] | None = None
    parameters: int = 0

    @property
    def head(self) -> Head:
        """The only head."""
        return next(iter(self.model.heads.values()))


def fit(lesson: Lesson, tuned: Tuned, rate: float, features: Float[Tensor, "n D"] | None = None) -> Head:
    """Train a head, and what is tuned of the backbone at `rate`; with `features` of all images nothing is encoded again."""
    config = TrainConfig(
        task=lesson.task.name, backbone=lesson.backbone.name, images=lesson.steps * lesson.size, batch=lesson.size
    )
    head = lesson.new_head()
    groups = [{"params": list(head.parameters()), "rate": HEAD_RATE}]
    if tuned.tensors:
        groups.append({"params": list(tuned.tensors.values()), "rate": rate})
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, betas=(0.9, 0.98))
    for step in range(lesson.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * config.rate(step)
        _update(optimizer, head, _batch(lesson, tuned, features, step))
        lesson.tell((step + 1) / lesson.steps, f"step {step + 1} of {lesson.steps}")
    return head.eval().requires_grad_(False)


def _batch(lesson: Lesson, tuned: Tuned, features: Tensor | None, step: int) -> Batch:
    rows = np.sort(batch_rows(len(lesson.crops), lesson.size, step, lesson.seed))
    targets = torch.from_numpy(lesson.crops.targets[rows]).to(lesson.backbone.device)
    if features is None:
        return tuned.encode(lesson.pixels(rows)), targets
    pooled = features[torch.from_numpy(rows)]
    return Features(pooled, pooled.new_zeros(len(rows), 0, pooled.shape[1])), targets


def _update(optimizer: torch.optim.Optimizer, head: Head, batch: Batch) -> None:
    features, targets = batch
    loss = head.loss(head(features), targets)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
