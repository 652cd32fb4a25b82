"""Which merges a sweep measures, as recipes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np

from lora_lab.catalog import Catalog
from lora_lab.errors import NotFoundError
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.metrics import RETENTION

if TYPE_CHECKING:
    import pandas as pd

GRID = (0.0, 0.375, 0.75, 1.125, 1.5)
GRIDS = 6
RANDOM_RECIPES, HIGHEST_RANDOM = 60, 1.5
# Tables VIII of Kesim and Helli, arXiv 2411.14064, with land cover where they had fire risk.
PAPER_TRIPLES = tuple(
    frozenset(("land_cover", "galaxy", third)) for third in ("age_class", "emotion", "age_regression", "landmarks")
)

Plan = Callable[["Scope", Callable[[], "pd.DataFrame"]], Iterator[list[MergeRecipe]]]
"""Recipes of a scope, stage by stage; a later stage may read the records of the earlier ones."""

WEIGHTINGS: Catalog[Callable[[int], float]] = Catalog(
    "method of a sweep", (("exact", lambda size: 1.0), ("uniform", lambda size: 1 / size))
)
"""The weight of each of so many adapters in the exact sum."""


@dataclass(frozen=True)
class Scope:
    """What a plan ranges over: adapters by name, ranks, methods; `only` names the sets of adapters, all if there is none."""

    backbone: str
    names: tuple[str, ...]
    ranks: tuple[int, ...] = (16,)
    methods: tuple[str, ...] = ("exact",)
    only: tuple[frozenset[str], ...] = ()

    def sets(self, size: int) -> Iterator[tuple[str, ...]]:
        """Sets of so many adapters."""
        for names in combinations(self.names, size):
            if not self.only or frozenset(names) in self.only:
                yield names

    def recipe(self, names: Sequence[str], rank: int, weights: Sequence[float]) -> MergeRecipe:
        """The exact sum of these adapters."""
        pairs = zip(names, weights, strict=True)
        return MergeRecipe(
            backbone=self.backbone, adapters=tuple(RecipeAdapter(name=name, rank=rank, weight=w) for name, w in pairs)
        )


def merges(scope: Scope, sizes: Sequence[int]) -> list[MergeRecipe]:
    """Every set of so many adapters, at every rank, by every method."""
    return [
        scope.recipe(names, rank, [WEIGHTINGS[method](size)] * size)
        for size in sizes
        for rank in scope.ranks
        for method in scope.methods
        for names in scope.sets(size)
    ]


def grids(scope: Scope) -> list[MergeRecipe]:
    """A grid of weights for every pair."""
    return [
        scope.recipe(names, rank, weights) for rank in scope.ranks for names in scope.sets(2) for weights in product(GRID, GRID)
    ]


def worst_pairs(scope: Scope, records: "pd.DataFrame") -> tuple[frozenset[str], ...]:
    """The pairs with most interference: the least mean retention of their two tasks as the exact sum at weights 1.

    Raises `NotFoundError` where the records lack pairs.
    """
    retained = records[records.metric == RETENTION].groupby("recipe").value.mean()
    pairs = {frozenset(names): scope.recipe(names, scope.ranks[0], [1.0, 1.0]).key for names in combinations(scope.names, 2)}
    missing = sum(key not in retained.index for key in pairs.values())
    if missing:
        raise NotFoundError(f"{missing} of {len(pairs)} pairs are not measured, so the worst cannot be told: sweep pairs first")
    return tuple(sorted(pairs, key=lambda names: retained[pairs[names]])[:GRIDS])


def random_recipes(scope: Scope, seed: int = 0) -> list[MergeRecipe]:
    """Recipes of two adapters to all of them, with weights drawn evenly; always the same of a seed."""
    rng = np.random.default_rng(seed)
    recipes = []
    for _ in range(RANDOM_RECIPES):
        size = int(rng.integers(2, len(scope.names) + 1))
        names = [scope.names[i] for i in sorted(rng.permutation(len(scope.names))[:size])]
        recipes.append(scope.recipe(names, scope.ranks[0], [round(float(w), 2) for w in rng.uniform(0, HIGHEST_RANDOM, size)]))
    return recipes


def _of_sizes(*sizes: int) -> Plan:
    return lambda scope, read: iter([merges(scope, sizes or range(2, len(scope.names) + 1))])


def _grids(scope: Scope, read: Callable[[], "pd.DataFrame"]) -> Iterator[list[MergeRecipe]]:
    yield grids(scope if scope.only else replace(scope, only=worst_pairs(scope, read())))


def _published(scope: Scope, read: Callable[[], "pd.DataFrame"]) -> Iterator[list[MergeRecipe]]:
    low, high = (replace(scope, ranks=(rank,), methods=tuple(WEIGHTINGS), only=()) for rank in (16, 64))
    yield [
        *merges(low, range(2, len(scope.names) + 1)),
        *merges(high, [2]),
        *merges(replace(high, only=PAPER_TRIPLES), [3]),
        *merges(high, [len(scope.names)]),
        *random_recipes(low),
    ]
    yield from _grids(low, read)


PLANS: Catalog[Plan] = Catalog(
    "plan",
    (
        ("pairs", _of_sizes(2)),
        ("triples", _of_sizes(3)),
        ("subsets", _of_sizes()),
        ("weights", _grids),
        ("random", lambda scope, read: iter([random_recipes(scope)])),
        ("published", _published),
    ),
)
"""What can be swept; adapters alone and heads alone are measured in each, since merges are compared to them."""


def parse_sets(texts: Sequence[str], names: Sequence[str]) -> tuple[frozenset[str], ...]:
    """Sets of adapters from such as "age_class+landmarks". Raises `NotFoundError`."""
    sets = tuple(frozenset(name.strip() for name in text.split("+")) for text in texts)
    strange = sorted(frozenset().union(*sets) - set(names))
    if strange:
        raise NotFoundError(f"no adapter {', '.join(strange)}; there is {', '.join(names)}")
    return sets
