"""What a merge method is given and what it gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lora_lab.backbones import Deltas
from lora_lab.lora import Factors


@dataclass(frozen=True)
class MergeInputs:
    """Adapters' factors with the scaling folded in, a weight for each, and the method's knobs."""

    factors: Sequence[Factors]
    weights: Sequence[float]
    knobs: Mapping[str, float]
    seed: int


@dataclass(frozen=True)
class MergeMethod:
    """A named way to make one set of deltas out of many adapters; `merge` is pure."""

    name: str
    title: str
    paper: str
    merge: Callable[[MergeInputs], Deltas]
