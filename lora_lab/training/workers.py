"""Several processes that train one adapter, a GPU each, as `accelerate launch` starts them; or one process, the usual case."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, reduce
from torch import Tensor

from lora_lab.training.batches import Share


@dataclass(frozen=True)
class Workers:
    """This process among its fellows."""

    share: Share
    device: torch.device | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks and writes."""
        return self.share.rank == 0

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Give every process the mean of all gradients."""
        if self.share.count > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.copy_(cast(Tensor, reduce(parameter.grad, reduction="mean")))

    def agree(self, value: float) -> float:
        """The first process's value, so that all take the same decision."""
        if self.share.count == 1:
            return value
        return cast(Tensor, broadcast(torch.tensor(value, dtype=torch.float64, device=self.device))).item()

    def mean(self, value: float) -> float:
        """The mean of all processes' values."""
        if self.share.count == 1:
            return value
        return cast(Tensor, reduce(torch.tensor(value, dtype=torch.float64, device=self.device), reduction="mean")).item()


ALONE = Workers(Share())


def workers() -> Workers:
    """This process's place, from the variables that `accelerate launch` sets."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    state = PartialState()
    return Workers(Share(state.process_index, state.num_processes), state.device)
