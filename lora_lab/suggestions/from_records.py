"""Weights from the records: those by which the least is expected to be lost, or a measured merge of the same adapters."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import Bounds, minimize

from lora_lab import metrics
from lora_lab.errors import LoraLabError
from lora_lab.findings import METRIC, Findings, Merge
from lora_lab.forecast import HIGHEST, LOWEST, RANK, Forecast
from lora_lab.merging import MergeRecipe
from lora_lab.merging.base import nobody
from lora_lab.nearness import Figure
from lora_lab.suggestions.base import Question, Suggestion, Tell, chosen, exact
from lora_lab.sweeps.spelling import read_spelled
from lora_lab.tasks import TASKS

DRAWN, DESCENTS, MOST_STEPS, NEAR = 8, 3, 15, 1e-6


def from_records(question: Question) -> Suggestion:
    """By what was measured, and what is forecast from it. Raises `LoraLabError` where neither says anything."""
    forecast, start = question.forecast, question.start
    if forecast is None:
        raise LoraLabError("no merges of these adapters were measured: take photos or labelled images instead")
    candidates = measured(forecast.findings, question)
    if all(a.rank == RANK and a.name in forecast.fits.names for a in start.adapters):
        candidates.append(sought(forecast, start, question.tell))
    if not candidates:
        raise LoraLabError(f"nothing was measured of {start.title}: take rank {RANK}, or photos or labelled images instead")
    return chosen(start, lambda recipe: _expected(forecast, recipe), candidates)


def measured(findings: Findings, question: Question) -> list[MergeRecipe]:
    """All merges of just these adapters that were measured and can be made again without images."""
    wanted = {(a.name, a.rank) for a in question.start.adapters}
    methods = {n: m for n, m in question.lab.merger.methods.items() if m.needs in ("nothing", "statistics")}
    rows = findings.records
    rows = rows[(rows.subject == "merge") & (rows.metric == metrics.RETENTION)].drop_duplicates("recipe")
    found = []
    for key, method, adapters in zip(rows.recipe, rows.method, rows.adapters, strict=True):
        recipe = read_spelled(method, adapters, findings.backbone)
        plain = recipe.key == key and recipe.repair is None
        if plain and recipe.method in methods and {(a.name, a.rank) for a in recipe.adapters} == wanted:
            found.append(recipe)
    return [recipe for recipe in found if methods[recipe.method].family != "bound"]


def sought(forecast: Forecast, start: MergeRecipe, tell: Tell = nobody) -> MergeRecipe:
    """The exact sum with the least mean loss of all weights in 0 to 1.5, by descents from the best of several places."""
    names = [a.name for a in start.adapters]
    columns = [forecast.fits.names.index(name) for name in names]
    steps = 0

    def losses(weights: Float[np.ndarray, "n adapters"]) -> Float[np.ndarray, "n"]:
        of_all = np.zeros((len(weights), len(forecast.fits.names)))
        of_all[:, columns] = weights
        lost = [_lost(forecast.findings, name, RANK, forecast.scores(name, of_all)) for name in names]
        return np.sqrt(np.mean(np.square(lost), axis=0))

    def descend(weights: Float[np.ndarray, "adapters"]) -> tuple[float, Float[np.ndarray, "adapters"]]:
        # A loss and its slope, from one batch of forecasts.
        nonlocal steps
        tell(min(steps / (DESCENTS * MOST_STEPS), 1.0), "weighing the records")
        steps += 1
        here, *near = losses(np.vstack([weights, weights + NEAR * np.eye(len(weights))]))
        return float(here), (np.array(near) - here) / NEAR

    given = np.clip([a.weight for a in start.adapters], LOWEST, HIGHEST)
    even = [np.full(len(names), weight) for weight in (1 / len(names), 0.5, 1.0)]
    drawn = np.random.default_rng(start.seed).uniform(LOWEST, HIGHEST, (DRAWN, len(names)))
    places = np.array([given, *even, *drawn])
    begins = places[np.argsort(losses(places), kind="stable")[:DESCENTS]]
    bounds, options = Bounds(LOWEST, HIGHEST), {"maxfun": MOST_STEPS}
    found = [minimize(descend, x, jac=True, method="L-BFGS-B", bounds=bounds, options=options) for x in begins]
    return exact(start, min(found, key=lambda one: one.fun).x)


def _expected(forecast: Forecast, recipe: MergeRecipe) -> dict[str, Figure]:
    figures = {}
    for a in recipe.adapters:
        one = forecast.expect(recipe)[a.name]
        known = a.name in forecast.fits.names and one.score is not None
        loss = float(_lost(forecast.findings, a.name, a.rank, one.score.value)) if known and one.score else None
        figures[a.name] = Figure(TASKS[a.name].metric if a.name in TASKS else METRIC, one.basis, one.score, loss)
    return figures


def _lost(findings: Findings, task: str, rank: int, scores: Any) -> Any:
    alone = findings.score(task, Merge((task,), rank), METRIC)
    assert alone is not None, "a task with a forecast was measured alone"
    shares = scores / alone.value if TASKS[task].higher_is_better else alone.value / scores
    return 1 - np.minimum(1.0, shares)
