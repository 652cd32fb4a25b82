"""What a suggestion is: a question, ways to answer it, and how what was found is judged against what was there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lora_lab.forecast import Forecast
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, RecipeAdapter, Sight
from lora_lab.merging.base import nobody
from lora_lab.nearness import Figure

Needs = Literal["records", "images", "labels"]
Tell = Callable[[float, str], None]
Judge = Callable[[MergeRecipe], Mapping[str, Figure]]
"""How each task fares in a merge."""

DECIMALS = 2


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
    """What is asked: the merge that is there, with its adapters, what there is to find a better one by, and who is told."""

    lab: Lab
    start: MergeRecipe
    forecast: Forecast | None = None
    sight: Sight | None = None
    tell: Tell = nobody


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


def chosen(start: MergeRecipe, judge: Judge, candidates: Sequence[MergeRecipe]) -> Suggestion:
    """The candidate that loses least; the start itself where none is better."""
    before = judge(start)
    judged = [(recipe, judge(recipe)) for recipe in candidates]
    known = [(loss, recipe, figures) for recipe, figures in judged if (loss := mean_loss(figures)) is not None]
    was = mean_loss(before)
    better = [one for one in known if was is None or one[0] < was]
    if not better:
        return Suggestion(start, start, before, before)
    _, recipe, after = min(better, key=lambda one: one[0])
    return Suggestion(recipe, start, before, after)


def exact(recipe: MergeRecipe, weights: Sequence[float] | np.ndarray) -> MergeRecipe:
    """The exact sum of the recipe's adapters at these weights, rounded."""
    adapters = tuple(
        RecipeAdapter(name=a.name, rank=a.rank, weight=round(float(weight), DECIMALS))
        for a, weight in zip(recipe.adapters, weights, strict=True)
    )
    return MergeRecipe(backbone=recipe.backbone, adapters=adapters, seed=recipe.seed)
