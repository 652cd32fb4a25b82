"""How long a run will take and what memory it needs, from a few of its own steps."""

import resource
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from lora_lab.data import Crops
from lora_lab.evaluation import encode_crops, pooled_features
from lora_lab.statistics import IMAGES
from lora_lab.training.run import Run

WARM_UP, TIMED = 2, 4
PROBE = 32


@dataclass(frozen=True)
class Plan:
    """What a run comes to: images by task and split, steps, images a second, seconds by part, and the most memory in MiB."""

    images: dict[str, dict[str, int]]
    steps: int
    images_per_second: float
    seconds: dict[str, float]
    memory: int

    @property
    def total_seconds(self) -> float:
        """All of it."""
        return sum(self.seconds.values())

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {**asdict(self), "total_seconds": self.total_seconds}


def plan(run: Run) -> Plan:
    """Take a few steps of a run that has not begun, and reckon the rest from them. The run is of no use afterwards."""
    config = run.config
    for _ in range(WARM_UP):
        run.update()
    start = time.monotonic()
    for _ in range(TIMED):
        run.update()
    step = (time.monotonic() - start) / TIMED
    checks = sum(_encoding(run, part.val, fast=True) * min(config.check_images, len(part.val)) for part in run.parts)
    closing = sum(_encoding(run, p.val, fast=False) * (len(p.val) + min(IMAGES, len(p.train))) for p in run.parts)
    seconds = {"steps": config.steps * step, "checks": (config.checks + 1) * checks, "scores and statistics": closing}
    images = {part.task.name: {"train": len(part.train), "val": len(part.val)} for part in run.parts}
    speed = round(config.batch / step, 1)
    return Plan(images, config.steps, speed, {name: round(value, 1) for name, value in seconds.items()}, _memory(run))


def _encoding(run: Run, crops: Crops, fast: bool) -> float:
    # Seconds an image, in the run's precision or in float32.
    few = crops.part(np.arange(min(PROBE, len(crops))))
    start = time.monotonic()
    with torch.no_grad():
        pooled_features(run.encoder, few, run.tuned.encode) if fast else encode_crops(run.backbone, few, None)
    return (time.monotonic() - start) / len(few)


def _memory(run: Run) -> int:
    if run.encoder.device.type == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
