"""RegMean: the deltas whose outputs come nearest to every adapter's own, by least squares over the inputs that it saw.

Source: Jin et al. 2023, "Dataless Knowledge Fusion by Merging Weights of Language Models" (arXiv 2212.09849). With the Gram
matrices G_k = X_kᵀX_k / n of a module's inputs, Σ_k ‖X_k (ΔW - w_k ΔW_k)ᵀ‖² / n is least at (Σ w_k ΔW_k G_k) (Σ G_k)⁻¹. The
paper's trick is kept: what lies off the diagonal of each G_k is made smaller first.

How ours differs: it merges deltas, for the backbone is the same to all. A slider scales what an adapter aims at, not how much
its images count. And since w_k ΔW_k G_k (Σ G)⁻¹ = w_k B_k (A_k G_k (Σ G)⁻¹), all but the weights is done once, by new As; a
moved slider then costs what the exact sum costs. A module counts the adapters that touch it.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lora_lab.gram import balanced, factored
from lora_lab.lora import Factors, LoraFactors
from lora_lab.merging.base import Knob, Merge, MergeMethod, Selection
from lora_lab.merging.new_factors import renewed, summed

RIDGE = 1e-10
"""What ΣG is given at the least, in mean diagonals."""


def prepare(selection: Selection) -> Merge:
    """New As for these knobs, kept while only weights change. Raises `LoraLabError` for Gram matrices that are none."""

    @lru_cache(maxsize=1)
    def fitted(off_diagonals: float, balance: float) -> list[Factors]:
        def change(target: str, pairs: Mapping[int, LoraFactors]) -> list[LoraFactors]:
            return fit(list(pairs.values()), [shrunk(selection.grams[k][target], off_diagonals, bool(balance)) for k in pairs])

        return renewed(selection, change)

    return lambda setting: summed(fitted(setting.knobs["off_diagonals"], setting.knobs["balance"]), setting)


def shrunk(gram: Float[Tensor, "in in"], off_diagonals: float, balance: bool) -> Float64[Tensor, "in in"]:
    """A Gram matrix with what is off its diagonal made smaller, and, balanced, with the trace 1."""
    gram = balanced(gram) if balance else gram.double()
    return off_diagonals * gram + torch.diag((1 - off_diagonals) * gram.diagonal())


def fit(pairs: Sequence[LoraFactors], grams: Sequence[Float64[Tensor, "in in"]]) -> list[LoraFactors]:
    """Factors with A_k G_k (Σ G)⁻¹ in the place of A_k."""
    total = torch.stack(list(grams)).sum(0)
    factor, ridge = factored(total, RIDGE)
    # The ridge is shared out to all G_k, so that one adapter alone stays what it is.
    numerators = [pair.a.double() @ gram + ridge / len(pairs) * pair.a for pair, gram in zip(pairs, grams, strict=True)]
    solved = torch.cholesky_solve(torch.cat(numerators).T, factor).T
    parts = solved.split([pair.rank for pair in pairs])
    return [LoraFactors(a.to(pair.a), pair.b) for pair, a in zip(pairs, parts, strict=True)]


METHOD = MergeMethod(
    name="regmean",
    title="RegMean",
    family="activations",
    paper="arXiv 2212.09849",
    summary="Finds the deltas whose outputs are nearest to each adapter's own on the inputs that it saw in training.",
    prepare=prepare,
    needs="statistics",
    knobs=(
        Knob(
            "off_diagonals",
            "Off-diagonals",
            0.9,
            0.0,
            1.0,
            "by how much the products of different inputs count against the squares",
            (0.8, 0.9, 0.95),
        ),
        Knob(
            "balance",
            "Balance",
            0,
            0,
            1,
            "1 divides each Gram matrix by its trace, so that no task counts more because its inputs are larger",
            (0, 1),
            step=1,
        ),
    ),
    laws=frozenset(("alone", "linear", "scale", "order", "factors", "seed")),
)
