"""Weights that should suit the selected adapters, and how each task fares before and after.

There are three ways to find them. From the records: the weights by which the least is expected to be lost, or a merge of the
same adapters that was measured and is better. From photos without labels: NSC's factors for each adapter and layer (arXiv
2603.26317). From labelled images: LoraHub's search (arXiv 2307.13269), where a task that has no labels counts by how far its
features drift from those under its adapter alone. Whatever is found is given only where tasks fare better by it than before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import Bounds, minimize
from torch import Tensor

from lora_lab import metrics
from lora_lab.catalog import Catalog
from lora_lab.errors import LoraLabError
from lora_lab.findings import METRIC, Findings, Interval, Merge
from lora_lab.forecast import HIGHEST, LOWEST, RANK, Forecast
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, RecipeAdapter, Selection, Sight, lorahub, nsc
from lora_lab.merging.layerwise import deltas_from, layer_of
from lora_lab.merging.recipe import HIGHEST as MOST_WEIGHT
from lora_lab.merging.recipe import LOWEST as LEAST_WEIGHT
from lora_lab.nearness import Figure, figures_on, of_first, own_answers
from lora_lab.recent import Recent
from lora_lab.sweeps.spelling import read_spelled
from lora_lab.tasks import TASKS

Needs = Literal["records", "images", "labels"]
Judge = Callable[[MergeRecipe], Mapping[str, Figure]]
"""How each task fares in a merge."""

DECIMALS, LAYER_DECIMALS = 2, 3
DRAWN, DESCENTS, MOST_STEPS = 8, 3, 15


@dataclass(frozen=True)
class Suggestion:
    """A recipe, and how each task fares in the one that it started from and in itself; it is the start where none is better."""

    recipe: MergeRecipe
    start: MergeRecipe
    before: Mapping[str, Figure]
    after: Mapping[str, Figure]

    @property
    def better(self) -> bool:
        """Whether there is anything new in it."""
        return self.recipe != self.start


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked: the merge that is there, with its adapters, and what there is to find a better one by."""

    lab: Lab
    start: MergeRecipe
    forecast: Forecast | None = None
    sight: Sight | None = None


@dataclass(frozen=True)
class Suggester:
    """A named way to find weights."""

    name: str
    title: str
    needs: Needs
    meaning: str
    suggest: Callable[[Question], Suggestion]


def mean_loss(figures: Mapping[str, Figure]) -> float | None:
    """What suggestions are judged by: `mean_of` the tasks' losses, 0 at best; none where a task's is not known."""
    losses = [one.loss for one in figures.values()]
    return mean_of([loss for loss in losses if loss is not None]) if None not in losses else None


def mean_of(losses: Sequence[float]) -> float:
    """The quadratic mean: to give up one task for the others is no bargain to somebody who has chosen them all."""
    return float(np.sqrt(np.mean(np.square(losses))))


def from_records(question: Question) -> Suggestion:
    """By what was measured, and what is forecast from it. Raises `LoraLabError` where neither says anything."""
    forecast, start = question.forecast, question.start
    if forecast is None:
        raise LoraLabError("no merges of these adapters were measured: take photos or labelled images instead")
    candidates = measured(forecast.findings, question)
    if all(a.rank == RANK and a.name in forecast.fits.names for a in start.adapters):
        candidates.append(sought(forecast, start))
    if not candidates:
        raise LoraLabError(f"nothing was measured of {start.title}: take rank {RANK}, or photos or labelled images instead")
    return _chosen(start, lambda recipe: _expected(forecast, recipe), candidates)


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


def sought(forecast: Forecast, start: MergeRecipe) -> MergeRecipe:
    """The exact sum with the least mean loss of all weights in 0 to 1.5, by descents from the best of several places."""
    names = [a.name for a in start.adapters]
    columns = [forecast.fits.names.index(name) for name in names]

    def loss(weights: Float[np.ndarray, "adapters"]) -> float:
        of_all = np.zeros(len(forecast.fits.names))
        of_all[columns] = weights
        return mean_of([_lost(forecast.findings, name, RANK, forecast.predict(name, of_all)) for name in names])

    given = np.clip([a.weight for a in start.adapters], LOWEST, HIGHEST)
    even = [np.full(len(names), weight) for weight in (1 / len(names), 0.5, 1.0)]
    drawn = np.random.default_rng(start.seed).uniform(LOWEST, HIGHEST, (DRAWN, len(names)))
    begins = sorted((given, *even, *drawn), key=loss)[:DESCENTS]
    options = {"maxfun": MOST_STEPS * (len(names) + 1)}
    found = [minimize(loss, x, method="L-BFGS-B", bounds=Bounds(LOWEST, HIGHEST), options=options) for x in begins]
    return _exact(start, min(found, key=lambda one: one.fun).x)


