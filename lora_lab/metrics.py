"""Metrics of a task and their 95 % intervals.

Each metric is a function of sums over images, so a bootstrap is one matrix product: rows of `counts` say how often each
image was drawn. Percentages are 0–100, ages in years, NME in percent of the distance of the outer eye corners.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import numpy as np

from lora_lab.tasks import Task

DRAWS = 1000
RETENTION, GAIN_KEPT, DIFFERENCE, GAIN = "retention", "gain_kept", "difference", "gain"
DETECTION = "detection_rate"
MEAN_RETENTION, WORST_RETENTION, MERGE_SECONDS = "mean_retention", "worst_retention", "merge_seconds"
ALL = "all"
"""The task of a record that is of all tasks of a merge together."""

CAP = 100.0

Draws = Mapping[tuple[str, str | None], np.ndarray]
"""By metric and label: the value on all images, then on each draw of them (1 + draws,)."""


@dataclass(frozen=True)
class Score:
    """A metric of one evaluation and its 95 % interval; `label` where it is of one class."""

    metric: str
    label: str | None
    value: float
    low: float
    high: float


@lru_cache(maxsize=4)
def draw_counts(n: int, seed: int, draws: int = DRAWS) -> np.ndarray:
    """(draws, n) times that each image is drawn with replacement; the same for all that is compared on these images."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float32)


def score(task: Task, outputs: np.ndarray, targets: np.ndarray, normaliser: np.ndarray | None, seed: int = 0) -> list[Score]:
    """All metrics of a task, the first one first, from the head's outputs (n, outputs)."""
    return [with_interval(*place, drawn) for place, drawn in draw(task, outputs, targets, normaliser, seed).items()]


def draw(task: Task, outputs: np.ndarray, targets: np.ndarray, normaliser: np.ndarray | None, seed: int = 0) -> Draws:
    """All metrics of a task on all images and on draws of them, which are the same for every model: so they can be paired."""
    n = len(targets)
    counts = np.concatenate([np.ones((1, n), np.float32), draw_counts(n, seed)])
    found = _metrics(task, outputs, targets, normaliser, counts)
    # What is not a number is the recall of a class that has no image here.
    return {place: drawn for place, drawn in found.items() if not np.isnan(drawn[0])}


def with_interval(metric: str, label: str | None, drawn: np.ndarray) -> Score:
    """The value on all images with the middle 95 % of the draws."""
    low, high = np.nanpercentile(drawn[1:], (2.5, 97.5))
    return Score(metric, label, float(drawn[0]), float(low), float(high))


def compare(task: Task, merged: Draws, alone: Draws, head_only: Draws) -> list[Score]:
    """A merge beside its adapter alone, in the task's first metric, paired over the images.

    The difference merged − alone in the metric's unit; retention in percent, merged/alone for scores and alone/merged for
    errors; and the share of gain kept in percent, (merged − head-only)/(alone − head-only). The last is left out where the
    adapter alone is not surely better than its head alone, since a share of nothing means nothing.
    """
    first = (task.metric, None)
    now, before, floor = merged[first], alone[first], head_only[first]
    found = {DIFFERENCE: now - before, RETENTION: retention(task, merged, alone)}
    if gain(task, alone, head_only).low > 0:
        found[GAIN_KEPT] = _percent(now - floor, before - floor)
    return [with_interval(metric, None, drawn) for metric, drawn in found.items() if not np.isnan(drawn[0])]


def retention(task: Task, merged: Draws, alone: Draws) -> np.ndarray:
    """What a merge keeps of an adapter's first metric, in percent, on all images and on each draw of them (1 + draws,)."""
    now, before = (drawn[task.metric, None] for drawn in (merged, alone))
    return _percent(now, before) if task.higher_is_better else _percent(before, now)


