"""What a merge method is given, what it gives, and what it says of itself.

A method works in two steps. `prepare` does all that the selection of adapters decides by itself: bases, decompositions,
inverses. What it gives back turns weights into deltas, and is what a moved slider costs. Nobody hands an adapter at weight 0
to a method: it is taken out before, so that 0 means the same to all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lora_lab.backbones import Backbone, Deltas
from lora_lab.errors import LoraLabError
from lora_lab.lora import Factors
from lora_lab.tasks import Head

Family = Literal["sum", "sparse", "spectral", "null space", "activations", "learned", "bound", "saved"]
Needs = Literal["nothing", "statistics", "images", "labels", "task id"]
Law = Literal["alone", "linear", "scale", "order", "factors", "rotation", "seed"]
LAWS: Mapping[Law, str] = {
    "alone": "one adapter at weight 1 is that adapter",
    "linear": "the deltas are linear in the weights",
    "scale": "all weights times c give the deltas times c",
    "order": "the order of the adapters changes nothing",
    "factors": "only ΔW counts, not how it is split into A and B",
    "rotation": "turning the axes of inputs and outputs turns the result",
    "seed": "the seed changes nothing",
}
"""What a method may promise; each promise is tested."""

Grams = Mapping[str, Float[Tensor, "in in"]]
"""XᵀX / n of the inputs of each target module."""


@dataclass(frozen=True)
class Knob:
    """A number that a person may turn; `tried` are the values that the league tries, the default among them."""

    name: str
    title: str
    default: float
    low: float
    high: float
    meaning: str
    tried: tuple[float, ...] = ()
    step: float | None = None


def nobody(share: float, what: str) -> None:
    """Tells nobody how far the work is."""


@dataclass(frozen=True, eq=False)
class Sight:
    """Images for the methods that must look, by adapter: `pixels` (n, 3, H, W), normalised, and `labels` where known.

    Adapters that look at the same images share the tensor. `tell` is called with the share that is done and a word; what it
    raises ends the work.
    """

    backbone: Backbone
    pixels: Mapping[str, Float[Tensor, "n 3 H W"]]
    heads: Mapping[str, Head]
    labels: Mapping[str, Shaped[Tensor, "n *target"]] = field(default_factory=dict)
    tell: Callable[[float, str], None] = nobody


@dataclass(frozen=True, eq=False)
class Selection:
    """The adapters of a merge, none at weight 0, scaling folded in; what stays while the sliders move."""

    names: Sequence[str]
    factors: Sequence[Factors]
    grams: Sequence[Grams] = ()
    sight: Sight | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """Every target module that one of them touches."""
        return tuple(dict.fromkeys(target for factors in self.factors for target in factors))


@dataclass(frozen=True)
class Setting:
    """What a person sets: a weight for each adapter, the knobs, all of them, and the seed.

    `dtype` is that of the last product, which makes deltas of factors: a merge that only serves a forward in bfloat16 costs
    half in bfloat16. Laws hold in float32.
    """

    weights: Sequence[float]
    knobs: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, eq=False)
class Merged:
    """What a method makes: deltas, and where it learned them, a factor for each adapter and layer (adapters, layers).

    `own` holds deltas for each adapter's task, from a bound that is no merge.
    """

    deltas: Deltas
    layers: Float[Tensor, "adapters layers"] | None = None
    own: Sequence[Deltas] = ()


Merge = Callable[[Setting], Merged]
"""Deltas from weights, knobs and a seed: pure, and quick where `prepare` has done the work."""


@dataclass(frozen=True)
class MergeMethod:
    """A named way to make one set of deltas out of many adapters.

    `refuses` says which of "weights" and "negative weights" it cannot take. `summary` is one sentence for people.
    """

    name: str
    title: str
    family: Family
    paper: str
    summary: str
    prepare: Callable[[Selection], Merge]
    needs: Needs = "nothing"
    knobs: tuple[Knob, ...] = ()
    laws: frozenset[Law] = frozenset()
    refuses: frozenset[Literal["weights", "negative weights"]] = frozenset()

    def merge(self, selection: Selection, setting: Setting) -> Merged:
        """Both steps at once."""
        return self.prepare(selection)(setting)

    def turned(self, knobs: Mapping[str, float]) -> dict[str, float]:
        """All knobs, those that are not named at their default. Raises `LoraLabError`."""
        known = {knob.name: knob for knob in self.knobs}
        faults = [f"no knob {name!r}" for name in knobs if name not in known]
        faults += [
            f"{name} = {value:g} is not in {known[name].low:g} to {known[name].high:g}"
            for name, value in knobs.items()
            if name in known and not known[name].low <= value <= known[name].high
        ]
        if faults:
            there = ", ".join(f"{k.name} ({k.low:g} to {k.high:g})" for k in self.knobs) or "none"
            raise LoraLabError(f"the method {self.name}: {'; '.join(faults)}; its knobs: {there}")
        return {name: float(knobs.get(name, knob.default)) for name, knob in known.items()}


def quick(merge: Callable[[Selection, Setting], Deltas]) -> Callable[[Selection], Merge]:
    """`prepare` of a method whose selection decides nothing beforehand."""
    return lambda selection: lambda setting: Merged(merge(selection, setting))
