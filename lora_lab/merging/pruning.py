"""Magnitude pruning: of each delta the entries that are largest in magnitude are kept, and the rest is set to zero.

Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks" (arXiv 1506.02626), put to deltas as
in peft's `magnitude_prune`.

How ours differs: peft prunes A and B apart, so that its sum has cross terms; here ΔW itself is pruned, by itself in each module
of each adapter, or its part in core space. Nothing is trained afterwards, nor scaled up for what was lost: that the sliders can
do. In the plain space the deltas are linear in the weights; in core space too, but there an adapter that is taken out takes its
axes with it. Of entries that are level at the threshold all are kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor

from lora_lab.merging.base import Knob, Merge, Merged, MergeMethod, Selection, Setting
from lora_lab.merging.core_space import SPACE, Stack, stacks

T = TypeVar("T")
Thin = Callable[[Stack, Sequence[str], Setting], Stack]
"""The stack with most entries of its parts set to zero, by the adapters' names, the knobs and the seed."""

LAMBDA = "lambda"
"""The knob that multiplies what is merged, so that of all knobs it alone asks for no new thinning."""
DENSITY = Knob("density", "Density", 0.5, 0.01, 1, "the share of the entries of each delta that is kept", (0.2, 0.5, 0.8), 0.01)


def keep(parts: Float[Tensor, "K n p q"], density: float, outliers: float = 0.0) -> Float[Tensor, "K n p q"]:
    """Of each (p, q) the share `density` that is largest in magnitude, not counting the share `outliers` above it."""
    sizes = parts.abs().flatten(2)
    entries = sizes.shape[-1]
    left_out = round(outliers * entries)
    kept = min(max(1, round(density * entries)), entries - left_out)
    lowest = sizes.kthvalue(entries - left_out - kept + 1).values[..., None, None]
    inside = parts.abs() >= lowest
    if left_out:
        inside &= parts.abs() <= sizes.kthvalue(entries - left_out).values[..., None, None]
    return parts * inside


def remembered(selection: Selection, make: Callable[[Stack, Setting], T]) -> Callable[[Setting], list[T]]:
    """What `make` gives for every stack, kept while neither the seed nor a knob but λ changes; its setting has no weights."""
    # One of each: with six adapters, all deltas of a small backbone take 85 MB.
    whole = lru_cache(maxsize=1)(lambda space: stacks(selection, space))

    @lru_cache(maxsize=1)
    def made(knobs: tuple[tuple[str, float], ...], seed: int) -> list[T]:
        setting = Setting((), dict(knobs), seed)
        return [make(stack, setting) for stack in whole(setting.knobs["space"])]

    return lambda setting: made(tuple(sorted((k, v) for k, v in setting.knobs.items() if k != LAMBDA)), setting.seed)


def sum_of(thin: Thin) -> Callable[[Selection], Merge]:
    """`prepare` of a method that thins every delta by itself and adds up what is left."""

    def prepare(selection: Selection) -> Merge:
        thinned = remembered(selection, lambda stack, setting: thin(stack, selection.names, setting))

        def merge(setting: Setting) -> Merged:
            deltas: dict[str, Tensor] = {}
            for stack in thinned(setting):
                deltas |= stack.lift(stack.total(setting.weights), setting.dtype)
            return Merged(deltas)

        return merge

    return prepare


def prune(stack: Stack, names: Sequence[str], setting: Setting) -> Stack:
    """Only the largest entries; it is the same for each name and seed."""
    return replace(stack, parts=keep(stack.parts, setting.knobs["density"]))


METHOD = MergeMethod(
    name="magnitude",
    title="Magnitude pruning",
    family="sparse",
    paper="arXiv 1506.02626",
    summary="Keeps only the largest entries of each adapter, and adds them up.",
    prepare=sum_of(prune),
    knobs=(DENSITY, replace(SPACE, tried=(0, 1))),
    laws=frozenset(("scale", "order", "factors", "seed")),
)
