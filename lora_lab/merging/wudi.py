"""WUDI: the deltas that do, on what each adapter listens to, as nearly as they can what it does.

Source: Cheng et al. 2025, "Whoever Started the Interference Should End It" (arXiv 2503.08099). The rows of ΔW_k stand for the
inputs of task k, and the interference Σ_k ‖(ΔW - ΔW_k) ΔW_kᵀ‖² / ‖ΔW_k‖² is made small; no image is needed.

How ours differs: the paper descends from the sum by some hundred steps of Adam, and where it stops decides what is left. Here
the minimum is written down, with sliders: ΔW = (Σ w_k ΔW_k H_k) (Σ H_k + εI)⁻¹ with H_k = ΔW_kᵀΔW_k / ‖ΔW_k‖², which is RegMean
with H_k for a Gram matrix ("soft"). As ε goes to 0 and the adapters listen to independent directions, as they nearly always do
while the ranks add up to less than the width, the interference goes to 0 as well, at any price in norm; that is "hard": ΔW does
on the rows of every adapter just what this one does. So ε is what makes it soft, and is a knob. It pulls to nothing, as in the
formula, or to the exact sum, where the paper's descent starts: then ε w_k ΔW_k is added to each term of the sum.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float64
from torch import Tensor

from lora_lab.gram import solve_spd
from lora_lab.lora import Factors, LoraFactors
from lora_lab.merging.base import Knob, Law, Merge, MergeMethod, Selection
from lora_lab.merging.new_factors import renewed, summed
from lora_lab.merging.singular import triplets

# Against basis vectors of length 1: small enough to change nothing else, for bases that together are not independent.
RIDGE = 1e-8


def prepare_soft(selection: Selection) -> Merge:
    """New As for these knobs, kept while only weights change."""

    @lru_cache(maxsize=1)
    def fitted(damping: float, anchor: float) -> list[Factors]:
        return renewed(selection, lambda _, pairs: _soft(list(pairs.values()), damping, anchor))

    return lambda setting: summed(fitted(setting.knobs["damping"], setting.knobs["anchor"]), setting)


def prepare_hard(selection: Selection) -> Merge:
    """New factors, for good."""
    fitted = renewed(selection, lambda _, pairs: _hard(list(pairs.values())))
    return lambda setting: summed(fitted, setting)


def heard(pair: LoraFactors) -> Float64[Tensor, "in in"]:
    """H = ΔWᵀΔW / ‖ΔW‖², with the trace 1; zero where ΔW is zero."""
    a, b = pair.a.double(), pair.b.double()
    squared = a.T @ (b.T @ b) @ a
    return squared / squared.trace().clamp_min(torch.finfo(a.dtype).tiny)


def _soft(pairs: Sequence[LoraFactors], damping: float, anchor: float) -> list[LoraFactors]:
    listened = torch.stack([heard(pair) for pair in pairs])
    width = listened.shape[-1]
    # Every H has the trace 1, so this is in mean diagonals of their sum.
    ridge = damping * len(pairs) / width * torch.eye(width, dtype=torch.float64, device=listened.device)
    numerators = [pair.a.double() @ (h + anchor * ridge) for pair, h in zip(pairs, listened, strict=True)]
    solved = solve_spd(listened.sum(0) + ridge, torch.cat(numerators), 0)
    parts = solved.split([pair.rank for pair in pairs])
    return [LoraFactors(a.to(pair.a), pair.b) for pair, a in zip(pairs, parts, strict=True)]


def _hard(pairs: Sequence[LoraFactors]) -> list[LoraFactors]:
    # An orthonormal basis of the rows of ΔW_k stands for A_k: rows of A_k that B_k does not use would be obeyed as well.
    taken_apart = [triplets(pair) for pair in pairs]
    rows = torch.cat([v for _, _, v in taken_apart], 1)
    ridge = RIDGE * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    dual = solve_spd(rows.T @ rows + ridge, rows, 0).T
    parts = dual.split([len(s) for _, s, _ in taken_apart])
    return [LoraFactors(a.to(pair.a), (u * s).to(pair.b)) for pair, (u, s, _), a in zip(pairs, taken_apart, parts, strict=True)]


_LAWS: frozenset[Law] = frozenset(("linear", "scale", "order", "factors", "rotation", "seed"))

SOFT = MergeMethod(
    name="wudi_soft",
    title="WUDI, soft",
    family="null space",
    paper="arXiv 2503.08099",
    summary="Finds deltas that do nearly what each adapter does on the inputs that it listens to, in closed form.",
    prepare=prepare_soft,
    knobs=(
        Knob(
            "damping",
            "Damping",
            1.0,
            1e-6,
            100.0,
            "ε in mean diagonals of ΣH: how much interference is left standing for the sake of small deltas",
            (0.1, 1.0, 10.0),
        ),
        Knob("anchor", "Anchor", 1, 0, 1, "what the damping pulls to: 0 no delta, 1 the exact sum", (0, 1), step=1),
    ),
    laws=_LAWS,
)
HARD = MergeMethod(
    name="wudi_hard",
    title="WUDI, hard",
    family="null space",
    paper="arXiv 2503.08099",
    summary="Finds the smallest deltas that do exactly what each adapter does on the inputs that it listens to.",
    prepare=prepare_hard,
    laws=_LAWS.union(("alone",)),
)
