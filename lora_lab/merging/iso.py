"""Iso-C and Iso-CTS: a sum whose directions all count alike, and one in which each task has some directions of its own.

Source: Marczak et al. 2025, "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces" (arXiv
2502.04959). Iso-C: the singular values of Σ ΔW_k are all replaced by their mean, times α. Iso-CTS: of the sum only the
strongest directions are kept, the common ones; the rest is filled, alike for all tasks, with the strongest of each ΔW_k from
which the common left directions have been projected out; the left and the right ones are each replaced by the nearest matrix
with orthonormal columns, and the singular values by their mean, times α.

How ours differs: LoRA's sum has far fewer directions than the width, so the mean is over its numerical rank, and the common
ones are a fraction of that rank; flattening the rest as well would make the rounding as strong as what was learned. Everything
is done in core space, through Gram matrices in float64, for all modules of a shape at once; the triplets of each adapter are
taken once. Sliders scale the ΔW_k, in the sum and for the directions of each task's own. Only adapters that touch a module
share its directions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from lora_lab.merging.base import Knob, Merge, Merged, MergeMethod, Selection, Setting
from lora_lab.merging.core_space import CORE, Stack, stacks
from lora_lab.merging.singular import RANK_TOLERANCE, decompose, inverse, inverse_root, polar, triplets


@dataclass(frozen=True, eq=False)
class Directions:
    """U diag(s) Vᵀ of n modules; columns that are zero count as not there."""

    u: Float64[Tensor, "n p c"]
    s: Float64[Tensor, "n c"]
    v: Float64[Tensor, "n q c"]

    def first(self, columns: int) -> "Directions":
        return Directions(self.u[..., :columns], self.s[:, :columns], self.v[..., :columns])

    def only(self, chosen: Bool[Tensor, "n c"]) -> "Directions":
        """The others set to zero."""
        return Directions(self.u * chosen[:, None], self.s * chosen, self.v * chosen[:, None])


@dataclass(frozen=True, eq=False)
class Tasks:
    """Each ΔW_k as L Rᵀ, the columns of R orthonormal or zero, and how many adapters touch each module."""

    left: Float64[Tensor, "n K p r"]
    right: Float64[Tensor, "n K q r"]
    count: Int64[Tensor, "n"]


Mix = Callable[[Directions, Setting], Float64[Tensor, "n p q"]]
"""What is made of the directions of the sum."""


def prepare_c(selection: Selection) -> Merge:
    """Core spaces."""
    return _merge([(stack, flattened) for stack in stacks(selection, CORE)])


def prepare_cts(selection: Selection) -> Merge:
    """Core spaces and, in them, the triplets of every adapter."""

    def mix_of(stack: Stack) -> Mix:
        tasks = _tasks(stack, selection)
        return lambda total, setting: mixed(total, tasks, setting)

    return _merge([(stack, mix_of(stack)) for stack in stacks(selection, CORE)])


def flattened(total: Directions, setting: Setting) -> Float64[Tensor, "n p q"]:
    """The sum with all its singular values at their mean."""
    return _mean(total.s)[:, None, None] * total.u @ total.v.mT


def mixed(total: Directions, tasks: Tasks, setting: Setting) -> Float64[Tensor, "n p q"]:
    """The strongest directions of the sum and, in the place of the others, some of each task's own, all at the mean."""
    directions = total.s.count_nonzero(-1)
    # What cannot be shared out alike stays with the common ones.
    each = (directions - (setting.knobs["common"] * directions).round().long()) // tasks.count
    each = each.clamp(max=tasks.left.shape[-1])
    shared = directions - each * tasks.count
    most = int(shared.max())
    common = total.first(most).only(torch.arange(most, device=each.device) < shared[:, None])
    weights = torch.tensor(setting.weights, dtype=torch.float64, device=each.device)
    own = _own(common, tasks.left * weights[:, None, None], tasks.right, each)
    own = own.only(own.s > RANK_TOLERANCE * total.s[:, :1])  # a task may have nothing left beside the common directions
    mean = _mean(torch.cat([common.s, own.s], 1))[:, None, None]
    # The common left directions are orthonormal, and the others have no share in them, so those are not changed.
    return _with_right_polar(mean * common.u, mean * polar(own.u), common.v, own.v)


