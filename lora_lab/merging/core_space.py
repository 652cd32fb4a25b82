"""A small space that holds all adapters of a selection without loss, and stacks of modules for work in one step.

Source: "Accurate and Efficient Low-Rank Model Merging in Core Space" (arXiv 2509.17786). U is an orthonormal basis of all the
Bs side by side, V of all the As, and the part M_k = Uᵀ ΔW_k V of adapter k has as many rows as there are ranks in all, which is
few against the width. What merges the parts to M has merged the deltas to U M Vᵀ.

How ours differs: after QR the bases are turned to the singular vectors of the deltas beside and below each other. Methods that
look at single entries depend on the axes, and these axes follow from the deltas alone: neither the order of the adapters nor
the split into A and B moves them, but for a sign, which such methods do not see. Where the ranks add up to the width or more,
nothing would be smaller, and the plain entries of ΔW are used. Ranks may be mixed, and columns may repeat each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Deltas
from lora_lab.lora import LoraFactors
from lora_lab.merging.base import Knob, Selection

PLAIN, CORE = 0.0, 1.0
SPACE = Knob(
    "space", "Space", PLAIN, PLAIN, CORE, "whose entries are looked at: 0 those of ΔW itself, 1 those in core space", step=1
)
"""For methods that look at single entries."""


@dataclass(frozen=True, eq=False)
class Core:
    """One target module: bases with orthonormal columns and each adapter's part between them, zero where it has none."""

    left: Float[Tensor, "out p"]
    right: Float[Tensor, "in q"]
    parts: Float[Tensor, "K p q"]

    @property
    def pays(self) -> bool:
        """Whether it is smaller than ΔW; where not, the bases are identities and the parts are the deltas."""
        return self.left.shape[1] < self.left.shape[0]

    def lift(self, m: Float[Tensor, "p q"]) -> Float[Tensor, "out in"]:
        """U M Vᵀ."""
        return self.left @ m @ self.right.T if self.pays else m


def cores(selection: Selection) -> dict[str, Core]:
    """Bases and parts of every target module that one of the adapters touches."""
    return {target: _core([factors.get(target) for factors in selection.factors]) for target in selection.targets}


def _core(pairs: Sequence[LoraFactors | None]) -> Core:
    there = [pair for pair in pairs if pair]
    if sum(pair.rank for pair in there) >= min(there[0].b.shape[0], there[0].a.shape[1]):
        return _plain(pairs)
    # Float64, so that turning the bases costs no digit of float32.
    left, small_b = torch.linalg.qr(torch.cat([pair.b for pair in there], 1).double())
    right, small_a = torch.linalg.qr(torch.cat([pair.a for pair in there]).T.double())
    ranks = [pair.rank if pair else 0 for pair in pairs]
    # Of an adapter that lacks the module the slices are empty, and their product is zero.
    between = torch.stack([b @ a.T for b, a in zip(small_b.split(ranks, 1), small_a.split(ranks, 1), strict=True)])
    rows = torch.linalg.eigh((between @ between.mT).sum(0)).eigenvectors
    columns = torch.linalg.eigh((between.mT @ between).sum(0)).eigenvectors
    dtype = there[0].a.dtype
    return Core((left @ rows).to(dtype), (right @ columns).to(dtype), (rows.T @ between @ columns).to(dtype))


def _plain(pairs: Sequence[LoraFactors | None]) -> Core:
    some = next(pair for pair in pairs if pair)
    rows, columns = (torch.eye(n, dtype=some.a.dtype, device=some.a.device) for n in (some.b.shape[0], some.a.shape[1]))
    nothing = some.a.new_zeros(some.b.shape[0], some.a.shape[1])
    return Core(rows, columns, torch.stack([pair.delta() if pair else nothing for pair in pairs]))


@dataclass(frozen=True, eq=False)
class Stack:
    """The target modules of one shape as one tensor; the bases are there only in a core space that pays."""

    targets: tuple[str, ...]
    parts: Float[Tensor, "K n p q"]
    left: Float[Tensor, "n out p"] | None = None
    right: Float[Tensor, "n in q"] | None = None

    def total(self, weights: Sequence[float]) -> Float[Tensor, "n p q"]:
        """Σ wₖ times the part of adapter k."""
        return torch.tensordot(torch.tensor(weights, dtype=self.parts.dtype, device=self.parts.device), self.parts, 1)

    def lift(self, m: Float[Tensor, "n p q"], dtype: torch.dtype = torch.float32) -> Deltas:
        """ΔW of every module of the stack; `dtype` is that of the products with the bases."""
        if self.left is None or self.right is None:
            return dict(zip(self.targets, m.unbind(), strict=True))
        # One by one: a single tensor for all would be so large that its memory is fetched anew for each merge.
        sides = zip(self.targets, *self._bases(dtype), m.to(dtype), strict=True)
        return {target: left @ middle @ right.T for target, left, right, middle in sides}

    def lift_factors(self, b: Float[Tensor, "n p k"], a: Float[Tensor, "n k q"], dtype: torch.dtype = torch.float32) -> Deltas:
        """ΔW of every module whose part is B A, for fewer columns k than there are in all."""
        if self.left is None or self.right is None:
            return self.lift(b @ a)
        sides = zip(self.targets, *self._bases(dtype), b.to(dtype), a.to(dtype), strict=True)
        return {target: (left @ thin) @ (flat @ right.T) for target, left, right, thin, flat in sides}

    def _bases(self, dtype: torch.dtype) -> tuple[Float[Tensor, "n out p"], Float[Tensor, "n in q"]]:
        assert self.left is not None
        assert self.right is not None
        if dtype not in self._cast:
            self._cast[dtype] = self.left.to(dtype), self.right.to(dtype)
        return self._cast[dtype]

    @cached_property
    def _cast(self) -> dict[torch.dtype, tuple[Tensor, Tensor]]:
        # The bases in each precision that was asked for, since a slider asks again and again.
        return {}


def stacks(selection: Selection, space: float) -> list[Stack]:
    """The parts of all adapters in every module, in the plain space (0) or in core space (1), by shape."""
    if space == CORE:
        found = cores(selection)
    else:
        found = {target: _plain([factors.get(target) for factors in selection.factors]) for target in selection.targets}
    shapes: dict[tuple[torch.Size, torch.Size], list[str]] = {}
    for target, core in found.items():
        shapes.setdefault((core.left.shape, core.parts.shape), []).append(target)
    return [_stack(targets, [found[target] for target in targets]) for targets in shapes.values()]


def _stack(targets: Sequence[str], members: Sequence[Core]) -> Stack:
    parts = torch.stack([core.parts for core in members], 1)
    if not members[0].pays:
        return Stack(tuple(targets), parts)
    left, right = torch.stack([core.left for core in members]), torch.stack([core.right for core in members])
    return Stack(tuple(targets), parts, left, right)
