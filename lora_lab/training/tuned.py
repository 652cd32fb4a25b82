"""What a run trains of the backbone: factors, nothing, or all weights, as named tensors and a way to encode with them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Backbone, Features
from lora_lab.lora import Factors, LoraFactors, deltas_of

Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Tuned:
    """Trainable float32 tensors by name, and `encode`, which gives the features of the backbone as they make it."""

    tensors: Tensors
    encode: Callable[[Float[Tensor, "B 3 H W"]], Features]


def tuned_factors(encoder: Backbone, factors: Factors) -> Tuned:
    """LoRA: W₀ + B A is formed once a step, so that the factors cost nothing a token."""
    own = {target: _trainable_pair(pair, encoder.device) for target, pair in factors.items()}
    tensors = {f"{target}.{side}": getattr(pair, side) for target, pair in own.items() for side in ("a", "b")}
    return Tuned(tensors, lambda pixels: encoder.encode(pixels, deltas_of(own)))


def untuned(encoder: Backbone) -> Tuned:
    """A frozen backbone."""

    @torch.no_grad()
    def encode(pixels: Float[Tensor, "B 3 H W"]) -> Features:
        return encoder.encode(pixels)

    return Tuned({}, encode)


def tuned_weights(encoder: Backbone, weights: Mapping[str, Tensor]) -> Tuned:
    """All weights: the float32 tensors are what is trained, and the encoder's precision is what computes."""
    own = {name: tensor.detach().float().to(encoder.device, copy=True).requires_grad_() for name, tensor in weights.items()}

    def encode(pixels: Float[Tensor, "B 3 H W"]) -> Features:
        return encoder.encode_with(pixels, {name: tensor.to(encoder.dtype) for name, tensor in own.items()})

    return Tuned(own, encode)


def factors_of(tensors: Mapping[str, Tensor]) -> dict[str, LoraFactors]:
    """The factors that `tuned_factors` trained, on the CPU."""
    targets = dict.fromkeys(name.removesuffix(".a").removesuffix(".b") for name in tensors)
    return {target: LoraFactors(tensors[f"{target}.a"].cpu(), tensors[f"{target}.b"].cpu()) for target in targets}


def _trainable_pair(pair: LoraFactors, device: torch.device) -> LoraFactors:
    a, b = (tensor.detach().to(device, copy=True).requires_grad_() for tensor in (pair.a, pair.b))
    return LoraFactors(a, b)
