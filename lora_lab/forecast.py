"""What a task is expected to score at weights that nobody measured, from the merges that were.

A Gaussian process for each task over the weights of all adapters (0 for one that is left out, which is the same merge),
with a length for each adapter. Scores are fitted as logits and errors as logarithms, so that no forecast leaves its
range. Its standard deviation is stretched where fewer than 90 % of the random recipes that it was fitted on lie within the
bounds when each is left out in turn. The kernel was chosen by the error on these.

Source: Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", chapters 2 and 5 (leaving one out: 5.4.2).
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from lora_lab.cache import whole_file
from lora_lab.errors import DataError
from lora_lab.findings import METRIC, Findings, Interval
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.records import RECORDS, Frozen, RecordFile
from lora_lab.sweeps.league import LEAGUE
from lora_lab.tasks import TASKS

FORECAST = RECORDS.parent / "forecast.json"
RANK = 16
LOWEST, HIGHEST = 0.0, 1.5
LEVEL, WITHIN = 90, 1.6449
RESTARTS = 2

Basis = Literal["measured", "forecast", "not known"]


@dataclass(frozen=True)
class Expectation:
    """What a task is expected to score: bounds of 95 % where it was measured, of 90 % where it is a forecast."""

    basis: Basis
    score: Interval | None = None


@dataclass(frozen=True)
class HeldOut:
    """A held-out merge: whether its score lies within the bounds, and how far off the forecast and the nearest record are."""

    inside: bool
    error: float
    nearest_error: float


class Fit(Frozen):
    """A task's fit: the logarithms of the kernel's amplitude, lengths and noise, and the stretch of its deviation."""

    theta: tuple[float, ...]
    stretch: float


class ForecastFits(Frozen):
    """The fits of all tasks, and the keys of the random recipes that no fit has seen."""

    names: tuple[str, ...]
    fits: dict[str, Fit]
    held_out: tuple[str, ...]

    @classmethod
    def read(cls, path: Path = FORECAST) -> "ForecastFits":
        """Raises `DataError`."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise DataError(f"{path} holds no forecast: run `make records` to fit it anew") from error

    def write(self, path: Path = FORECAST) -> None:
        """Put it in the place of the one there."""
        with whole_file(path) as part:
            part.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Points:
    """n merges that a task was measured in: keys, weights (n, adapters), scores (n,)."""

    keys: tuple[str, ...]
    weights: np.ndarray
    scores: np.ndarray

    def without(self, keys: Sequence[str]) -> "Points":
        """Those of other recipes."""
        rows = np.array([key not in set(keys) for key in self.keys], bool)
        return Points(tuple(np.array(self.keys)[rows]), self.weights[rows], self.scores[rows])


def findings_of(lab: Lab) -> Findings | None:
    """All records of a lab's backbone; none where there are none, or they are of other adapters than the lab's."""
    findings = findings_in(RECORDS.parent, lab.backbone.name)
    records, ranks = findings.records, lab.ranks()
    single = records[records.subject == "adapter"]
    for adapters, fingerprint in dict(zip(single.adapters, single.fingerprint, strict=True)).items():
        recipe = MergeRecipe.parse(adapters, findings.backbone)
        there = all(a.rank in ranks.get(a.name, ()) for a in recipe.adapters)
        if not there or fingerprint != lab.fingerprint(recipe):
            return None
    return findings if findings.names else None


def findings_in(folder: Path, backbone: str) -> Findings:
    """All merges that a folder of records holds, those of the league among them."""
    import pandas as pd

    files = (folder / LEAGUE, folder / RECORDS.name)
    return Findings(pd.concat([RecordFile(file).read() for file in files], ignore_index=True), backbone)


def forecast_of(findings: Findings | None) -> "Forecast | None":
    """The forecast from such records, where there are some and it was fitted."""
    return Forecast(findings, ForecastFits.read()) if findings and FORECAST.exists() else None


class Forecast:
    """Expectations for any weights of the adapters that were measured at rank 16."""

    def __init__(self, findings: Findings, fits: ForecastFits):
        self.findings, self.fits = findings, fits
        self.points = {task: points_of(findings, task, fits.names) for task in fits.fits}
        self._processes = {
            task: _process(self.points[task].without(fits.held_out), task, fit.theta) for task, fit in fits.fits.items()
        }
        self._measured = {
            (task, tuple(weights)): key
            for task, points in self.points.items()
            for key, weights in zip(points.keys, np.round(points.weights, 2), strict=True)
        }

    def expect(self, recipe: MergeRecipe) -> dict[str, Expectation]:
        """What each task of a recipe is expected to score."""
        plain = recipe.method == "exact" and not recipe.repair and not any(a.layers for a in recipe.adapters)
        known = plain and all(a.rank == RANK and a.name in self.fits.names for a in recipe.adapters)
        weights = weights_of(recipe, self.fits.names)
        return {a.name: self._expect(a.name, weights, recipe, known) for a in recipe.adapters}

    def predict(self, task: str, weights: np.ndarray) -> Interval:
        """The forecast of a task at weights (adapters,), with bounds that hold the score in 90 % of the cases."""
        mean, deviation = self._processes[task].predict(weights[None], return_std=True)
        reach = WITHIN * self.fits.fits[task].stretch * deviation[0]
        return Interval(*(float(_score(task, mean + side * reach)[0]) for side in (0, -1, 1)))

    def scores(self, task: str, weights: np.ndarray) -> np.ndarray:
        """The forecast of a task at many weights (n, adapters), without bounds (n,)."""
        return _score(task, self._processes[task].predict(weights))

    def nearest(self, task: str, weights: np.ndarray) -> float:
        """The score of the measured merge, not held out, that is nearest in weights: what a forecast has to beat."""
        points = self.points[task].without(self.fits.held_out)
        return float(points.scores[np.linalg.norm(points.weights - weights, axis=1).argmin()])

    def test(self, task: str, in_percent: bool = False) -> list[HeldOut]:
        """The forecast on the merges that were held out; errors in the unit of the task, or in percent of the score."""
        points, held_out = self.points[task], set(self.fits.held_out)
        tested = []
        for key, weights, score in zip(points.keys, points.weights, points.scores, strict=True):
            if key in held_out:
                found, near, unit = self.predict(task, weights), self.nearest(task, weights), score / 100 if in_percent else 1.0
                tested.append(HeldOut(found.holds(score), abs(found.value - score) / unit, abs(near - score) / unit))
        return tested

    def _expect(self, task: str, weights: np.ndarray, recipe: MergeRecipe, known: bool) -> Expectation:
        measured = self.findings.of_recipe(task, recipe, METRIC) if task in TASKS else None
        if measured is None and known:
            key = self._measured.get((task, tuple(np.round(weights, 2))))
            measured = self.findings.at(key, task, TASKS[task].metric) if key else None
        if measured:
            return Expectation("measured", measured)
        inside = weights.min() >= LOWEST and weights.max() <= HIGHEST
        return Expectation("forecast", self.predict(task, weights)) if known and inside else Expectation("not known")


