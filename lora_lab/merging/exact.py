"""The exact sum Σ wₖ ΔWₖ, in any mix of ranks.

It is what concatenating the factors gives (Kesim and Helli, arXiv 2411.14064; peft's `cat`), computed from the
concatenated factors without a truncation.
"""

from lora_lab.backbones import Deltas
from lora_lab.lora import concatenate, deltas_of
from lora_lab.merging.base import MergeMethod, Selection, Setting, quick


def merge(selection: Selection, setting: Setting) -> Deltas:
    """ΔW of every target module."""
    return deltas_of(concatenate(list(zip(selection.factors, setting.weights, strict=True))), setting.dtype)


METHOD = MergeMethod(
    name="exact",
    title="Exact sum",
    family="sum",
    paper="arXiv 2411.14064",
    summary="Adds up the adapters, each times its weight, with nothing lost: what peft calls cat.",
    prepare=quick(merge),
    laws=frozenset(("alone", "linear", "scale", "order", "factors", "rotation", "seed")),
)
