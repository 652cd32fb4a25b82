"""The exact sum Σ wₖ ΔWₖ, in any mix of ranks.

It is what concatenating the factors gives (Kesim and Helli, arXiv 2411.14064; peft's `cat`), computed from the
concatenated factors without a truncation.
"""

import torch

from lora_lab.backbones import Deltas
from lora_lab.lora import LoraFactors, concatenate, deltas_of
from lora_lab.merging.base import Merge, Merged, MergeMethod, Selection, Setting


def prepare(selection: Selection) -> Merge:
    """The factors side by side, so that a moved slider costs a product a module and no more."""
    stacked = concatenate([(factors, 1.0) for factors in selection.factors])
    owners = {
        target: torch.cat([torch.full((f[target].rank,), k) for k, f in enumerate(selection.factors) if target in f])
        for target in stacked
    }

    def merge(setting: Setting) -> Merged:
        weights = torch.tensor(setting.weights)
        weighted = {t: LoraFactors(pair.a, pair.b * weights.to(pair.b)[owners[t]]) for t, pair in stacked.items()}
        return Merged(deltas_of(weighted, setting.dtype))

    return merge


def merge(selection: Selection, setting: Setting) -> Deltas:
    """Both steps at once: ΔW of every target module."""
    return prepare(selection)(setting).deltas


METHOD = MergeMethod(
    name="exact",
    title="Exact sum",
    family="sum",
    paper="arXiv 2411.14064",
    summary="Adds up the adapters, each times its weight, with nothing lost: what peft calls cat.",
    prepare=prepare,
    laws=frozenset(("alone", "linear", "scale", "order", "factors", "rotation", "seed")),
)
