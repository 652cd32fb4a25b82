"""KnOTS-TIES: the adapters are first put into directions that they share, and TIES is done there.

Source: Stoica et al. 2024, "Model merging with SVD to tie the Knots" (arXiv 2410.19735). The ΔW_k of a module stand side by
side, [ΔW_1 … ΔW_K] = U Σ [V_1ᵀ … V_Kᵀ]. TIES (arXiv 2306.01708) merges the blocks ΣV_kᵀ, and U puts the result back.

How ours differs: as ΣV_kᵀ = Uᵀ ΔW_k, only U is needed, which comes from a small Gram matrix in core space. The entries of a
block are those of the input's own axes, as in the paper, so that the result is what a plain SVD gives. Sliders scale the blocks
before the election, as in our TIES, and a block is trimmed by itself, where the authors trim all modules together. Directions
weaker than a hundred thousandth of the strongest are dropped; the authors drop what is below 1e-5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Deltas
from lora_lab.merging.base import Merge, Merged, MergeMethod, Selection, Setting
from lora_lab.merging.core_space import Core, Stack, cores
from lora_lab.merging.pruning import keep
from lora_lab.merging.singular import RANK_TOLERANCE
from lora_lab.merging.ties import DENSITY, LAMBDA, Election


@dataclass(frozen=True, eq=False)
class Aligned:
    """One module: U with orthonormal columns, and the block Uᵀ ΔW_k of each adapter, zero where it lacks the module."""

    u: Float[Tensor, "out n"]
    blocks: Float[Tensor, "K n in"]


def aligned(core: Core) -> Aligned:
    """The directions of the outputs that all adapters of a module have in common; one at least."""
    parts = core.parts.double()
    energy, u = torch.linalg.eigh((parts @ parts.mT).sum(0))
    kept = max(1, int((energy > RANK_TOLERANCE**2 * energy[-1]).sum()))
    u = u[:, -kept:]
    blocks = u.T @ parts
    if core.pays:
        u, blocks = core.left.double() @ u, blocks @ core.right.T.double()
    return Aligned(u.to(core.parts), blocks.to(core.parts))


def plain_sum(selection: Selection, weights: Sequence[float]) -> Deltas:
    """The blocks added up instead of merged by TIES: the exact sum, since U Uᵀ ΔW_k = ΔW_k."""
    spaces = {target: aligned(core) for target, core in cores(selection).items()}
    return {target: s.u @ torch.tensordot(s.blocks.new_tensor(weights), s.blocks, 1) for target, s in spaces.items()}


def prepare(selection: Selection) -> Merge:
    """The shared directions, and the trimmed blocks, kept while the density stays."""
    spaces = {target: aligned(core) for target, core in cores(selection).items()}

    @lru_cache(maxsize=1)
    def elections(density: float) -> dict[str, Election]:
        return {t: Election(Stack((t,), keep(space.blocks[:, None], density))) for t, space in spaces.items()}

    def merge(setting: Setting) -> Merged:
        chosen, factor = elections(setting.knobs[DENSITY.name]), setting.knobs[LAMBDA.name]
        blocks = {t: election.merge(setting, factor)[t] for t, election in chosen.items()}
        return Merged({t: spaces[t].u.to(setting.dtype) @ block.to(setting.dtype) for t, block in blocks.items()})

    return merge


METHOD = MergeMethod(
    name="knots_ties",
    title="KnOTS-TIES",
    family="spectral",
    paper="arXiv 2410.19735",
    summary="Puts the adapters into directions that they share and there lets the largest entries elect signs, as TIES does.",
    prepare=prepare,
    knobs=(DENSITY, LAMBDA),
    laws=frozenset(("scale", "order", "factors", "seed")),
)
