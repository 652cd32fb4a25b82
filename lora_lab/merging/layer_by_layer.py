"""One pass through the layers that merges each when it has seen what the merged layers below hand to it.

What reaches a layer depends on the layers below it alone. So where those are merged already, the inputs are final, and one
pass gives what repeated rounds over the whole network converge to.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Backbone, Deltas, Walk, by_layer
from lora_lab.errors import LoraLabError
from lora_lab.lora import deltas_of
from lora_lab.merging.base import Selection, Sight

CHUNK = 64


@dataclass(frozen=True, eq=False)
class Seen:
    """Second moments of what a layer reads on one adapter's images, divided by the number of tokens.

    `merged` is X̃ᵀX̃ of the merged model, `own` XᵀX of the adapter alone, and `cross` XᵀX̃; the last two only where asked for.
    """

    merged: Float[Tensor, "D D"]
    own: Float[Tensor, "D D"]
    cross: Float[Tensor, "D D"]


Solve = Callable[[str, Sequence[Seen]], Float[Tensor, "out in"]]
"""ΔW of a target module from what each adapter saw there."""


def needed_sight(selection: Selection, method: str) -> Sight:
    """The images of a selection. Raises `LoraLabError` where an adapter has none."""
    sight = selection.sight
    lacking = [name for name in selection.names if sight is None or name not in sight.pixels or not len(sight.pixels[name])]
    if sight is None or lacking:
        raise LoraLabError(f"{method} needs images for {', '.join(lacking)}: give some that its head may look at")
    return sight


def layer_by_layer(selection: Selection, images: int, alone: bool, solve: Solve) -> Deltas:
    """Deltas of every target module, `solve` called from the first layer to the last.

    Looks at no more than so many images an adapter. `alone` says whether the adapters' own ways are walked too.
    """
    sight = needed_sight(selection, "this method")
    deltas: dict[str, Tensor] = {}
    trails = [
        Trail(sight.backbone, sight.pixels[name][:images], deltas_of(factors) if alone else None)
        for name, factors in zip(selection.names, selection.factors, strict=True)
    ]
    grouped = by_layer(sight.backbone)
    for place, targets in enumerate(grouped.values()):
        touched = [target for target in targets if any(target in factors for factors in selection.factors)]
        seen = [trail.look() for trail in trails] if touched else []
        for target in touched:
            deltas[target] = solve(target, seen).float()
        for trail in trails:
            trail.step(deltas)
        sight.tell((place + 1) / len(grouped), f"layer {place + 1} of {len(grouped)}")
    return deltas


class Trail:
    """The way of one adapter's images through the merged model, and beside it through the model with that adapter alone."""

    def __init__(self, backbone: Backbone, pixels: Float[Tensor, "n 3 H W"], own: Deltas | None):
        chunks = pixels.split(CHUNK)
        self._own_deltas = own
        self._merged = [Walk(backbone, chunk) for chunk in chunks]
        self._own = [Walk(backbone, chunk) for chunk in chunks] if own is not None else []

    def look(self) -> Seen:
        """What the next layer reads."""
        merged, own, cross, tokens = 0, 0, 0, 0
        for place, walk in enumerate(self._merged):
            y = self._wide(walk.inputs())
            x = self._wide(self._own[place].inputs()) if self._own else y
            merged, own, cross, tokens = merged + y.T @ y, own + x.T @ x, cross + x.T @ y, tokens + len(y)
        return Seen(*(moment.cpu().double() / tokens for moment in (merged, own, cross)))  # type: ignore[union-attr]

    @staticmethod
    def _wide(inputs: Float[Tensor, "B T D"]) -> Float[Tensor, "n D"]:
        # Sums in more digits than what is summed has, where the device can count in them.
        more = inputs.dtype == torch.float32 and inputs.device.type != "mps"
        return inputs.flatten(0, 1).to(torch.float64 if more else torch.float32)

    def step(self, deltas: Mapping[str, Tensor]) -> None:
        """Through the next layer."""
        for walk in self._merged:
            walk.step(deltas)
        for walk in self._own:
            walk.step(self._own_deltas or {})