def fit_all(findings: Findings, random: Sequence[MergeRecipe]) -> ForecastFits:
    """Fit every task on all merges of rank 16 but the second half of the random recipes, which is held out to test it."""
    half = len(random) // 2
    seen, held_out = [recipe.key for recipe in random[:half]], tuple(recipe.key for recipe in random[half:])
    fits = {task: fit_task(findings, task, held_out, seen) for task in findings.names}
    # The few random recipes of one task would make a rough stretch, so all tasks share the mean.
    stretch = round(float(np.mean([fit.stretch for fit in fits.values()])), 4)
    fits = {task: fit.model_copy(update={"stretch": stretch}) for task, fit in fits.items()}
    return ForecastFits(names=findings.names, fits=fits, held_out=held_out)


def fit_task(findings: Findings, task: str, held_out: Sequence[str], seen: Sequence[str]) -> Fit:
    """The fit of one task; `seen` are the keys of the random recipes by which its deviation is stretched."""
    points = points_of(findings, task, findings.names).without(held_out)
    process = _process(points, task, None)
    return Fit(theta=tuple(process.kernel_.theta.round(4)), stretch=_stretch(process, points, seen))


def points_of(findings: Findings, task: str, names: Sequence[str]) -> Points:
    """All merges of rank 16 by the exact sum that a task was measured in, each once, however it was written."""
    rows = findings.records
    rows = rows[(rows.task == task) & (rows.metric == TASKS[task].metric) & (rows.method == "exact") & rows.label.isna()]
    found: dict[tuple[float, ...], tuple[str, float]] = {}
    for key, adapters, value in zip(rows.recipe, rows.adapters, rows.value, strict=True):
        recipe = MergeRecipe.parse(adapters, findings.backbone)
        if all(a.rank == RANK for a in recipe.adapters):
            found[tuple(weights_of(recipe, names))] = (key, value)
    keys, scores = zip(*found.values(), strict=True)
    return Points(keys, np.array(list(found)), np.array(scores))


def weights_of(recipe: MergeRecipe, names: Sequence[str]) -> np.ndarray:
    """The weight of each of these adapters in a recipe (adapters,), 0 for those that it leaves out."""
    weights: Mapping[str, float] = {a.name: a.weight for a in recipe.adapters}
    return np.array([weights.get(name, 0.0) for name in names])


def _process(points: Points, task: str, theta: Sequence[float] | None) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    lengths: Any = np.ones(points.weights.shape[1])
    kernel: Any = ConstantKernel(1.0, (1e-2, 1e3)) * Matern(lengths, (0.1, 30.0), nu=1.5) + WhiteKernel(1e-3, (1e-5, 1.0))
    if theta is not None:
        kernel = kernel.clone_with_theta(np.asarray(theta))
    optimizer: Any = None if theta is not None else "fmin_l_bfgs_b"
    process = GaussianProcessRegressor(
        kernel,
        optimizer=optimizer,
        n_restarts_optimizer=0 if theta is not None else RESTARTS,
        normalize_y=True,
        random_state=0,
    )
    with warnings.catch_warnings():
        # A length or a noise at its bound is an answer: that adapter does not matter, or nothing is noise.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return process.fit(points.weights, _target(task, points.scores))


def _stretch(process: Any, points: Points, seen: Sequence[str]) -> float:
    inverse = np.linalg.inv(process.L_ @ process.L_.T)
    left_out = np.abs(process.alpha_ / np.sqrt(np.diag(inverse)))
    rows = [i for i, key in enumerate(points.keys) if key in set(seen)]
    return max(1.0, float(np.percentile(left_out[rows], LEVEL) / WITHIN))


def _target(task: str, scores: np.ndarray) -> np.ndarray:
    if not TASKS[task].higher_is_better:
        return np.log(scores)
    share = np.clip(scores / 100, 1e-3, 1 - 1e-3)
    return np.log(share / (1 - share))


def _score(task: str, target: np.ndarray) -> np.ndarray:
    return np.exp(target) if not TASKS[task].higher_is_better else 100 / (1 + np.exp(-target))
