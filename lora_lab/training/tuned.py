"""What a run trains of the backbone: factors, nothing, or all weights, as named tensors and a way to encode with them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Backbone, Features
from lora_lab.lora import Factors, LoraFactors, concatenate, deltas_of

Tensors = dict[str, Tensor]


@runtime_checkable
class Encode(Protocol):
    """The features of the backbone with what is trained, by the factors of some tasks or of all."""

    def __call__(self, pixels: Float[Tensor, "B 3 H W"], tasks: Sequence[str] = ()) -> Features: ...


SHARED = ""
"""In place of a task's name: the factors of all."""


@dataclass(frozen=True, eq=False)
class Tuned:
    """Trainable float32 tensors by name, and the features of the backbone as they make it.

    Where each task has factors of its own, those of the named tasks are summed, or all. `squared_norm` is the sum of the
    squared deltas of some tasks.
    """

    tensors: Tensors
    encode: Encode
    squared_norm: Callable[[Sequence[str]], Float[Tensor, ""]] | None = None


def tuned_factors(encoder: Backbone, factors: Mapping[str, Factors]) -> Tuned:
    """LoRA by task, or under SHARED for all: W₀ + B A is formed once a step, so that the factors cost nothing a token."""
    own = {name: {target: _trainable_pair(pair, encoder.device) for target, pair in of.items()} for name, of in factors.items()}
    tensors = {
        f"{_prefix(name)}{target}.{side}": getattr(pair, side)
        for name, of in own.items()
        for target, pair in of.items()
        for side in ("a", "b")
    }

    def members(tasks: Sequence[str]) -> list[Factors]:
        return [of for name, of in own.items() if name == SHARED or not tasks or name in tasks]

    def encode(pixels: Float[Tensor, "B 3 H W"], tasks: Sequence[str] = ()) -> Features:
        return encoder.encode(pixels, deltas_of(concatenate([(of, 1.0) for of in members(tasks)])))

    def squared_norm(tasks: Sequence[str]) -> Float[Tensor, ""]:
        return torch.stack([pair.squared_norm() for of in members(tasks) for pair in of.values()]).sum()

    return Tuned(tensors, encode, squared_norm)


def untuned(encoder: Backbone) -> Tuned:
    """A frozen backbone."""

    @torch.no_grad()
    def encode(pixels: Float[Tensor, "B 3 H W"], tasks: Sequence[str] = ()) -> Features:
        return encoder.encode(pixels)

    return Tuned({}, encode)


def tuned_weights(encoder: Backbone, weights: Mapping[str, Tensor]) -> Tuned:
    """All weights: the float32 tensors are what is trained, and the encoder's precision is what computes."""
    own = {name: tensor.detach().float().to(encoder.device, copy=True).requires_grad_() for name, tensor in weights.items()}

    def encode(pixels: Float[Tensor, "B 3 H W"], tasks: Sequence[str] = ()) -> Features:
        return encoder.encode_with(pixels, {name: tensor.to(encoder.dtype) for name, tensor in own.items()})

    return Tuned(own, encode)


def factors_of(tensors: Mapping[str, Tensor], name: str = SHARED) -> dict[str, LoraFactors]:
    """The factors of a task, or those that all share, as `tuned_factors` trained them, on the CPU."""
    prefix = _prefix(name)
    here = {key.removeprefix(prefix): tensor.cpu() for key, tensor in tensors.items() if key.startswith(prefix)}
    targets = dict.fromkeys(key.removesuffix(".a").removesuffix(".b") for key in here)
    return {target: LoraFactors(here[f"{target}.a"], here[f"{target}.b"]) for target in targets}


def _prefix(name: str) -> str:
    return f"{name}/" if name != SHARED else ""


def _trainable_pair(pair: LoraFactors, device: torch.device) -> LoraFactors:
    a, b = (tensor.detach().to(device, copy=True).requires_grad_() for tensor in (pair.a, pair.b))
    return LoraFactors(a, b)