def _own(
    common: Directions, left: Float64[Tensor, "n K p r"], right: Float64[Tensor, "n K q r"], each: Int64[Tensor, "n"]
) -> Directions:
    """The strongest directions of each task once the common left ones are projected out, `each` of them in a module."""
    beside = _beside(left)
    beside = beside - common.u @ (common.u.mT @ beside)
    rest = beside.unflatten(2, (left.shape[1], left.shape[3])).transpose(1, 2)
    energy, turn = torch.linalg.eigh(rest.mT @ rest)
    most, rank = int(each.max()), turn.shape[-1]
    turn, s = turn[..., rank - most :], energy[..., rank - most :].clamp_min(0).sqrt()
    chosen = torch.arange(most, device=each.device) >= (most - each)[:, None, None]
    s = s * chosen
    u = rest @ turn * inverse(s, s > 0)[..., None, :]
    return Directions(_beside(u), s.flatten(1), _beside(right @ turn))


def _beside(x: Float64[Tensor, "n K p r"]) -> Float64[Tensor, "n p columns"]:
    return x.transpose(1, 2).flatten(2)


def _with_right_polar(
    u: Float64[Tensor, "n p c"], own_u: Float64[Tensor, "n p o"], v: Float64[Tensor, "n q c"], own_v: Float64[Tensor, "n q o"]
) -> Float64[Tensor, "n p q"]:
    """[U, U'] times the transposed polar factor of [V, V'], V with columns that are orthonormal or zero."""
    # With VᵀV' = Q R, the Gram matrix of [V, V'] is 1 but for a small part between the columns of Q and those of V', so that
    # its inverse root is 1 but for that of this part.
    q, r = torch.linalg.qr(v.mT @ own_v)
    one = torch.eye(q.shape[-1] + own_v.shape[-1], dtype=q.dtype, device=q.device)
    small = one.repeat(len(q), 1, 1)
    columns = q.shape[-1]
    small[:, :columns, columns:], small[:, columns:, :columns] = r, r.mT
    small[:, columns:, columns:] = own_v.mT @ own_v
    change = torch.cat([u @ q, own_u], 2) @ (inverse_root(small) - one)
    return torch.cat([u, own_u, change], 2) @ torch.cat([v, own_v, v @ q, own_v], 2).mT


def _tasks(stack: Stack, selection: Selection) -> Tasks:
    rank = max(factors[t].rank for factors in selection.factors for t in stack.targets if t in factors)
    count, n, *shape = stack.parts.shape
    left, right = (stack.parts.new_zeros(n, count, side, min(rank, *shape), dtype=torch.float64) for side in shape)
    for i, target in enumerate(stack.targets):
        for k, factors in enumerate(selection.factors):
            if target in factors:
                u, s, v = triplets(factors[target])
                left[i, k, :, : len(s)] = _inside(stack.left, i, u * s)
                right[i, k, :, : len(s)] = _inside(stack.right, i, v)
    touching = [sum(target in factors for factors in selection.factors) for target in stack.targets]
    return Tasks(left, right, torch.tensor(touching, device=left.device))


def _inside(bases: Float[Tensor, "n side p"] | None, place: int, x: Float64[Tensor, "side k"]) -> Float64[Tensor, "p k"]:
    return x if bases is None else bases[place].T.double() @ x


def _mean(s: Float64[Tensor, "n c"]) -> Float64[Tensor, "n"]:
    # Of no singular values at all, where a sum is zero, the mean is to be zero too.
    return s.sum(-1) / s.count_nonzero(-1).clamp_min(1)


def _merge(mixes: Sequence[tuple[Stack, Mix]]) -> Merge:
    mixes = [(replace(stack, parts=stack.parts.double()), mix) for stack, mix in mixes]

    def merge(setting: Setting) -> Merged:
        deltas: dict[str, Tensor] = {}
        for stack, mix in mixes:
            m = mix(Directions(*decompose(stack.total(setting.weights))), setting)
            deltas |= stack.lift((setting.knobs["scale"] * m).float(), setting.dtype)
        return Merged(deltas)

    return merge


SCALE = Knob("scale", "Scale", 1.0, 0.0, 3.0, "α, by which the mean singular value is multiplied", (0.3, 0.5, 0.75, 1.0, 1.4))
_LAWS = frozenset(("scale", "order", "factors", "rotation", "seed"))

ISO_C = MergeMethod(
    name="iso_c",
    title="Iso-C",
    family="spectral",
    paper="arXiv 2502.04959",
    summary="Adds up the adapters and then lets every direction of the sum count alike.",
    prepare=prepare_c,
    knobs=(SCALE,),
    laws=_LAWS,
)
ISO_CTS = MergeMethod(
    name="iso_cts",
    title="Iso-CTS",
    family="spectral",
    paper="arXiv 2502.04959",
    summary="Keeps the strongest directions of the sum, gives each task some of its own, and lets all of them count alike.",
    prepare=prepare_cts,
    knobs=(
        SCALE,
        Knob("common", "Common share", 0.8, 0.0, 1.0, "the fraction of the directions that are those of the sum", (0.8,)),
    ),
    laws=_LAWS,
)