def from_photos(question: Question) -> Suggestion:
    """By NSC, from the weights that are set or these over K, whichever comes nearer; judged by each adapter's own answers."""
    sight, begun = _sight(question), _begun(question.start)
    judge = _judge(question, of_first(sight))
    even = _exact(begun, [a.weight / len(begun.adapters) for a in begun.adapters])
    start = min((begun, even), key=lambda recipe: mean_loss(judge(recipe)) or 0.0)
    learned = start.model_copy(update={"method": nsc.METHOD.name, "knobs": {"start": 0.0}})
    layers = question.lab.merger.merged(learned, sight).layers
    assert layers is not None, "NSC says its factors"
    return _chosen(question.start, judge, [start, layered(start, layers)])


def from_labels(question: Question) -> Suggestion:
    """By LoraHub's search on labelled images, at least of one task. Raises `LoraLabError` where nothing has a label."""
    sight, begun = _sight(question), _begun(question.start)
    if not sight.labels:
        raise LoraLabError("none of these images has a label: name labelled ones, or let photos without labels do")
    trials = round(lorahub.TRIALS.default)
    weights = np.array([a.weight for a in begun.adapters])
    found = lorahub.search(_objective(question, begun), weights.clip(-lorahub.WIDEST, lorahub.WIDEST), trials, sight.tell)
    return _chosen(question.start, _judge(question, of_first(sight)), [begun, _exact(begun, _possible(found))])


def layered(recipe: MergeRecipe, layers: Float[Tensor, "adapters layers"]) -> MergeRecipe:
    """The exact sum with these factors of the adapters that take part; one with the same in all layers has it in its weight."""
    rows = iter(layers.double().numpy().round(LAYER_DECIMALS))
    adapters = []
    for one in recipe.adapters:
        row = next(rows) if one.weight else np.ones(1)
        weight = round(one.weight * float(row[0]), DECIMALS)
        whole = bool((row == row[0]).all()) and LEAST_WEIGHT <= weight <= MOST_WEIGHT
        adapters.append(one.model_copy(update={"weight": weight} if whole else {"layers": tuple(row.tolist())}))
    return recipe.model_copy(update={"adapters": tuple(adapters)})


def _objective(question: Question, recipe: MergeRecipe) -> Callable[[Float[np.ndarray, "adapters"]], float]:
    sight, seed = _sight(question), recipe.seed
    members = [question.lab.adapter(a.name, a.rank) for a in recipe.adapters]
    selection = Selection([a.name for a in recipe.adapters], [member.factors for member in members], sight=sight)
    count = round(lorahub.IMAGES.default)
    labelled = [k for k, name in enumerate(selection.names) if name in sight.labels]
    part = Selection([selection.names[k] for k in labelled], [selection.factors[k] for k in labelled], sight=sight)
    examples = [
        replace(
            one,
            heads={labelled[k]: head for k, head in one.heads.items()},
            labels={labelled[k]: labels for k, labels in one.labels.items()},
        )
        for one in lorahub.examples_of(part, count, seed)
    ]
    loss = lorahub.objective(selection, examples)
    others = [k for k in range(len(members)) if k not in labelled]
    drifts = [_drift(selection, k, count, seed) for k in others]

    def value(weights: Float[np.ndarray, "adapters"]) -> float:
        weights = _possible(weights)
        return loss(weights) + float(np.mean([drift(weights) for drift in drifts] or [0.0]))

    return value


