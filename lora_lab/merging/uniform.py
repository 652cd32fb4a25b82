"""The mean of the deltas: every adapter that takes part has the weight 1/K.

Source: arXiv 2402.15414, where it is the plainest way to compose LoRA modules that were trained apart.
"""

from lora_lab.backbones import Deltas
from lora_lab.lora import concatenate, deltas_of
from lora_lab.merging.base import MergeMethod, Selection, Setting, quick


def merge(selection: Selection, setting: Setting) -> Deltas:
    """ΔW of every target module; the values of the weights are not looked at."""
    return deltas_of(concatenate([(factors, 1 / len(selection.factors)) for factors in selection.factors]), setting.dtype)


METHOD = MergeMethod(
    name="uniform",
    title="Uniform",
    family="sum",
    paper="arXiv 2402.15414",
    summary="The mean of the adapters that take part; the values of the sliders do not count.",
    prepare=quick(merge),
    laws=frozenset(("alone", "order", "factors", "rotation", "seed")),
    refuses=frozenset(("weights",)),
)
