"""Layer-wise factors that make the classification heads as sure of unlabelled images as they can be.

Source: Yang et al. 2024, "AdaMerging: Adaptive Model Merging for Multi-Task Learning" (arXiv 2310.02575), its layer-wise
form: the mean entropy of the heads' softmax answers is brought down by gradients.

Only heads that choose among classes have an entropy. A head for a number or for points does not count at all: its adapter
is merged and gets factors, but they serve the other tasks, and its own answers may suffer. Ours differs from the paper in
that the factors multiply the weights that are set, that they are bounded by nothing, and that the key and the value of a
layer share one.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Deltas
from lora_lab.errors import LoraLabError
from lora_lab.merging.base import Merge, MergeMethod, Selection
from lora_lab.merging.layerwise import KNOBS, groups_of, learn, sight_of


def entropy(output: Float[Tensor, "B classes"]) -> Float[Tensor, ""]:
    """The mean entropy of softmax answers, in nats."""
    logs = output.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1).mean()


def prepare(selection: Selection) -> Merge:
    """Raises `LoraLabError` where no head chooses among classes, or one that does has no image."""
    sight = sight_of(selection)
    heads = {k: sight.heads[name] for k, name in enumerate(selection.names) if name in sight.heads}
    classifiers = {k: head for k, head in heads.items() if head.task.kind == "classes"}
    if not classifiers:
        raise LoraLabError("AdaMerging hears only heads that choose among classes, and there is none: take another method")

    def loss(deltas: Deltas, adapters: tuple[int, ...], pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
        features = sight.backbone.encode(pixels, deltas)
        return torch.stack([entropy(classifiers[k](features)) for k in adapters]).sum() / len(classifiers)

    return learn(selection, groups_of(selection, classifiers), loss, "entropy")


METHOD = MergeMethod(
    name="adamerging",
    title="AdaMerging",
    family="learned",
    paper="arXiv 2310.02575",
    summary="Finds a factor for each adapter and layer that makes the classifiers sure; numbers and points do not count.",
    prepare=prepare,
    needs="images",
    knobs=KNOBS,
    laws=frozenset(("order", "factors")),
)
