"""Merge methods, in the order in which they are shown."""

from lora_lab.catalog import Catalog
from lora_lab.merging import exact
from lora_lab.merging.base import LAWS, Knob, Merge, Merged, MergeMethod, Selection, Setting, Sight
from lora_lab.merging.recipe import MergeRecipe, RecipeAdapter

__all__ = [
    "LAWS",
    "MERGE_METHODS",
    "Knob",
    "Merge",
    "MergeMethod",
    "MergeRecipe",
    "Merged",
    "RecipeAdapter",
    "Selection",
    "Setting",
    "Sight",
]

MERGE_METHODS: Catalog[MergeMethod] = Catalog("merge method", ((method.name, method) for method in (exact.METHOD,)))