def together(kept: Sequence[tuple[str, np.ndarray]]) -> list[Score]:
    """Mean and worst retention over tasks, each capped at 100, from the images' name and the draws (1 + draws,) of each task.

    Tasks on the same images share their draws. The draws of every set of images are put in an order of its own, since two sets
    of one size are drawn by the same counts and would seem to rise and fall together. Nothing where a task has no retention.
    """
    if not kept or any(np.isnan(drawn[0]) for _, drawn in kept):
        return []
    capped = np.stack([np.minimum(CAP, _in_own_order(images, drawn)) for images, drawn in kept])
    found = {MEAN_RETENTION: capped.mean(0), WORST_RETENTION: capped.min(0)}
    return [with_interval(metric, None, drawn) for metric, drawn in found.items()]


def _in_own_order(images: str, drawn: np.ndarray) -> np.ndarray:
    order = np.random.default_rng(crc32(images.encode())).permutation(len(drawn) - 1)
    return np.concatenate([drawn[:1], drawn[1:][order]])


def gain(task: Task, alone: Draws, head_only: Draws) -> Score:
    """How much better an adapter alone is than its head alone, in the unit of the task's first metric."""
    first = (task.metric, None)
    sign = 1 if task.higher_is_better else -1
    return with_interval(GAIN, None, sign * (alone[first] - head_only[first]))


def detection_rate(detected: np.ndarray, seed: int = 0) -> Score:
    """In how many of the images (n,) a face was found, in percent."""
    counts = draw_counts(len(detected), seed)
    drawn = np.concatenate([[detected.mean()], counts @ detected.astype(np.float32) / len(detected)])
    return with_interval(DETECTION, None, 100 * drawn)


def values(task: Task, outputs: np.ndarray, targets: np.ndarray, normaliser: np.ndarray | None) -> dict[str, float]:
    """The task's metrics without intervals."""
    found = _metrics(task, outputs, targets, normaliser, np.ones((1, len(targets)), np.float32))
    return {metric: float(value[0]) for (metric, label), value in found.items() if label is None}


def better(task: Task, new: float, old: float | None) -> bool:
    """Whether a value of the first metric beats another."""
    return old is None or (new > old if task.higher_is_better else new < old)


def _percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    # A share of nothing is no number, in a draw as on all images.
    return 100 * np.divide(part, whole, out=np.full_like(part, np.nan), where=whole != 0)


def _metrics(
    task: Task, outputs: np.ndarray, targets: np.ndarray, normaliser: np.ndarray | None, counts: np.ndarray
) -> Mapping[tuple[str, str | None], np.ndarray]:
    total = counts.sum(1)
    if task.kind == "classes":
        return _class_metrics(task, outputs.argmax(1), targets, counts)
    if task.kind == "number":
        error = outputs[:, 0] * task.scale + task.offset - targets
        return {
            ("rmse", None): np.sqrt(counts @ error**2 / total),
            ("mae", None): counts @ np.abs(error) / total,
        }
    assert normaliser is not None, "points need the distance of the outer eye corners"
    distance = np.linalg.norm(outputs.reshape(targets.shape) - targets, axis=-1).mean(1)
    return {("nme", None): counts @ (100 * distance / normaliser) / total}


def _class_metrics(task: Task, answers: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> dict:
    classes = np.arange(len(task.labels))
    answered, true = answers[:, None] == classes, targets[:, None] == classes
    hits = counts @ (answered & true).astype(np.float32)
    of_class, said = counts @ true.astype(np.float32), counts @ answered.astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        # A class that was neither there nor answered has no F1, and no part in the mean.
        f1 = 100 * 2 * hits / (of_class + said)
        recall = 100 * hits / of_class
    found = {("macro_f1", None): np.nanmean(f1, 1), ("accuracy", None): 100 * hits.sum(1) / counts.sum(1)}
    # Of a class that no image is of there is no recall.
    there = [(i, label) for i, label in enumerate(task.labels) if true[:, i].any()]
    return found | {("recall", label): recall[:, i] for i, label in there}
