"""For methods that give every adapter new factors, once: a moved slider then costs what the exact sum costs."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from lora_lab.lora import Factors, LoraFactors, concatenate, deltas_of
from lora_lab.merging.base import Merged, Selection, Setting

Change = Callable[[str, Mapping[int, LoraFactors]], Iterable[LoraFactors]]
"""New factors for a target module, in the order of the old ones, which come by their adapter's place in the selection."""


def renewed(selection: Selection, change: Change) -> list[Factors]:
    """The new factors of each adapter; only those that touch a module take part in it."""
    found: list[dict[str, LoraFactors]] = [{} for _ in selection.factors]
    for target in selection.targets:
        there = {k: factors[target] for k, factors in enumerate(selection.factors) if target in factors}
        for k, pair in zip(there, change(target, there), strict=True):
            found[k][target] = pair
    return list(found)


def summed(factors: Sequence[Factors], setting: Setting, scale: float = 1.0) -> Merged:
    """Σ wₖ ΔWₖ, times a scale."""
    weighted = [(own, scale * weight) for own, weight in zip(factors, setting.weights, strict=True)]
    return Merged(deltas_of(concatenate(weighted), setting.dtype))
