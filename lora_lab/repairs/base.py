"""What a repair is given and what it gives: a small map between the merged features and a head.

The merged model's features of a task are not quite those that the task's head was trained on. A repair brings them back: it is
fitted on images, one map a task, and costs nothing beside the forward.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from lora_lab.backbones import Features
from lora_lab.tasks import Head


class Mend(nn.Module):
    """A task's fitted repair: by itself it changes nothing. All that it knows are buffers."""

    def forward(self, features: Features) -> Features:
        """The features that the head reads, from those of the merged model."""
        return features

    def answers(self, outputs: Float[Tensor, "B outputs"]) -> Float[Tensor, "B outputs"]:
        """The head's outputs, mended."""
        return outputs

    def keep(self, **tensors: Tensor) -> None:
        """Hold tensors as buffers, in float32."""
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.detach().float().contiguous())


@dataclass(frozen=True, eq=False)
class Damage:
    """A task's features on the same n images in the merged model and under its adapter alone, its head, and labels if known."""

    merged: Features
    alone: Float[Tensor, "n D"]
    head: Head
    labels: Shaped[Tensor, "n *target"] | None
    seed: int = 0


@dataclass(frozen=True)
class Repair:
    """A named way to mend features; `fit` makes a task's mend, and `empty` one that tensors of these names are loaded into."""

    name: str
    title: str
    paper: str
    summary: str
    needs: Literal["images", "labels"]
    fit: Callable[[Damage], Mend]
    mend: type[Mend]


def apply(head: Head, mend: Mend | None, features: Features) -> Float[Tensor, "B outputs"]:
    """A head's outputs on merged features, mended where there is a mend."""
    return head(features) if mend is None else mend.answers(head(mend(features)))
