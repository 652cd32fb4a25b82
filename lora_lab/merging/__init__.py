"""Merge methods, in the order in which they are shown."""

from lora_lab.catalog import Catalog
from lora_lab.merging import (
    adamerging,
    breadcrumbs,
    dare,
    della,
    distillation,
    emr,
    exact,
    factorwise,
    iso,
    iteris,
    knots,
    lorahub,
    nsc,
    pruning,
    regmean,
    regmean_pp,
    ties,
    truncated,
    tsv,
    uniform,
    wudi,
)
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

MERGE_METHODS: Catalog[MergeMethod] = Catalog(
    "merge method",
    (
        (method.name, method)
        for method in (
            exact.METHOD,
            uniform.METHOD,
            truncated.METHOD,
            factorwise.METHOD,
            pruning.METHOD,
            ties.METHOD,
            dare.DARE,
            dare.DARE_TIES,
            breadcrumbs.METHOD,
            della.METHOD,
            knots.METHOD,
            tsv.METHOD,
            iso.ISO_C,
            iso.ISO_CTS,
            wudi.SOFT,
            wudi.HARD,
            regmean.METHOD,
            regmean_pp.METHOD,
            iteris.METHOD,
            nsc.METHOD,
            adamerging.METHOD,
            lorahub.METHOD,
            distillation.METHOD,
            emr.METHOD,
        )
    ),
)
