"""The exact sum Σ wₖ ΔWₖ, in any mix of ranks.

It is what concatenating the factors gives (Kesim and Helli, arXiv 2411.14064; peft's `cat`), computed from the
concatenated factors without a truncation. A weight of 0 takes an adapter out; all 0 changes nothing at all.
"""

import torch

from lora_lab.backbones import Deltas
from lora_lab.lora import Factors, concatenate, deltas_of
from lora_lab.merging.base import MergeInputs, MergeMethod


def merge(inputs: MergeInputs) -> Deltas:
    """ΔW of every target module that an adapter with a weight other than 0 touches."""
    pairs = zip(inputs.factors, inputs.weights, strict=True)
    return deltas_of(concatenate([(factors, weight) for factors, weight in pairs if weight]))


def add_one(rest: Deltas, factors: Factors, weight: float) -> Deltas:
    """The sum `rest` with one more adapter, as new tensors: what a moved slider costs."""
    if not weight:
        return rest
    added = {
        target: torch.addmm(rest[target], pair.b, pair.a, alpha=weight) if target in rest else weight * pair.delta()
        for target, pair in factors.items()
    }
    return {**rest, **added}


METHOD = MergeMethod("exact", "Exact sum", "arXiv 2411.14064", merge)
