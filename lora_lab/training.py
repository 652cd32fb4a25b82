"""Train an adapter: LoRA on key and value with a head on the pooled feature, everything else frozen.

Follows Kesim and Helli (arXiv 2411.14064), with alpha = r. Speed on a CPU comes from a bfloat16 copy of the backbone and
from forming W₀ + B A once a step, so that the factors cost nothing a token; factors, head and optimiser stay in float32.
Batches and views depend on the seed and the step alone, so a run that was killed goes on as if it had not been.
"""

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_lab import metrics
from lora_lab.adapters import Adapter, AdapterCard, ScoreEntry
from lora_lab.backbones import Backbone, Features
from lora_lab.batches import Batches
from lora_lab.cache import cache_folder, whole_file
from lora_lab.data import load_crops
from lora_lab.data.augment import augmentation_for
from lora_lab.errors import LoraLabError
from lora_lab.evaluation import Origin, encode_crops, head_outputs, measure
from lora_lab.faces import default_detector
from lora_lab.lora import LoraFactors, deltas_of, new_factors
from lora_lab.provenance import commit
from lora_lab.records import Frozen, Record
from lora_lab.tasks import TASKS, Head, Task, make_head


class TrainConfig(Frozen):
    """What a run does. `rank` 0 trains a head alone on features that are encoded once.

    `images` is the number of image steps, of which the first `pretrain_images` come from the task's pre-training split;
    `patience` ends a run after so many checks on val without a better score.
    """

    task: str
    backbone: str
    rank: int = 16
    images: int = 40_000
    pretrain_images: int = 0
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up: float = 0.05
    seed: int = 0
    checks: int = 8
    check_images: int = 800
    patience: int = 4

    @property
    def steps(self) -> int:
        """How many batches."""
        return math.ceil(self.images / self.batch)


@dataclass(frozen=True)
class TrainStep:
    """Where a run stands: images seen of how many, the mean loss since the last step shown, speed, and a check on val."""

    images: int
    total: int
    loss: float
    images_per_second: float
    seconds_left: float
    check: float | None = None
    best: float | None = None


