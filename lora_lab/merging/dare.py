"""DARE: keep each entry of a delta with a probability, and divide what is kept by it, so that the mean stays what it was.

Source: Yu et al., "Language Models are Super Mario" (arXiv 2311.03099); with the election of TIES (arXiv 2306.01708) it is
called DARE-TIES.

How ours differs: whole deltas are thinned, where peft draws for A and B apart, and without a seed. Every adapter and module has
a generator of its own, made of the seed and the two names: who else takes part, and in which order, changes no draw in the
plain space. In core space the number of entries follows from who takes part, and the draw with it. Entries that are kept at a
low density are kept at a higher one as well.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.merging.base import MergeMethod, Setting
from lora_lab.merging.core_space import SPACE, Stack
from lora_lab.merging.pruning import DENSITY, sum_of
from lora_lab.merging.ties import LAMBDA, elect

KEPT = replace(DENSITY, meaning="the probability with which an entry of a delta is kept")


def draws(stack: Stack, names: Sequence[str], seed: int) -> Float[Tensor, "K n p q"]:
    """Numbers in [0, 1), for each adapter and module by itself."""
    drawn = torch.empty(stack.parts.shape, dtype=torch.float32)
    for numbers, name in zip(drawn, names, strict=True):
        for number, target in zip(numbers, stack.targets, strict=True):
            digest = hashlib.sha256(f"{seed} {name} {target}".encode()).digest()
            torch.rand(number.shape, generator=torch.Generator().manual_seed(int.from_bytes(digest[:7])), out=number)
    return drawn.to(stack.parts.device)


def drop(stack: Stack, names: Sequence[str], setting: Setting) -> Stack:
    """Each entry with the probability `density`, divided by it, or else zero."""
    density = setting.knobs["density"]
    return replace(stack, parts=stack.parts * (draws(stack, names, setting.seed) < density) / density)


DARE = MergeMethod(
    name="dare",
    title="DARE",
    family="sparse",
    paper="arXiv 2311.03099",
    summary="Keeps entries of each adapter at random, scales them up for those that are lost, and adds them up.",
    prepare=sum_of(drop),
    knobs=(KEPT, replace(SPACE, tried=(0, 1))),
    laws=frozenset(("scale", "order", "factors")),
)
DARE_TIES = MergeMethod(
    name="dare_ties",
    title="DARE-TIES",
    family="sparse",
    paper="arXiv 2311.03099, arXiv 2306.01708",
    summary="Keeps entries of each adapter at random, scaled up, and merges what is left as TIES does.",
    prepare=elect(drop),
    knobs=(replace(KEPT, tried=(0.5, 0.8)), LAMBDA, SPACE),
    laws=frozenset(("scale", "order", "factors")),
)