def _drift(selection: Selection, k: int, count: int, seed: int) -> Callable[[Float[np.ndarray, "adapters"]], float]:
    # How far the merged feature is from the adapter's own, in shares of its own's variance.
    sight = selection.sight
    assert sight is not None, "asked only where there are images"
    factors = selection.factors
    layers = len(set(layer_of(factors).values()))
    pixels = sight.pixels[selection.names[k]]
    pixels = pixels[torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))[:count]]

    @torch.no_grad()
    def pooled(weights: Float[np.ndarray, "adapters"]) -> Float[Tensor, "n D"]:
        coefficients = torch.from_numpy(weights).float()[:, None].expand(-1, layers)
        return sight.backbone.encode(pixels, deltas_from(factors, coefficients)).pooled

    own = pooled(np.eye(len(factors))[k])
    spread = own.var(0, correction=0).mean().clamp(min=lorahub.SMALLEST_LOSS) if len(own) > 1 else own.square().mean()
    return lambda weights: float((pooled(weights) - own).square().mean() / spread)


def _judge(question: Question, sight: Sight) -> Judge:
    lab, found = question.lab, Recent[str, Mapping[str, Figure]](8)
    wanted = own_answers(lab, question.start, sight)

    def judge(recipe: MergeRecipe) -> Mapping[str, Figure]:
        return found.get(recipe.key, lambda: figures_on(lab.merge(recipe, question.sight), sight, wanted))

    return judge


def _expected(forecast: Forecast, recipe: MergeRecipe) -> dict[str, Figure]:
    figures = {}
    for a in recipe.adapters:
        one = forecast.expect(recipe)[a.name]
        known = a.name in forecast.fits.names and one.score is not None
        loss = _lost(forecast.findings, a.name, a.rank, one.score) if known and one.score else None
        figures[a.name] = Figure(TASKS[a.name].metric if a.name in TASKS else METRIC, one.basis, one.score, loss)
    return figures


def _lost(findings: Findings, task: str, rank: int, score: Interval) -> float:
    alone = findings.score(task, Merge((task,), rank), METRIC)
    assert alone is not None, "a task with a forecast was measured alone"
    share = score.value / alone.value if TASKS[task].higher_is_better else alone.value / score.value
    return 1 - min(1.0, share)


def _chosen(start: MergeRecipe, judge: Judge, candidates: Sequence[MergeRecipe]) -> Suggestion:
    before = judge(start)
    judged = [(recipe, judge(recipe)) for recipe in candidates]
    known = [(loss, recipe, figures) for recipe, figures in judged if (loss := mean_loss(figures)) is not None]
    was = mean_loss(before)
    better = [one for one in known if was is None or one[0] < was]
    if not better:
        return Suggestion(start, start, before, before)
    _, recipe, after = min(better, key=lambda one: one[0])
    return Suggestion(recipe, start, before, after)


def _sight(question: Question) -> Sight:
    if question.sight is None:
        raise LoraLabError("there are no images to look at: name some, or ask the records")
    return question.sight


def _begun(start: MergeRecipe) -> MergeRecipe:
    # What is selected takes part, even where its slider stands at 0.
    return _exact(start, [a.weight or 1 / len(start.adapters) for a in start.adapters])


def _exact(recipe: MergeRecipe, weights: Sequence[float] | np.ndarray) -> MergeRecipe:
    adapters = tuple(
        RecipeAdapter(name=a.name, rank=a.rank, weight=round(float(weight), DECIMALS))
        for a, weight in zip(recipe.adapters, weights, strict=True)
    )
    return MergeRecipe(backbone=recipe.backbone, adapters=adapters, seed=recipe.seed)


def _possible(weights: Float[np.ndarray, "adapters"]) -> Float[np.ndarray, "adapters"]:
    # LoraHub looks further below 0 than a recipe goes.
    return weights.clip(min=LEAST_WEIGHT)


RECORDS = Suggester(
    "records",
    "From the records",
    "records",
    "The weights with the best expected scores, from merges that were measured; no image is needed.",
    from_records,
)
PHOTOS = Suggester(
    "photos",
    "From photos",
    "images",
    "A factor for each adapter and layer with which every adapter still sees most of what its layers read (NSC).",
    from_photos,
)
LABELS = Suggester(
    "labels",
    "From labelled images",
    "labels",
    "A search for the weights with which labelled images come out best (LoraHub); the other tasks are kept near to themselves.",
    from_labels,
)
SUGGESTERS: Catalog[Suggester] = Catalog("way to suggest weights", ((one.name, one) for one in (RECORDS, PHOTOS, LABELS)))
