"""The best approximation of the exact sum by a matrix of a given rank, and how far it is from the sum.

Source: peft's `add_weighted_adapter`, combination type `svd`; that cutting the singular value decomposition is best is the
theorem of Eckart and Young (1936).

How ours differs: the work is done in core space (arXiv 2509.17786), where the matrix has as many rows as the ranks add up to,
and by the leading eigenvectors E of M Mᵀ, in float64: E Eᵀ M is M with all but its largest singular values set to zero. The
result is kept as a delta, so that no adapter of that rank has to be written.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Deltas
from lora_lab.merging.base import Knob, Merge, Merged, MergeMethod, Selection, Setting
from lora_lab.merging.core_space import CORE, Stack, stacks

RANK = Knob("rank", "Rank", 16, 1, 128, "how many singular values of each module's sum are kept", (4, 8, 16, 32, 64), step=1)


def prepare(selection: Selection) -> Merge:
    """The bases, once; a moved slider costs one small decomposition a module."""
    whole = stacks(selection, CORE)

    def merge(setting: Setting) -> Merged:
        deltas: dict[str, Tensor] = {}
        for stack in whole:
            deltas |= _truncated(stack, setting)
        return Merged(deltas)

    return merge


def relative_error(selection: Selection, setting: Setting) -> float:
    """‖sum − truncated‖ / ‖sum‖, Frobenius, over all modules together: 0 to 1, and 0 where the sum is zero."""
    cut = whole = 0.0
    for stack in stacks(selection, CORE):
        energy = _decomposed(stack.total(setting.weights))[0].clamp(min=0)
        cut += float(energy[:, : max(0, energy.shape[1] - int(setting.knobs["rank"]))].sum())
        whole += float(energy.sum())
    return math.sqrt(cut / whole) if whole else 0.0


def _truncated(stack: Stack, setting: Setting) -> Deltas:
    total, rank = stack.total(setting.weights), int(setting.knobs["rank"])
    if rank >= min(total.shape[1:]):
        return stack.lift(total, setting.dtype)
    leading = _decomposed(total)[1][:, :, -rank:].to(total.dtype)
    return stack.lift_factors(leading, leading.mT @ total, setting.dtype)


def _decomposed(total: Float[Tensor, "n p q"]) -> tuple[Float[Tensor, "n p"], Float[Tensor, "n p p"]]:
    """Squared singular values, the smallest first, and the left singular vectors, both in float64."""
    values, vectors = torch.linalg.eigh(total.double() @ total.double().mT)
    return values, vectors


METHOD = MergeMethod(
    name="svd",
    title="Truncated sum",
    family="sum",
    paper="peft, svd",
    summary="The best approximation of the exact sum by a matrix of a given rank: what peft calls svd.",
    prepare=prepare,
    knobs=(RANK,),
    laws=frozenset(("scale", "order", "factors", "rotation", "seed")),
)
