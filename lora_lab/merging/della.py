"""DELLA: as DARE-TIES, but the larger an entry is within its row, the more probably it is kept.

Source: Deep et al., "DELLA-Merging" (arXiv 2406.11617), where the drawing is called MAGPRUNE.

How ours differs: probabilities run evenly over the ranks in a row, as in the paper, but around the density, and how far is
given as a share of what there is room for, so that every pair of knobs makes probabilities: the paper's ε is
2 · spread · min(density, 1 − density). Draws and election are those of `dare` and `ties`; at spread 0 it is DARE-TIES.
"""

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from lora_lab.merging.base import Knob, MergeMethod, Setting
from lora_lab.merging.core_space import SPACE, Stack
from lora_lab.merging.dare import draws
from lora_lab.merging.pruning import DENSITY
from lora_lab.merging.ties import LAMBDA, elect

KEPT = replace(DENSITY, meaning="the mean probability with which an entry of a delta is kept", tried=(0.5, 0.8))
SPREAD = Knob(
    "spread", "Spread", 0.2, 0, 1, "how far the probability runs with magnitude: 0 not at all, 1 as far as it can", (), 0.05
)


def probabilities(parts: Float[Tensor, "K n p q"], density: float, spread: float) -> Float[Tensor, "K n p q"]:
    """Of being kept, between 0 and 1; the mean of each row is the density."""
    ranks = parts.abs().argsort(-1).argsort(-1)
    return density + spread * min(density, 1 - density) * ((2 * ranks + 1) / parts.shape[-1] - 1)


def sample(stack: Stack, names: Sequence[str], setting: Setting) -> Stack:
    """Each entry with its probability, divided by it, or else zero."""
    kept = probabilities(stack.parts, setting.knobs["density"], setting.knobs["spread"])
    return replace(stack, parts=stack.parts * (draws(stack, names, setting.seed) < kept) / kept)


METHOD = MergeMethod(
    name="della",
    title="DELLA",
    family="sparse",
    paper="arXiv 2406.11617",
    summary="Keeps entries of each adapter at random, large ones more probably, and merges what is left as TIES does.",
    prepare=elect(sample),
    knobs=(KEPT, LAMBDA, SPREAD, SPACE),
    laws=frozenset(("scale", "order", "factors")),
)
