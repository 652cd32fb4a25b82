"""One training run: heads, and what is trained of the backbone, from the start or from a checkpoint.

LoRA on key and value with a head on the pooled feature follows Kesim and Helli (arXiv 2411.14064), with alpha = r. Speed on
a CPU comes from a bfloat16 copy of the backbone and from forming W₀ + B A once a step; what is trained stays in float32.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_lab import metrics
from lora_lab.adapters import Adapter
from lora_lab.backbones import Backbone, Features, fast_precision
from lora_lab.cache import cache_folder, whole_file
from lora_lab.data import Crops, Dataset, load_crops
from lora_lab.errors import LoraLabError
from lora_lab.evaluation import head_outputs, pooled_features
from lora_lab.tasks import Head, Task, make_head
from lora_lab.training.batches import EncodedOnce, Views
from lora_lab.training.config import TrainConfig
from lora_lab.training.resuming import DataPrint, data_print, keep_print, refuse_changed, run_name, stopped_runs
from lora_lab.training.start import first_tuned, take_head
from lora_lab.training.workers import ALONE, Workers

SHOWN_EVERY = 20
SAVED_EVERY = 60.0


@dataclass(frozen=True)
class TrainStep:
    """Where a run stands: images seen of how many, the mean loss since the last step shown, speed, and a check on val."""

    images: int
    total: int
    loss: float
    learning_rate: float
    images_per_second: float
    seconds_left: float
    check: float | None = None
    best: float | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """One task of a run: its images, its batches and its head."""

    task: Task
    head: Head
    train: Crops
    val: Crops
    batches: Views | EncodedOnce
    first: Crops | None = None

    @property
    def splits(self) -> dict[str, Crops]:
        """The images by split, those of the pre-training split as well."""
        pretrained = {self.task.pretrain_split or "": self.first} if self.first else {}
        return {"train": self.train, "val": self.val, **pretrained}


class Run:
    """A run of one task on its data, or of several that share one LoRA. `start` are adapters that it goes on from."""

    def __init__(
        self,
        config: TrainConfig,
        sources: Sequence[tuple[Task, Dataset]],
        backbone: Backbone,
        start: Sequence[Adapter] = (),
        workers: Workers = ALONE,
    ):
        _check(config, [task for task, _ in sources], workers)
        self.config = config
        backbone = backbone.on(workers.device or backbone.device)
        self.backbone = backbone
        self.workers = workers
        self.sources = sources
        self.start = start
        self.encoder = training_copy(backbone)
        self.tuned = first_tuned(config, self.encoder, backbone, start)
        self.parts = [self._part(task, dataset) for task, dataset in sources]
        for part, adapter in zip(self.parts, start, strict=False):
            take_head(part.head, adapter)
        heads = {f"{p.task.name}/{name}": t for p in self.parts for name, t in p.head.named_parameters()}
        self.tensors = {**self.tuned.tensors, **heads}
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(self.tuned.tensors.values()), "rate": config.learning_rate},
                {"params": list(heads.values()), "rate": config.head_rate},
            ],
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
        )
        self.step = 0
        self.seconds = 0.0
        self.checks_without_gain = 0
        self.losses: list[float] = []
        self.best: float | None = None
        self.best_tensors: dict[str, Tensor] = self._copy()

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or val has not gained for too long."""
        return self.step >= self.config.steps or self.checks_without_gain >= self.config.patience

    @property
    def checked_by(self) -> str:
        """What a check on val measures: the task's first metric, or the mean loss of several tasks."""
        return self.parts[0].task.metric if len(self.parts) == 1 else "loss"

    @cached_property
    def data(self) -> DataPrint:
        """What the run's images, their names and their labels are."""
        pairs = zip(self.sources, self.parts, strict=True)
        return data_print((task, dataset, part.splits) for (task, dataset), part in pairs)

    def steps(self) -> Iterator[TrainStep]:
        """Train to the end, checking on val at equal distances, with a checkpoint at each check and each minute."""
        config, saved = self.config, time.monotonic()
        check_every = max(1, config.steps // config.checks)
        started, since, first = saved - self.seconds, saved, self.step
        if self.start and self.best is None:
            self._check()  # what a run goes on from is the first to beat
        while not self.finished:
            rate = config.learning_rate * config.rate(self.step)
            self.losses.append(self.update())
            self.step += 1
            self.seconds = time.monotonic() - started
            check = self._check() if self.step % check_every == 0 or self.step == config.steps else None
            shown = None
            if check is not None or self.step % SHOWN_EVERY == 0:
                speed = (self.step - first) * config.batch / (time.monotonic() - since)
                left = (config.steps - self.step) * config.batch / speed
                loss = self.workers.mean(float(np.mean(self.losses)))
                shown = TrainStep(self.step * config.batch, config.images, loss, rate, speed, left, check, self.best)
                self.losses = []
            if check is not None or time.monotonic() - saved > SAVED_EVERY:
                self.save_checkpoint()
                saved = time.monotonic()
            if shown:
                yield shown

    def restore_best(self) -> None:
        """Put heads and backbone back to the best check on val."""
        self._restore(self.best_tensors)

    def checkpoint_path(self) -> Path:
        """Where this run's checkpoint lies; another configuration or other data have another, another folder has not."""
        return cache_folder("runs") / f"{self._stem}-{self.data.key}.pt"

    def older_checkpoint(self) -> Path:
        """Where an earlier version kept this run's checkpoint, which does not say which data it is of."""
        return cache_folder("runs") / f"{run_name(self.config, self.backbone, self.start, self.data.folders)}.pt"

    @property
    def _stem(self) -> str:
        return run_name(self.config, self.backbone, self.start)

    def save_checkpoint(self) -> None:
        """Keep the whole state of the run."""
        if not self.workers.first:
            return
        state = {
            "tensors": self._copy(),
            "best_tensors": self.best_tensors,
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "checks_without_gain": self.checks_without_gain,
        }
        keep_print(self.data, self.checkpoint_path())
        with whole_file(self.checkpoint_path()) as part:
            torch.save(state, part)

    def load_checkpoint(self) -> bool:
        """Go on from the checkpoint, if there is one of this data.

        Raises `MismatchError` where there is one on the same folders, and what is in them has changed.
        """
        path = self.checkpoint_path()
        if not path.exists():
            refuse_changed(self.data, stopped_runs(path.parent, self._stem))
            return False
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location=self.encoder.device)
        self._restore(state["tensors"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.best_tensors = state["best"], state["best_tensors"]
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]
        self.checks_without_gain = state["checks_without_gain"]
        return True

    def forget_checkpoint(self) -> None:
        """Remove the checkpoint, once the adapter is safe, and those of the same run on what was in its folders before."""
        path = self.checkpoint_path()
        stopped = stopped_runs(path.parent, self._stem)
        for old in (path, self.older_checkpoint(), *(p for p, data in stopped.items() if data.folders == self.data.folders)):
            old.unlink(missing_ok=True)
            old.with_suffix(".json").unlink(missing_ok=True)

    def _part(self, task: Task, data: Dataset) -> Part:
        config, encoder = self.config, self.encoder
        size = self.backbone.image_size
        train, val = load_crops(task, data, "train", size), load_crops(task, data, "val", size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            head = make_head(task, self.backbone.width)
        head.expect(torch.from_numpy(train.targets))
        head.to(encoder.device)
        if config.tuning == "head_only":
            return Part(task, head, train, val, EncodedOnce.of(encoder, train, config.batch, config.seed))
        first = load_crops(task, data, task.pretrain_split or "", size) if config.pretrain_images else None
        until, each = config.pretrain_images // config.batch, config.batch // len(config.tasks)
        return Part(task, head, train, val, Views(task, encoder, train, first, until, each, config.seed), first)

    def update(self) -> float:
        """Take one step; gives its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * self.config.rate(self.step)
        drawn = self.config.drawn(self.step)
        parts = [part for name, part in zip(self.config.tasks, self.parts, strict=True) if name in drawn]
        batches = [part.batches.batch(self.step, self.workers.share) for part in parts]
        features = self._features([images for images, _ in batches], drawn)
        losses = [p.head.loss(p.head(f), t) for p, f, (_, t) in zip(parts, features, batches, strict=True)]
        loss = torch.stack(losses).mean()
        if self.config.norm_penalty and self.tuned.squared_norm:
            loss = loss + self.config.norm_penalty * self.tuned.squared_norm(drawn)
        self.optimizer.zero_grad()
        loss.backward()
        self.workers.average_gradients(self.tensors.values())
        torch.nn.utils.clip_grad_norm_(self.tensors.values(), 1.0)
        self.optimizer.step()
        return loss.item()

    def _features(self, images: list[Any], tasks: Sequence[str]) -> list[Features]:
        # One forward for all tasks of the run.
        if isinstance(images[0], Features):
            return images
        together = self.tuned.encode(torch.cat(images), tasks)
        sizes = [len(part) for part in images]
        return [Features(*both) for both in zip(together.pooled.split(sizes), together.patches.split(sizes), strict=True)]

    def _check(self) -> float:
        found, config = [], self.config
        for name, part in zip(config.tasks, self.parts, strict=True):
            rows = np.random.default_rng(0).permutation(len(part.val))[: config.check_images]
            val = part.val.part(np.sort(rows))
            # Adapters that are trained to be merged are checked alone and in the sum of all.
            for tasks in [(name,), config.tasks] if config.to_merge else [config.tasks]:
                found.append(self._score(part, val, tasks))
        value = self.workers.agree(float(np.mean(found)))
        higher = len(self.parts) == 1 and self.parts[0].task.higher_is_better
        self.checks_without_gain += 1
        if self.best is None or (value > self.best if higher else value < self.best):
            self.best, self.best_tensors, self.checks_without_gain = value, self._copy(), 0
        return value

    def _score(self, part: Part, val: Crops, tasks: Sequence[str]) -> float:
        outputs = head_outputs(part.head, pooled_features(self.encoder, val, partial(self.tuned.encode, tasks=tasks)))
        if len(self.parts) == 1:
            return metrics.values(part.task, outputs, val.targets, val.normaliser)[part.task.metric]
        device = self.encoder.device
        return part.head.loss(torch.from_numpy(outputs).to(device), torch.from_numpy(val.targets).to(device)).item()

    def _copy(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.tensors.items()}

    @torch.no_grad()
    def _restore(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)


def _check(config: TrainConfig, tasks: Sequence[Task], workers: Workers) -> None:
    if config.images < config.batch:
        raise LoraLabError(f"--images {config.images} is less than one batch of {config.batch}: give more")
    shares = len(tasks) * workers.share.count
    if config.batch % shares:
        raise LoraLabError(f"a batch of {config.batch} cannot be shared by {shares}: give batch a multiple of {shares}")
    if config.to_merge and (len(tasks) < 2 or config.tuning != "lora"):
        raise LoraLabError("only adapters of several tasks can be trained to be merged: name them, joined by commas")
    if config.pretrain_images and (len(tasks) > 1 or tasks[0].pretrain_split is None):
        raise LoraLabError(f"{config.task} has no data to pre-train on: leave out --pretrain-images")


def training_copy(backbone: Backbone) -> Backbone:
    """The backbone where it is, in bfloat16 where that runs in hardware."""
    return backbone.to(fast_precision(backbone.device))