class Run:
    """One training run, from its start or from its checkpoint."""

    def __init__(self, config: TrainConfig, backbone: Backbone, data: Path):
        if config.images < config.batch:
            raise LoraLabError(f"--images {config.images} is less than one batch of {config.batch}: give more")
        self.config = config
        self.task: Task = TASKS[config.task]
        self.backbone = backbone
        self.encoder = training_copy(backbone)
        self.data = data
        self.train = load_crops(self.task, data, "train", backbone.image_size)
        self.val = load_crops(self.task, data, "val", backbone.image_size)
        generator = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.head: Head = make_head(self.task, backbone.width)
        self.head.expect(torch.from_numpy(self.train.targets))
        self.head.to(self.encoder.device)
        self.factors = new_factors(self.encoder, config.rank, generator) if config.rank else {}
        self.parameters = [*self.head.parameters()] + [t for f in self.factors.values() for t in (f.a, f.b)]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
        )
        self.step = 0
        self.seconds = 0.0
        self.checks_without_gain = 0
        self.best: float | None = None
        self.best_state: dict[str, Any] = self._state()

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or val has not gained for too long."""
        return self.step >= self.config.steps or self.checks_without_gain >= self.config.patience

    def adapter_parts(self) -> tuple[dict[str, LoraFactors], Head]:
        """Factors and head as they were at the best check on val."""
        self._restore(self.best_state)
        factors = {t: LoraFactors(f.a.detach().cpu().clone(), f.b.detach().cpu().clone()) for t, f in self.factors.items()}
        return factors, self.head.cpu().eval().requires_grad_(False)

    def steps(self) -> Iterator[TrainStep]:
        """Train to the end, checking on val at equal distances, with a checkpoint at each check and each minute."""
        if self.finished:
            return
        check_every = max(1, self.config.steps // self.config.checks)
        started, first, saved = time.monotonic() - self.seconds, self.step, time.monotonic()
        speed_from, losses = time.monotonic(), []
        for features, targets in self._batches():
            losses.append(self._update(features, targets))
            self.step += 1
            self.seconds = time.monotonic() - started
            check = None
            if self.step % check_every == 0 or self.step == self.config.steps:
                check = self._check()
            if check is not None or time.monotonic() - saved > 60:
                self.save_checkpoint()
                saved = time.monotonic()
            if check is not None or self.step % 20 == 0:
                speed = (self.step - first) * self.config.batch / (time.monotonic() - speed_from)
                left = (self.config.steps - self.step) * self.config.batch / speed
                yield TrainStep(
                    self.step * self.config.batch, self.config.images, float(np.mean(losses)), speed, left, check, self.best
                )
                losses = []
            if self.finished:
                return

    def _batches(self) -> Iterator[tuple[Features, Tensor]]:
        config = self.config
        batches = Batches(self.encoder, augmentation_for(self.task), config.batch, config.seed)
        steps = range(self.step, config.steps)
        if not config.rank:
            return batches.from_features(self.train, steps)
        if not config.pretrain_images:
            return batches.from_pixels(self.factors, lambda step: self.train, steps)
        if self.task.pretrain_split is None:
            raise LoraLabError(f"{self.task.name} has no data to pre-train on: leave out --pretrain-images")
        first = load_crops(self.task, self.data, self.task.pretrain_split, self.backbone.image_size)
        return batches.from_pixels(
            self.factors, lambda step: first if step * config.batch < config.pretrain_images else self.train, steps
        )

    def _update(self, features: Features, targets: Tensor) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._schedule(self.step / self.config.steps)
        loss = self.head.loss(self.head(features), targets)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return loss.item()

    def _schedule(self, share: float) -> float:
        if share < self.config.warm_up:
            return share / self.config.warm_up
        return 0.5 * (1 + math.cos(math.pi * (share - self.config.warm_up) / (1 - self.config.warm_up)))

    def _check(self) -> float:
        rows = np.random.default_rng(0).permutation(len(self.val))[: self.config.check_images]
        part = self.val.part(np.sort(rows))
        with torch.no_grad():
            pooled = encode_crops(self.encoder, part, deltas_of(self.factors) or None)
        outputs = head_outputs(self.head, pooled)
        value = metrics.values(self.task, outputs, part.targets, part.normaliser)[self.task.metric]
        self.checks_without_gain += 1
        if metrics.better(self.task, value, self.best):
            self.best, self.best_state, self.checks_without_gain = value, self._state(), 0
        return value

    def _state(self) -> dict[str, Any]:
        return {
            "head": {name: tensor.detach().clone() for name, tensor in self.head.state_dict().items()},
            "factors": {t: (f.a.detach().clone(), f.b.detach().clone()) for t, f in self.factors.items()},
        }

    @torch.no_grad()
    def _restore(self, state: dict[str, Any]) -> None:
        self.head.load_state_dict(state["head"])
        for target, (a, b) in state["factors"].items():
            self.factors[target].a.copy_(a)
            self.factors[target].b.copy_(b)

    def checkpoint_path(self) -> Path:
        """Where this run's checkpoint lies; another configuration has another."""
        key = f"{self.config.model_dump_json()} {self.backbone.fingerprint} {self.data.resolve()}"
        return cache_folder("runs") / f"{self.task.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"

    def save_checkpoint(self) -> None:
        """Keep the whole state of the run."""
        state = {
            "now": self._state(),
            "best_state": self.best_state,
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "checks_without_gain": self.checks_without_gain,
        }
        with whole_file(self.checkpoint_path()) as part:
            torch.save(state, part)

    def load_checkpoint(self) -> bool:
        """Go on from the checkpoint, if there is one."""
        path = self.checkpoint_path()
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True, map_location=self.encoder.device)
        self._restore(state["now"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.best_state = state["best"], state["best_state"]
        self.step, self.seconds = state["step"], state["seconds"]
        self.checks_without_gain = state["checks_without_gain"]
        return True

    def forget_checkpoint(self) -> None:
        """Remove the checkpoint, once the adapter is safe."""
        self.checkpoint_path().unlink(missing_ok=True)


def default_config(task: str, backbone: str, rank: int, seed: int = 0) -> TrainConfig:
    """The configuration that a task's adapters are trained with. Raises `NotFoundError` for an unknown task."""
    if rank == 0:
        return TrainConfig(task=TASKS[task].name, backbone=backbone, rank=0, images=120_000, batch=128, seed=seed)
    steps, pretrain = TASKS[task].image_steps, TASKS[task].pretrain_steps
    return TrainConfig(task=task, backbone=backbone, rank=rank, images=steps, pretrain_images=pretrain, seed=seed)


def finish(run: Run) -> Adapter:
    """The adapter of a finished run, its card with the scores on all of val in float32."""
    factors, head = run.adapter_parts()
    config, task = run.config, run.task
    sought = task.stored in ("face", "padded_face")
    card = AdapterCard(
        name=task.name,
        task=task.name,
        task_version=task.version,
        backbone=run.backbone.name,
        fingerprint=run.backbone.fingerprint,
        image_size=run.backbone.image_size,
        rank=config.rank,
        alpha=config.rank,
        target_modules=run.backbone.target_modules if config.rank else (),
        training=config.model_dump(),
        seed=config.seed,
        images_seen=run.step * config.batch,
        seconds=round(run.seconds),
        commit=commit(),
        data=task.source,
        licence=task.licence,
        detector=default_detector().name if sought else None,
        detection_rate={"val": run.val.detection_rate} if run.val.detection_rate is not None else {},
    )
    start = time.monotonic()
    pooled = encode_crops(run.backbone, run.val, deltas_of(factors))
    origin = Origin("adapter" if config.rank else "head_only", "", "val")
    card = with_scores(card, list(measure(head, pooled, run.val, origin, start)))
    return Adapter(card, factors, head)


def with_scores(card: AdapterCard, records: list[Record]) -> AdapterCard:
    """The card with the scores of these records, in place of those on the same splits."""
    scores = dict(card.scores)
    for split in {record.split for record in records}:
        scores[split] = {
            record.metric if record.label is None else f"{record.metric}: {record.label}": ScoreEntry(
                value=round(record.value, 3), low=round(record.low, 3), high=round(record.high, 3), n=record.n
            )
            for record in records
            if record.split == split
        }
    return card.model_copy(update={"scores": scores})


def training_copy(backbone: Backbone) -> Backbone:
    """The backbone on the GPU where there is one, in bfloat16 where that runs in hardware."""
    if torch.cuda.is_available():
        return backbone.to(torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32, "cuda")
    return backbone.to(torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32)
