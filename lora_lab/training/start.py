"""What a run begins with: new factors or the backbone's own weights, or those of adapters that were trained before.

Several tasks' factors begin one LoRA for all side by side, which is their exact sum, or as the best sum of a lower rank
(Eckart and Young 1936).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_lab.adapters import Adapter
from lora_lab.backbones import Backbone
from lora_lab.errors import MismatchError
from lora_lab.lora import Factors, LoraFactors, concatenate, deltas_of, new_factors
from lora_lab.tasks import Head
from lora_lab.training.config import TrainConfig
from lora_lab.training.tuned import SHARED, Tuned, tuned_factors, tuned_weights, untuned


def first_tuned(config: TrainConfig, encoder: Backbone, backbone: Backbone, start: Sequence[Adapter]) -> Tuned:
    """What the run trains of the backbone, as it is before the first step. `backbone` holds the weights in float32."""
    if config.tuning == "head_only":
        return untuned(encoder)
    if config.to_merge:
        return tuned_factors(encoder, _apart(config, backbone, start))
    factors = concatenate([(adapter.factors, 1.0) for adapter in start])
    if config.tuning == "full":
        return tuned_weights(encoder, _weights(backbone, deltas_of(factors)))
    if not factors:
        factors = new_factors(backbone, config.rank, torch.Generator().manual_seed(config.seed))
    return tuned_factors(encoder, {SHARED: {target: _of_rank(pair, config.rank) for target, pair in factors.items()}})


@torch.no_grad()
def take_head(head: Head, adapter: Adapter) -> None:
    """Begin with the head of an adapter. Raises `MismatchError` where it is of another task."""
    if head.task.name != adapter.card.task:
        raise MismatchError(f"a run of {head.task.name} cannot start from an adapter for {adapter.card.task}")
    head.load_state_dict(adapter.head.state_dict())


def _apart(config: TrainConfig, backbone: Backbone, start: Sequence[Adapter]) -> dict[str, Factors]:
    # Factors for each task: where they come from adapters, these are in the tasks' order.
    if start:
        named = zip(config.tasks, start, strict=True)
        return {name: {t: _of_rank(p, config.rank) for t, p in adapter.factors.items()} for name, adapter in named}
    generator = torch.Generator().manual_seed(config.seed)
    return {name: new_factors(backbone, config.rank, generator) for name in config.tasks}


def _weights(backbone: Backbone, deltas: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = dict(backbone.module.named_parameters())
    return weights | {
        f"{target}.weight": weights[f"{target}.weight"] + delta for target, delta in backbone.place(deltas).items()
    }


@torch.no_grad()
def _of_rank(pair: LoraFactors, rank: int) -> LoraFactors:
    if pair.rank == rank:
        return pair
    if pair.rank < rank:
        raise MismatchError(f"a run of rank {rank} cannot start from factors of rank {pair.rank}: give --rank {pair.rank}")
    u, s, v = torch.linalg.svd(pair.delta(), full_matrices=False)
    root = s[:rank].sqrt()
    return LoraFactors(root[:, None] * v[:rank], u[:, :rank] * root)
