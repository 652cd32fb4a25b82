"""TIES: trim each adapter to its largest entries, elect a sign for each entry, and take the mean of those that agree with it.

Source: Yadav et al., "TIES-Merging: Resolving Interference When Merging Models" (arXiv 2306.01708).

How ours differs: the sliders come before the election, τ_k = w_k ΔW_k, so that an adapter votes with its weight, a negative one
for the other sign, and one at weight 0 not at all. Trimming is by module, as in peft, where the paper trims the whole model at
once. An entry whose votes cancel out is zero; the paper gives it the sign that most entries have. The mean is over the
adapters that agree, so that the result is small against the sum, and λ above 1 is worth trying.

With P the sum of the positive τ_k and N that of the negative ones, Σ τ_k = P − |N| and Σ |τ_k| = P + |N|. So two weighted sums
and a count of signs make the merge, and no tensor of all adapters is written when a slider moves.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Deltas
from lora_lab.merging import pruning
from lora_lab.merging.base import Knob, Merge, Merged, MergeMethod, Selection, Setting
from lora_lab.merging.core_space import SPACE, Stack

LAMBDA = Knob(pruning.LAMBDA, "λ", 1, 0, 6, "by how much the mean of those that agree is multiplied", (1, 2, 3), 0.1)
DENSITY = replace(pruning.DENSITY, default=0.2, tried=(0.2, 0.5))


class Election:
    """The trimmed parts of a stack, ready to be merged with any weights."""

    def __init__(self, stack: Stack):
        self._stack = stack
        self._sizes = replace(stack, parts=stack.parts.abs())
        self._voters = stack.parts.count_nonzero(0).to(stack.parts.dtype)
        # Sliders seldom cross zero, so the last is kept. A method of this object would hold it in a circle, and a gigabyte
        # of such elections would wait for Python's next search for circles.
        self._majority = lru_cache(maxsize=1)(partial(_majority, stack.parts))

    def merge(self, setting: Setting, factor: float) -> Deltas:
        """ΔW of every module: the mean of those that agree with the elected sign, times a factor."""
        weights = setting.weights
        total = self._stack.total(weights)
        elected = total.sign()
        majority = self._majority(tuple(1 if w > 0 else -1 for w in weights))
        # Twice the sum of those that agree, over twice their number.
        twice_agreeing = self._sizes.total([abs(w) for w in weights]).mul_(elected).add_(total)
        twice_number = elected.mul_(majority).add_(self._voters).clamp_(min=1)
        return self._stack.lift(twice_agreeing.div_(twice_number).mul_(factor), setting.dtype)


def _majority(parts: Float[Tensor, "K n p q"], signs: tuple[int, ...]) -> Float[Tensor, "n p q"]:
    """How many more vote for plus than for minus."""
    count = torch.zeros_like(parts[0])
    for part, sign in zip(parts, signs, strict=True):
        count.add_(part.sign(), alpha=sign)
    return count


def elect(thin: pruning.Thin) -> Callable[[Selection], Merge]:
    """`prepare` of a method that thins every delta by itself and then elects signs."""

    def prepare(selection: Selection) -> Merge:
        elections = pruning.remembered(selection, lambda stack, setting: Election(thin(stack, selection.names, setting)))

        def merge(setting: Setting) -> Merged:
            deltas: dict[str, Tensor] = {}
            for election in elections(setting):
                deltas |= election.merge(setting, setting.knobs[pruning.LAMBDA])
            return Merged(deltas)

        return merge

    return prepare


METHOD = MergeMethod(
    name="ties",
    title="TIES",
    family="sparse",
    paper="arXiv 2306.01708",
    summary="Keeps the largest entries of each adapter, lets them elect a sign, and takes the mean of those that agree.",
    prepare=elect(pruning.prune),
    knobs=(DENSITY, LAMBDA, SPACE),
    laws=frozenset(("scale", "order", "factors", "seed")),
)
