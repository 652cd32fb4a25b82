"""Breadcrumbs: of each delta neither the few largest entries nor the many small ones are kept, but those between.

Source: Davari and Belilovsky, "Model Breadcrumbs" (arXiv 2312.06795).

How ours differs: what is kept and what is too large are given as shares of the entries of a module, where the paper gives the
two ends, β and γ. The paper multiplies the sum by α; here the sliders do.
"""

from collections.abc import Sequence
from dataclasses import replace

from lora_lab.merging.base import Knob, MergeMethod, Setting
from lora_lab.merging.core_space import SPACE, Stack
from lora_lab.merging.pruning import DENSITY, keep, sum_of

OUTLIERS = Knob(
    "outliers",
    "Outliers",
    0.01,
    0,
    0.5,
    "the share of the entries of each delta, the largest, that is dropped",
    (0.01, 0.05),
    0.01,
)


def sift(stack: Stack, names: Sequence[str], setting: Setting) -> Stack:
    """Only the entries between; it is the same for each name and seed."""
    return replace(stack, parts=keep(stack.parts, setting.knobs["density"], setting.knobs["outliers"]))


METHOD = MergeMethod(
    name="breadcrumbs",
    title="Breadcrumbs",
    family="sparse",
    paper="arXiv 2312.06795",
    summary="Drops the few largest and the many small entries of each adapter, and adds up those between.",
    prepare=sum_of(sift),
    knobs=(DENSITY, OUTLIERS, SPACE),
    laws=frozenset(("scale", "order", "factors", "seed")),
)
