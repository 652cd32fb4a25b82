"""Weights from images: NSC's factors by layer from photos, and LoraHub's search on labelled ones."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.errors import LoraLabError
from lora_lab.merging import MergeRecipe, Selection, Sight, lorahub, nsc
from lora_lab.merging.layerwise import deltas_from, layer_of
from lora_lab.merging.recipe import HIGHEST as MOST_WEIGHT
from lora_lab.merging.recipe import LOWEST as LEAST_WEIGHT
from lora_lab.nearness import Figure, figures_on, of_first, own_answers
from lora_lab.recent import Recent
from lora_lab.suggestions.base import DECIMALS, Judge, Question, Suggestion, chosen, exact, mean_loss

LAYER_DECIMALS = 3


def from_photos(question: Question) -> Suggestion:
    """By NSC, from the weights that are set or these over K, whichever comes nearer; judged by each adapter's own answers."""
    sight, begun = _sight(question), _begun(question.start)
    judge = _judge(question, of_first(sight))
    even = exact(begun, [a.weight / len(begun.adapters) for a in begun.adapters])
    start = min((begun, even), key=lambda recipe: mean_loss(judge(recipe)) or 0.0)
    learned = start.model_copy(update={"method": nsc.METHOD.name, "knobs": {"start": 0.0}})
    layers = question.lab.merger.merged(learned, sight).layers
    assert layers is not None, "NSC says its factors"
    return chosen(question.start, judge, [start, layered(start, layers)])


def from_labels(question: Question) -> Suggestion:
    """By LoraHub's search on labelled images, at least of one task. Raises `LoraLabError` where nothing has a label."""
    sight, begun = _sight(question), _begun(question.start)
    if not sight.labels:
        raise LoraLabError("none of these images has a label: name labelled ones, or let photos without labels do")
    trials = round(lorahub.TRIALS.default)
    weights = np.array([a.weight for a in begun.adapters])
    found = lorahub.search(_objective(question, begun), weights.clip(-lorahub.WIDEST, lorahub.WIDEST), trials, sight.tell)
    return chosen(question.start, _judge(question, of_first(sight)), [begun, exact(begun, _possible(found))])


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


def _sight(question: Question) -> Sight:
    if question.sight is None:
        raise LoraLabError("there are no images to look at: name some, or ask the records")
    return question.sight


def _begun(start: MergeRecipe) -> MergeRecipe:
    # What is selected takes part, even where its slider stands at 0.
    return exact(start, [a.weight or 1 / len(start.adapters) for a in start.adapters])


def _possible(weights: Float[np.ndarray, "adapters"]) -> Float[np.ndarray, "adapters"]:
    # LoraHub looks further below 0 than a recipe goes.
    return weights.clip(min=LEAST_WEIGHT)
