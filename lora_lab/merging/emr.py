"""One elected delta for all tasks, with a mask and a scale for each: a bound, for it must be told the task.

Source: Huang et al. 2024, "EMR-Merging: Tuning-Free High-Performance Model Merging" (arXiv 2405.17461). Of τₖ = wₖ ΔWₖ the
sign of each entry is that of the sum, its size the largest among those of that sign. Task k keeps the entries in which this
unified τ agrees in sign with τₖ, times λₖ = Σ|τₖ| / Σ|what it keeps|, one number over all its modules. Ours differs only in
that the weights are folded in before. The unified delta alone, without masks, is what `Merged.deltas` holds.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Deltas
from lora_lab.merging.base import Merge, Merged, MergeMethod, Selection, Setting


def elected(weighted: Sequence[Float[Tensor, "out in"]]) -> Float[Tensor, "out in"]:
    """For each entry the largest of those that have the sign of their sum; 0 where the sum is 0."""
    sign = torch.stack(list(weighted)).sum(0).sign()
    largest = torch.zeros_like(sign)
    for delta in weighted:
        largest = torch.maximum(largest, delta * sign)
    return sign * largest


def masked(weighted: Mapping[str, Tensor], unified: Mapping[str, Tensor]) -> dict[str, Float[Tensor, "out in"]]:
    """The unified deltas where they agree in sign with one adapter's, scaled to the adapter's total size."""
    kept = {target: unified[target] * (unified[target] * delta > 0) for target, delta in weighted.items()}
    size, left = (float(sum(delta.abs().sum() for delta in deltas.values())) for deltas in (weighted, kept))
    # An adapter that is outvoted everywhere keeps nothing that could be scaled.
    scale = size / left if left else 0.0
    return {target: scale * delta for target, delta in kept.items()}


def prepare(selection: Selection) -> Merge:
    """Nothing beforehand: dense deltas of every adapter are too large to keep."""

    def merge(setting: Setting) -> Merged:
        pairs = zip(selection.factors, setting.weights, strict=True)
        weighted = [{target: weight * pair.delta() for target, pair in factors.items()} for factors, weight in pairs]
        unified: Deltas = {
            target: elected([deltas[target] for deltas in weighted if target in deltas]) for target in selection.targets
        }
        return Merged(unified, own=[masked(deltas, unified) for deltas in weighted])

    return merge


METHOD = MergeMethod(
    name="emr",
    title="EMR (bound)",
    family="bound",
    paper="arXiv 2405.17461",
    summary="Gives each task its own mask and scale on one shared delta: not one model, but a line to measure merges by.",
    prepare=prepare,
    needs="task id",
    laws=frozenset(("alone", "scale", "order", "factors", "seed")),
)
