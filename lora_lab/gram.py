"""Gram matrices: made positive semidefinite where rounding broke that, and factored so that they can be solved with.

A Gram matrix XᵀX / n has no negative eigenvalue, but its entries rounded to float16 may: the error of an entry is a share of
the largest directions, and the smallest are much smaller. Source for the nearest one: Higham 1988, "Computing a nearest
symmetric positive semidefinite matrix".
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lora_lab.errors import LoraLabError

FLOOR = 1e-6
"""The least eigenvalue of a matrix that was mended, in shares of its largest: above what float32 rounds away."""
RIDGES = tuple(10.0**power for power in range(-10, 1))
"""Ridges in mean diagonals, from one that changes nothing to one that weighs as much as the matrix."""


def positive(gram: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """The nearest matrix without negative eigenvalues; the matrix itself where it has none. Must be finite."""
    if not torch.linalg.cholesky_ex(gram.double()).info:
        return gram
    values, vectors = torch.linalg.eigh(gram.double())
    clipped = values.clamp(min=FLOOR * float(values[-1].clamp(min=0)))
    mended = (vectors * clipped) @ vectors.T
    return ((mended + mended.T) / 2).to(gram.dtype)


def balanced(gram: Float[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    """A Gram matrix with the trace 1, in float64; of zeros it stays as it is."""
    gram = gram.double()
    return gram / gram.trace() if gram.any() else gram


def factored(gram: Float64[Tensor, "n n"], least: float = 0.0) -> tuple[Float64[Tensor, "n n"], float]:
    """L and ρ with LLᵀ = G + ρI, where ρ is the smallest that serves, and at least `least` mean diagonals.

    Raises `LoraLabError` for a matrix with entries that are not finite, or with large negative eigenvalues.
    """
    # A matrix of zeros has no scale of its own.
    scale = float(gram.diagonal().mean()) if gram.any() else 1.0
    for ridge in (least, *(ridge for ridge in RIDGES if ridge > least)):
        damped = gram + torch.diag(torch.full_like(gram.diagonal(), ridge * scale))
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed and bool(factor.diagonal().isfinite().all()):
            return factor, ridge * scale
    raise LoraLabError(
        f"these are no Gram matrices: one with a mean diagonal of {scale:g} has large negative eigenvalues, or values that "
        "are not finite; write the statistics again with `lora-lab evaluate --publish`"
    )


def solve_spd(gram: Float64[Tensor, "n n"], right: Float64[Tensor, "m n"], least: float) -> Float64[Tensor, "m n"]:
    """X with X (G + ρI) = right; ρ as in `factored`."""
    return torch.cholesky_solve(right.T.contiguous(), factored(gram, least)[0]).T
