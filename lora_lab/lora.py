"""LoRA in memory: factors, the deltas that they make, and their sums. Nothing here is ever mutated.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685). The scaling alpha/r is
folded into B where an adapter is loaded, so that a delta is simply B A.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Backbone, Deltas, layer_name
from lora_lab.errors import LoraLabError
from lora_lab.gram import factored

RIDGE = 1e-2
"""What is added to a Gram matrix's diagonal, in means of it."""


@dataclass(frozen=True)
class LoraFactors:
    """A (r, in) and B (out, r) of one target module, the scaling folded into B."""

    a: Float[Tensor, "r in"]
    b: Float[Tensor, "out r"]

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    def delta(self) -> Float[Tensor, "out in"]:
        """ΔW = B A."""
        return self.b @ self.a

    def squared_norm(self) -> Float[Tensor, ""]:
        """‖B A‖² = tr(BᵀB AAᵀ), without forming B A."""
        return ((self.b.T @ self.b) * (self.a @ self.a.T)).sum()


Factors = Mapping[str, LoraFactors]
"""Factors by target module."""


def new_factors(backbone: Backbone, rank: int, generator: torch.Generator) -> dict[str, LoraFactors]:
    """Trainable factors for every target module: A uniform as in a linear layer's start, B zero, so that ΔW = 0."""
    factors = {}
    for target in backbone.target_modules:
        out_width, in_width = backbone.weight(target).shape
        bound = 1 / math.sqrt(in_width)
        a = torch.rand(rank, in_width, generator=generator).mul_(2 * bound).sub_(bound).to(backbone.device)
        b = torch.zeros(out_width, rank, device=backbone.device)
        factors[target] = LoraFactors(a.requires_grad_(), b.requires_grad_())
    return factors


def deltas_of(factors: Factors, dtype: torch.dtype | None = None) -> dict[str, Float[Tensor, "out in"]]:
    """ΔW of every target module, in the precision of the factors where no other is named."""
    return {target: pair.b.to(dtype or pair.b.dtype) @ pair.a.to(dtype or pair.a.dtype) for target, pair in factors.items()}


def placed(factors: Factors, device: torch.device) -> Factors:
    """Factors on a device."""
    return {target: LoraFactors(pair.a.to(device), pair.b.to(device)) for target, pair in factors.items()}


def norm_of(factors: Factors) -> float:
    """The Frobenius norm of all deltas together."""
    return math.sqrt(sum(pair.squared_norm().item() for pair in factors.values()))


def norms_by_layer(factors: Factors) -> list[float]:
    """The Frobenius norm of the deltas of each layer, from the first that is touched to the last."""
    layers: dict[str, list[LoraFactors]] = {}
    for target, pair in factors.items():
        layers.setdefault(layer_name(target), []).append(pair)
    return [math.sqrt(sum(pair.squared_norm().item() for pair in pairs)) for pairs in layers.values()]


def concatenate(many: Sequence[tuple[Factors, float]]) -> dict[str, LoraFactors]:
    """Factors whose delta is exactly Σ wₖ ΔWₖ: the As stacked, the Bs side by side with the weights folded in.

    Adapters of different ranks and target modules may be mixed; the rank is the sum of theirs.
    """
    targets = dict.fromkeys(target for factors, _ in many for target in factors)
    return {
        target: LoraFactors(
            torch.cat([factors[target].a for factors, _ in many if target in factors]),
            torch.cat([weight * factors[target].b for factors, weight in many if target in factors], 1),
        )
        for target in targets
    }


def scaled_by_layer(factors: Factors, shares: Sequence[float]) -> Factors:
    """Factors whose delta is multiplied by a number for each layer, from the first; as they are where there is none.

    Raises `LoraLabError` where the count is not that of the layers.
    """
    if not shares:
        return factors
    names = dict.fromkeys(map(layer_name, factors))
    if len(shares) != len(names):
        raise LoraLabError(f"{len(shares)} factors for {len(names)} layers: give one a layer, from the first to the last")
    by_name = dict(zip(names, shares, strict=True))
    return {t: LoraFactors(pair.a, by_name[layer_name(t)] * pair.b) for t, pair in factors.items()}


def split(deltas: Deltas, most: int | None = None, grams: Mapping[str, Tensor] | None = None) -> dict[str, LoraFactors]:
    """Factors of the least rank whose deltas are these, by singular values; what is below rounding is left out.

    Where a module would take a rank above `most`, the factors of that rank that come nearest to it (Eckart and Young 1936).
    With Gram matrices XXᵀ of the inputs by target, nearest in what comes out for such inputs, ‖(ΔW − BA) X‖, which is the same
    in coordinates in which the inputs are white (Wang et al. 2024, arXiv 2403.07378).
    """
    factors = {}
    for target, delta in deltas.items():
        u, s, vt = torch.linalg.svd(delta, full_matrices=False)
        kept = max(1, int((s > s[0] * torch.finfo(s.dtype).eps).sum()))
        if most and kept > most:
            kept = most
            if grams:
                whiten = cholesky(grams[target])
                u, s, vt = torch.linalg.svd(delta.double() @ whiten, full_matrices=False)
                vt = torch.linalg.solve_triangular(whiten, vt, upper=False, left=False)
        root = s[:kept].sqrt()
        factors[target] = LoraFactors((root[:, None] * vt[:kept]).float(), (u[:, :kept] * root).float())
    return factors


def cholesky(gram: Float[Tensor, "in in"]) -> Float[Tensor, "in in"]:
    """L with LLᵀ = G, of a Gram matrix that is given a ridge, since few inputs leave some directions empty."""
    return factored(gram.double(), RIDGE)[0]
