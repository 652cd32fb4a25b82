"""What a training run does, in figures that go onto the card."""

import math

import numpy as np

from lora_lab.cards import Tuning
from lora_lab.records import Frozen
from lora_lab.tasks import Task


class TrainConfig(Frozen):
    """What a run does.

    `task` is one task's name, or several joined by + for one LoRA that serves them all or, with `to_merge`, for an adapter
    each that is trained in exact sums with the others. `tuning` says what is trained beside the heads: factors of this
    `rank`, nothing, or all weights. `norm_penalty` times the sum of all squared deltas is added to the loss. `images` is the
    number of image steps, of which the first `pretrain_images` come from the task's pre-training split; `start_from` names
    the adapter that a run goes on from. The backbone learns at `learning_rate`, the heads at `head_rate`. `patience` ends a
    run after so many checks on val without a better score.
    """

    task: str
    backbone: str
    tuning: Tuning = "lora"
    rank: int = 16
    images: int = 40_000
    pretrain_images: int = 0
    batch: int = 32
    learning_rate: float = 1e-3
    head_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up: float = 0.05
    seed: int = 0
    checks: int = 8
    check_images: int = 800
    patience: int = 4
    start_from: str | None = None
    to_merge: bool = False
    norm_penalty: float = 0.0

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks by name."""
        return tuple(self.task.split("+"))

    @property
    def joint(self) -> bool:
        """Whether several tasks share one LoRA."""
        return len(self.tasks) > 1 and not self.to_merge

    @property
    def steps(self) -> int:
        """How many batches."""
        return math.ceil(self.images / self.batch)

    def drawn(self, step: int) -> tuple[str, ...]:
        """The tasks of a step: all, or with `to_merge` a random set, every size as likely as another."""
        if not self.to_merge:
            return self.tasks
        random = np.random.default_rng((self.seed, step))
        rows = random.choice(len(self.tasks), random.integers(1, len(self.tasks) + 1), replace=False)
        return tuple(self.tasks[row] for row in sorted(rows))

    def rate(self, step: int) -> float:
        """The share of the learning rates at a step: a linear warm-up, then half a cosine down to 0."""
        share = step / self.steps
        if share < self.warm_up:
            return share / self.warm_up
        return 0.5 * (1 + math.cos(math.pi * (share - self.warm_up) / (1 - self.warm_up)))


def default_config(task: Task, backbone: str, tuning: Tuning = "lora", rank: int = 16) -> TrainConfig:
    """The configuration that a task's adapters are trained with."""
    if tuning == "head_only":
        return TrainConfig(task=task.name, backbone=backbone, tuning=tuning, rank=0, images=120_000, batch=128)
    config = TrainConfig(task=task.name, backbone=backbone, images=task.image_steps, pretrain_images=task.pretrain_steps)
    if tuning == "full":
        return config.model_copy(update={"tuning": tuning, "rank": 0, "learning_rate": 3e-5})
    # With alpha = r the same step of every factor moves ΔW further the higher the rank.
    rate = min(1e-3, 1e-3 * (16 / rank) ** 0.5)
    return config.model_copy(update={"rank": rank, "learning_rate": round(rate, 6)})


def joint_config(tasks: tuple[Task, ...], backbone: str, rank: int = 16) -> TrainConfig:
    """The configuration of one LoRA for several tasks: each batch has as many images of each."""
    single = default_config(tasks[0], backbone, rank=rank)
    images = sum(task.image_steps for task in tasks)
    names = "+".join(task.name for task in tasks)
    return single.model_copy(update={"task": names, "images": images, "batch": 8 * len(tasks), "pretrain_images": 0})
