"""The exact sum Σ wₖ ΔWₖ, in any mix of ranks.

It is what concatenating the factors gives (Kesim and Helli, arXiv 2411.14064; peft's `cat`), computed from the
concatenated factors without a truncation.
"""

import torch

from lora_lab.backbones import Deltas
from lora_lab.lora import Factors, concatenate, deltas_of
from lora_lab.merging.base import MergeMethod, Selection, Setting, quick


def merge(selection: Selection, setting: Setting) -> Deltas:
    """ΔW of every target module."""
    return deltas_of(concatenate(list(zip(selection.factors, setting.weights, strict=True))), setting.dtype)


def add_one(rest: Deltas, factors: Factors, weight: float) -> Deltas:
    """The sum `rest` with one more adapter, as new tensors: what a moved slider costs."""
    if not weight:
        return rest
    added = {
        target: torch.addmm(rest[target], pair.b, pair.a, alpha=weight) if target in rest else weight * pair.delta()
        for target, pair in factors.items()
    }
    return {**rest, **added}


METHOD = MergeMethod(
    name="exact",
    title="Exact sum",
    family="sum",
    paper="arXiv 2411.14064",
    summary="Adds up the adapters, each times its weight, with nothing lost: what peft calls cat.",
    prepare=quick(merge),
    laws=frozenset(("alone", "linear", "scale", "order", "factors", "rotation", "seed")),
)
