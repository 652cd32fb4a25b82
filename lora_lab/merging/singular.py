"""Singular triplets of a ΔW through its factors, and the nearest matrix whose directions are orthonormal."""

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from lora_lab.lora import LoraFactors

# The share of its largest singular value below which a matrix counts as having no more directions.
RANK_TOLERANCE = 1e-5
# Of float32 factors nothing smaller than this share of the largest singular value can be told from rounding.
NEGLIGIBLE = 1e-6


def triplets(pair: LoraFactors) -> tuple[Float64[Tensor, "out k"], Float64[Tensor, "k"], Float64[Tensor, "in k"]]:
    """U, s, V with ΔW = U diag(s) Vᵀ, s falling and none of it negligible: QR of both factors, SVD of what is between."""
    left, small_b = torch.linalg.qr(pair.b.double())
    right, small_a = torch.linalg.qr(pair.a.T.double())
    u, s, vt = torch.linalg.svd(small_b @ small_a.T)
    kept = int((s > NEGLIGIBLE * s[0]).sum())
    return left @ u[:, :kept], s[:kept], right @ vt[:kept].T


def decompose(
    m: Float64[Tensor, "*n p q"],
) -> tuple[Float64[Tensor, "*n p q"], Float64[Tensor, "*n q"], Float64[Tensor, "*n q q"]]:
    """U, s, V of each matrix through the Gram matrix of its columns, which is faster than an SVD; s falls.

    Beyond the numerical rank s is zero, and so are the columns of U and V.
    """
    energy, v = torch.linalg.eigh(m.mT @ m)
    s = energy.clamp_min(0).sqrt().flip(-1)
    there = s > RANK_TOLERANCE * s[..., :1]
    v = v.flip(-1) * there[..., None, :]
    return m @ (v * inverse(s, there)[..., None, :]), s * there, v


def polar(x: Float64[Tensor, "*n rows columns"]) -> Float64[Tensor, "*n rows columns"]:
    """X (XᵀX)^(-1/2): U Vᵀ of X = U diag(s) Vᵀ, through the Gram matrix of the columns, which should be the fewer.

    Directions in which X is zero stay zero. An SVD would fill them with what it likes, and the result would hang on rounding.
    """
    return x @ inverse_root(x.mT @ x)


def inverse_root(gram: Float64[Tensor, "*n c c"]) -> Float64[Tensor, "*n c c"]:
    """G^(-1/2) of a Gram matrix, zero in the directions in which it is zero."""
    energy, v = torch.linalg.eigh(gram)
    there = energy > NEGLIGIBLE**2 * energy.sum(-1, keepdim=True)
    return (v * inverse(energy, there).sqrt()[..., None, :]) @ v.mT


def inverse(x: Float64[Tensor, "*n"], there: Bool[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
    """1 / x where it is there, and zero elsewhere."""
    return torch.where(there, x, torch.inf).reciprocal()
