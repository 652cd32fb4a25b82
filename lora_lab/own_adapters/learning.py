"""A head for an adapter that has none: trained in seconds on its features of a few labelled images."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lora_lab.adapters import Adapter
from lora_lab.backbones import Backbone, Deltas
from lora_lab.cards import AdapterCard
from lora_lab.composition import Lesson, NewTask, few_shot, open_new_task
from lora_lab.composition.lesson import fit
from lora_lab.composition.zipped import read_zip
from lora_lab.data import FOUND_OUT, Crops, Reading
from lora_lab.data.own import own_title
from lora_lab.describing import describe
from lora_lab.errors import DataError, NotFoundError
from lora_lab.evaluation import BATCH, encode_crops
from lora_lab.faces import default_detector
from lora_lab.lora import deltas_of
from lora_lab.own_adapters.checking import Candidate
from lora_lab.provenance import commit
from lora_lab.statistics import balanced_rows
from lora_lab.tasks.base import Framing
from lora_lab.training.tuned import untuned

Tell = Callable[[float, str], None]
STEPS, STEP_IMAGES = 300, 32
HELD_OUT = 5
"""Of a zip one image in so many of each class is held out to score by, and one at least."""


def labelled(name: str, images: Path, size: int, framing: Framing, reading: Reading = FOUND_OUT) -> NewTask:
    """The task that labelled images make, for a backbone whose input is `size` pixels wide; what is held out scores it.

    `images` is a zip with a folder a class, or a folder in any layout that is known. Raises `LoraLabError` and its children.
    """
    if not images.exists():
        raise NotFoundError(f"{images} is no folder and no zip: give labelled images, a folder a class")
    if images.is_dir():
        new = open_new_task(name, images, size, None, 0, framing, reading)
    else:
        task, crops = read_zip(images, size, framing)
        task = replace(task, name=name, title=own_title(name), folder=name)
        held_out = _held_out(crops.targets)
        rest = np.setdiff1d(np.arange(len(crops)), held_out)
        new = few_shot(task, crops.part(rest), crops.part(held_out), None, 0)
    if new.task.kind == "classes" and len(new.task.labels) < 2:
        raise DataError(f"{images.name} holds images of one class: there must be two or more")
    return new


def taught(candidate: Candidate, backbone: Backbone, new: NewTask, source: str, tell: Tell) -> Adapter:
    """The candidate with a head for a new task, its scores on the held-out images, and statistics of the others.

    At most as many images are learned from as statistics take. What `tell` raises ends the work.
    """
    start = time.monotonic()
    crops = new.crops.part(balanced_rows(new.task, new.crops.targets))
    features = _encoded(backbone, crops, deltas_of(candidate.factors), lambda share, what: tell(0.4 * share, what))
    lesson = Lesson(
        backbone,
        {},
        new.task,
        crops,
        steps=STEPS,
        batch=STEP_IMAGES,
        tell=lambda share, what: tell(0.4 + 0.1 * share, f"the head, {what}"),
    )
    head = fit(lesson, untuned(backbone), 0.0, features)
    tell(0.6, f"scores on {len(new.held_out)} images, statistics of {len(crops)}")
    card = _card(candidate, backbone, lesson, source)
    described = describe(Adapter(card, candidate.factors, head), backbone, crops, new.held_out)
    return replace(described, card=described.card.model_copy(update={"seconds": round(time.monotonic() - start, 1)}))


def _held_out(targets: Int[np.ndarray, "n"]) -> Int[np.ndarray, "held"]:
    rows = []
    for number, label in enumerate(np.unique(targets)):
        own = np.flatnonzero(targets == label)
        rows.append(np.random.default_rng((0, number)).permutation(own)[: max(1, len(own) // HELD_OUT)])
    return np.sort(np.concatenate(rows))


def _encoded(backbone: Backbone, crops: Crops, deltas: Deltas, tell: Tell) -> Float[Tensor, "n D"]:
    parts = []
    for start in range(0, len(crops), BATCH):
        tell(start / len(crops), f"features of {len(crops)} images")
        parts.append(encode_crops(backbone, crops.part(np.arange(start, min(start + BATCH, len(crops)))), deltas))
    return torch.cat(parts)


def _card(candidate: Candidate, backbone: Backbone, lesson: Lesson, source: str) -> AdapterCard:
    task = lesson.task
    return AdapterCard(
        name=task.name,
        task=task.name,
        task_version=task.version,
        backbone=backbone.name,
        fingerprint=backbone.fingerprint,
        image_size=backbone.image_size,
        rank=candidate.rank,
        alpha=candidate.rank,
        target_modules=tuple(candidate.factors),
        own_task=task.to_json(),
        training={"brought_from": source, "head_steps": lesson.steps, "head_images": len(lesson.crops)},
        seed=lesson.seed,
        images_seen=lesson.steps * lesson.size,
        seconds=0,
        commit=commit(),
        data=task.source,
        licence=task.licence,
        detector=default_detector().name if task.stored in ("face", "padded_face") else None,
    )
