"""A forward that stops before each layer, for methods that decide about a layer when they have seen what reaches it."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones.base import Backbone, Deltas, Features

FIRST_NORMS = ("norm1", "layernorm_before")


class Walk:
    """The way of B crops through a backbone, a layer at a time. The backbone itself is only read."""

    @torch.no_grad()
    def __init__(self, backbone: Backbone, pixels: Float[Tensor, "B 3 H W"]):
        self.backbone = backbone
        self._tokens = backbone.embed(pixels).tokens
        self._next = 0

    @torch.no_grad()
    def inputs(self) -> Float[Tensor, "B T D"]:
        """What the key and value projections of the next layer read."""
        with self.backbone.holding({}) as module:
            layer = module.get_submodule(layers(self.backbone)[self._next])
            norm = next(getattr(layer, name) for name in FIRST_NORMS if hasattr(layer, name))
            return norm(self._tokens)

    @torch.no_grad()
    def step(self, deltas: Deltas) -> None:
        """Through the next layer, with such of these deltas as lie in it."""
        name = layers(self.backbone)[self._next]
        own = {target: delta for target, delta in deltas.items() if target.startswith(f"{name}.")}
        changed = {
            f"{target}.weight": (self.backbone.weight(target) + delta).to(self.backbone.dtype)
            for target, delta in self.backbone.place(own).items()
        }
        with self.backbone.holding(changed) as module:
            self._tokens = module.get_submodule(name)(self._tokens)
        self._next += 1

    @torch.no_grad()
    def features(self) -> Features:
        """What `Backbone.encode` gives, when all layers are behind."""
        with self.backbone.holding({}) as module:
            tokens = module.layernorm(self._tokens)  # type: ignore[operator]
            pooler = getattr(module, "pooler", None)
            pooled = tokens[:, 0] if pooler is None else pooler(tokens)
        return Features(pooled.float(), tokens[:, 1:].float())


def layer_name(target: str) -> str:
    """The layer that a target module lies in, as the backbone names it."""
    return target.split(".attention.")[0]


def layers(backbone: Backbone) -> list[str]:
    """The names of the layers, in the order in which tokens go through them."""
    return list(dict.fromkeys(layer_name(target) for target in backbone.target_modules))


def by_layer(backbone: Backbone) -> Mapping[str, list[str]]:
    """The target modules of each layer, by the layer's name."""
    grouped: dict[str, list[str]] = {}
    for target in backbone.target_modules:
        grouped.setdefault(layer_name(target), []).append(target)
    return grouped
