"""Merge methods, in the order in which they are shown."""

from lora_lab.catalog import Catalog
from lora_lab.merging import exact
from lora_lab.merging.base import MergeInputs, MergeMethod
from lora_lab.merging.recipe import MergeRecipe, RecipeAdapter

__all__ = ["MERGE_METHODS", "MergeInputs", "MergeMethod", "MergeRecipe", "RecipeAdapter"]

MERGE_METHODS: Catalog[MergeMethod] = Catalog("merge method", ((method.name, method) for method in (exact.METHOD,)))
