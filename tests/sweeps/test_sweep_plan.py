"""Which merges are planned."""

import pandas as pd
import pytest

from lora_lab.errors import NotFoundError
from lora_lab.sweeps import PLANS, Scope, parse_sets, random_recipes, worst_pairs
from lora_lab.tasks import TASKS

NAMES = tuple(TASKS)
ALL = Scope("tiny", NAMES)


def planned(name: str, scope: Scope = ALL, records: pd.DataFrame | None = None) -> list:
    read = lambda: pd.DataFrame(columns=["recipe", "metric", "value"]) if records is None else records  # noqa: E731
    return [recipe for stage in PLANS[name](scope, read) for recipe in stage]


def harmed(pairs: dict[frozenset, float], others: float) -> pd.DataFrame:
    """Records in which these pairs retain so much in the mean, and all others the same."""
    rows = []
    for recipe in planned("pairs"):
        names = frozenset(a.name for a in recipe.adapters)
        value = pairs.get(names, others)
        rows += [{"recipe": recipe.key, "metric": "retention", "value": value + side} for side in (-5, 5)]
    return pd.DataFrame(rows)


def test_sizes_ranks_and_methods():
    assert len(planned("pairs")) == 15
    assert len(planned("triples")) == 20
    assert len(planned("subsets")) == 15 + 20 + 15 + 6 + 1
    both = planned("subsets", Scope("tiny", NAMES, (16, 64), ("exact", "uniform")))
    assert len({recipe.key for recipe in both}) == len(both) == 57 * 4
    for recipe in both:
        weights = {a.weight for a in recipe.adapters}
        assert weights in ({1.0}, {1 / len(recipe.adapters)})


def test_only_some_sets():
    only = parse_sets(["emotion+ galaxy", "age_class+landmarks"], NAMES)
    found = planned("pairs", Scope("tiny", NAMES, only=only))
    assert {frozenset(a.name for a in recipe.adapters) for recipe in found} == set(only)
    with pytest.raises(NotFoundError, match="no adapter emotions"):
        parse_sets(["emotions+galaxy"], NAMES)


def test_the_six_worst_pairs_get_a_grid():
    worst = [frozenset(("landmarks", name)) for name in NAMES if name != "landmarks"] + [frozenset(("galaxy", "emotion"))]
    records = harmed({pair: 40.0 + i for i, pair in enumerate(worst)}, 90.0)
    assert worst_pairs(ALL, records) == tuple(worst)
    found = planned("weights", ALL, records)
    assert len({recipe.key for recipe in found}) == 6 * 25
    assert {a.weight for recipe in found for a in recipe.adapters} == {0, 0.375, 0.75, 1.125, 1.5}
    with pytest.raises(NotFoundError, match="1 of 15 pairs are not measured"):
        worst_pairs(ALL, records.iloc[2:])


def test_random_recipes_are_always_the_same():
    recipes = random_recipes(ALL)
    assert recipes == random_recipes(ALL)
    assert len({recipe.key for recipe in recipes}) == 60
    sizes = {len(recipe.adapters) for recipe in recipes}
    weights = [a.weight for recipe in recipes for a in recipe.adapters]
    assert sizes == {2, 3, 4, 5, 6}
    assert min(weights) >= 0
    assert max(weights) <= 1.5
    assert max(weights) > 1.4


def test_what_is_published():
    recipes = planned("published", ALL, harmed({}, 90.0))
    assert len({recipe.key for recipe in recipes}) == len(recipes)
    # Sets of rank 16 by two methods; pairs, four triples and the six of rank 64 by two methods; grids; random ones.
    assert len(recipes) == 57 * 2 + (15 + 4 + 1) * 2 + 6 * 25 + 60
