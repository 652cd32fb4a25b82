"""Which merges a sweep measures, as recipes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from lora_lab.catalog import Catalog
from lora_lab.errors import NotFoundError
from lora_lab.merging import MergeRecipe, RecipeAdapter

GRID = (0.0, 0.375, 0.75, 1.125, 1.5)
RANDOM_RECIPES, HIGHEST_RANDOM = 60, 1.5

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


def alone(scope: Scope) -> list[MergeRecipe]:
    """Every adapter by itself, at weight 1."""
    return [scope.recipe([name], rank, [1.0]) for rank in scope.ranks for name in scope.names]


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


def random_recipes(scope: Scope, seed: int = 0) -> list[MergeRecipe]:
    """Recipes of two adapters to all of them, with weights drawn evenly; always the same of a seed."""
    rng = np.random.default_rng(seed)
    recipes = []
    for _ in range(RANDOM_RECIPES):
        size = int(rng.integers(2, len(scope.names) + 1))
        names = [scope.names[i] for i in sorted(rng.permutation(len(scope.names))[:size])]
        recipes.append(scope.recipe(names, scope.ranks[0], [round(float(w), 2) for w in rng.uniform(0, HIGHEST_RANDOM, size)]))
    return recipes


PLANS: Catalog[Callable[[Scope], list[MergeRecipe]]] = Catalog(
    "plan",
    (
        ("alone", lambda scope: []),
        ("pairs", lambda scope: merges(scope, [2])),
        ("triples", lambda scope: merges(scope, [3])),
        ("subsets", lambda scope: merges(scope, range(2, len(scope.names) + 1))),
        ("weights", grids),
        ("random", random_recipes),
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
