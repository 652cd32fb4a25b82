"""How each task fares in a merge on a few images: by their labels, or by how near it answers to its adapter alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lora_lab import metrics
from lora_lab.data.crops import face_sizes
from lora_lab.findings import Interval
from lora_lab.inference import MergedModel
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, RecipeAdapter, Sight
from lora_lab.tasks import Task

Basis = Literal["measured", "forecast", "not known", "labels", "own answers"]
"""What a figure rests on: records, a forecast from them, labels, or the answers of the adapter alone on the same images."""

NEARNESS: Mapping[str, str] = {"classes": "accuracy", "number": "mae", "points": "nme"}
"""The metric that says how near answers are to others, by the kind of the task."""

JUDGED = 64
CHUNK = 64
SMALLEST_SPREAD = 0.02


@dataclass(frozen=True)
class Figure:
    """How a task fares: a metric, with bounds where there are any.

    `loss` is comparable over tasks: 0 at best and about 1 for a head that says nothing of the picture; none if not known.
    """

    metric: str
    basis: Basis
    score: Interval | None
    loss: float | None


@dataclass(frozen=True)
class Wanted:
    """What a head should say of n images: `answers` as a task's targets, and whether these are labels."""

    answers: np.ndarray
    labelled: bool


def of_first(sight: Sight, most: int = JUDGED) -> Sight:
    """The first images of each task; tasks that shared a tensor still do."""
    shared: dict[int, Tensor] = {}
    pixels = {name: shared.setdefault(id(one), one[:most]) for name, one in sight.pixels.items()}
    return replace(sight, pixels=pixels, labels={name: labels[:most] for name, labels in sight.labels.items()})


def own_answers(lab: Lab, recipe: MergeRecipe, sight: Sight) -> dict[str, Wanted]:
    """What each head of a recipe should say: the labels where there are any, else what it says under its adapter alone."""
    wanted = {}
    for a in recipe.adapters:
        if a.name in sight.labels:
            wanted[a.name] = Wanted(sight.labels[a.name].cpu().numpy(), True)
            continue
        alone = lab.merge(lab.recipe([RecipeAdapter(name=a.name, rank=a.rank)]))
        outputs = _outputs(alone, sight)[a.name]
        wanted[a.name] = Wanted(_answers(alone.heads[a.name].task, outputs), False)
    return wanted


def figures_on(model: MergedModel, sight: Sight, wanted: Mapping[str, Wanted]) -> dict[str, Figure]:
    """How each head of a merge fares on these images."""
    return {
        name: _figure(model.heads[name].task, outputs, wanted[name])
        for name, outputs in _outputs(model, sight).items()
        if name in wanted
    }


@torch.no_grad()
def _outputs(model: MergedModel, sight: Sight) -> dict[str, np.ndarray]:
    # Heads that share images and deltas share a forward.
    groups: dict[tuple[int, int], list[str]] = {}
    for name in model.heads:
        groups.setdefault((id(sight.pixels[name]), id(model.own.get(name, model.deltas))), []).append(name)
    found: dict[str, list[Tensor]] = {name: [] for name in model.heads}
    for names in groups.values():
        deltas = model.own.get(names[0], model.deltas)
        for part in sight.pixels[names[0]].split(CHUNK):
            features = model.backbone.encode(part, deltas)
            for name in names:
                found[name].append(model.outputs(name, features).float())
    return {name: torch.cat(parts).cpu().numpy() for name, parts in found.items()}


def _answers(task: Task, outputs: np.ndarray) -> np.ndarray:
    if task.kind == "classes":
        return outputs.argmax(1)
    return outputs[:, 0] * task.scale + task.offset if task.kind == "number" else outputs.reshape(-1, task.points, 2)


def _figure(task: Task, outputs: np.ndarray, wanted: Wanted) -> Figure:
    normaliser = face_sizes(wanted.answers) if task.kind == "points" else None
    metric = task.metric if wanted.labelled else NEARNESS[task.kind]
    value = metrics.values(task, outputs, wanted.answers, normaliser)[metric]
    basis: Basis = "labels" if wanted.labelled else "own answers"
    return Figure(metric, basis, Interval(value), _loss(task, _answers(task, outputs), wanted.answers))


def _loss(task: Task, answers: np.ndarray, wanted: np.ndarray) -> float:
    # The share of wrong classes; for numbers and points the mean distance beside that of one constant answer.
    if task.kind == "classes":
        return float((answers != wanted).mean())
    spread = np.abs(wanted - wanted.mean(0)).mean() / task.scale
    return float(np.abs(answers - wanted).mean() / task.scale / max(spread, SMALLEST_SPREAD))
