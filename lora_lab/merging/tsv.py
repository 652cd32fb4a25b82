"""TSV-M: each adapter keeps its strongest directions, and the directions of all are made orthogonal to each other.

Source: Gargiulo et al. 2024, "Task Singular Vectors: Reducing Task Interference in Model Merging" (arXiv 2412.00081). Of each
ΔW_k the top min(r, ⌊D/K⌋) singular triplets are kept, D the smaller side of ΔW; the left ones of all stand side by side in U,
the right ones in V; both are replaced by the nearest matrix with orthonormal columns, and ΔW = λ U diag(σ) Vᵀ.

How ours differs: the triplets come from the factors, so that nothing as large as ΔW is decomposed. A slider multiplies its
adapter's σ, so that the directions stay and a moved slider costs what the exact sum costs; a negative one turns the sign.
Directions that two adapters share to the last digit count once between them. K counts the adapters that touch the module.
"""

from collections.abc import Sequence

import torch

from lora_lab.lora import LoraFactors
from lora_lab.merging.base import Knob, Merge, MergeMethod, Selection
from lora_lab.merging.new_factors import renewed, summed
from lora_lab.merging.singular import polar, triplets

# A singular value below it says nothing.
SMALLEST = 1e-6


def prepare(selection: Selection) -> Merge:
    """Each adapter's part of the orthogonal directions, as factors."""
    turned = renewed(selection, lambda _, pairs: orthogonal(list(pairs.values())))
    return lambda setting: summed(turned, setting, setting.knobs["scale"])


def orthogonal(pairs: Sequence[LoraFactors]) -> list[LoraFactors]:
    """Factors of one module with all left directions orthogonal, and all right ones; B holds the singular values."""
    most = min(pairs[0].b.shape[0], pairs[0].a.shape[1]) // len(pairs)
    kept = []
    for u, s, v in map(triplets, pairs):
        count = min(most, int((s >= SMALLEST).sum()))
        kept.append((u[:, :count], s[:count], v[:, :count]))
    counts = [len(s) for _, s, _ in kept]
    left = polar(torch.cat([u for u, _, _ in kept], 1)).split(counts, 1)
    right = polar(torch.cat([v for _, _, v in kept], 1)).split(counts, 1)
    return [
        LoraFactors(v.T.to(pair.a), (u * s).to(pair.b)) for pair, u, (_, s, _), v in zip(pairs, left, kept, right, strict=True)
    ]


METHOD = MergeMethod(
    name="tsv_m",
    title="TSV-M",
    family="spectral",
    paper="arXiv 2412.00081",
    summary="Keeps each adapter's strongest singular directions and makes those of all adapters orthogonal to each other.",
    prepare=prepare,
    knobs=(Knob("scale", "Scale", 1.0, 0.0, 3.0, "λ, by which the merged deltas are multiplied", (0.3, 0.5, 0.7, 1.0, 1.4)),),
    laws=frozenset(("linear", "scale", "order", "factors", "rotation", "seed")),
)
