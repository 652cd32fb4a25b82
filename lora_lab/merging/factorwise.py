"""A and B summed apart, as peft's `linear` does: shown for its cross terms, which are no part of any adapter.

Source: peft's `add_weighted_adapter`, combination type `linear`: A = Σ sgn(w_k)√|w_k| A_k and B = Σ √|w_k| B_k, so that B A
holds w_k ΔW_k and besides √|w_j w_k| B_j A_k for every two adapters. Even the split of one ΔW into A and B changes the result.

How ours differs: the ranks may be mixed, where peft refuses. Rows of A and columns of B meet by their number, so the smaller
factors are filled with zero rows and columns up to the largest rank. The scaling alpha/r is part of B here and is spread over
A and B there, which is the same where all adapters have the same scaling.
"""

import math

import torch
from torch import Tensor

from lora_lab.backbones import Deltas
from lora_lab.lora import LoraFactors
from lora_lab.merging.base import MergeMethod, Selection, Setting, quick


def merge(selection: Selection, setting: Setting) -> Deltas:
    """ΔW of every target module."""
    weighted = list(zip(selection.factors, setting.weights, strict=True))
    return {t: _delta([(factors[t], w) for factors, w in weighted if t in factors]) for t in selection.targets}


def _delta(pairs: list[tuple[LoraFactors, float]]) -> Tensor:
    rank = max(pair.rank for pair, _ in pairs)
    some = pairs[0][0]
    a, b = some.a.new_zeros(rank, some.a.shape[1]), some.b.new_zeros(some.b.shape[0], rank)
    for pair, weight in pairs:
        root = math.sqrt(abs(weight))
        a[: pair.rank].add_(pair.a, alpha=math.copysign(root, weight))
        b[:, : pair.rank].add_(pair.b, alpha=root)
    return torch.mm(b, a)


METHOD = MergeMethod(
    name="factor_wise",
    title="Factor-wise sum",
    family="sum",
    paper="peft, linear",
    summary="Adds up the As and the Bs apart, as peft's linear does, which also adds every B times every other A.",
    prepare=quick(merge),
    laws=frozenset(("alone", "scale", "order", "rotation", "seed")),
)
