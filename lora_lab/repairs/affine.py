"""Affine recalibration: two numbers an output, fitted on labelled images; for numbers and points.

A merged regressor is often still right in order but shrunk to the mean: the least squares line from its outputs to the targets
undoes that. Classes are left as they are.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.errors import LoraLabError
from lora_lab.repairs.base import Damage, Mend, Repair


class AffineMend(Mend):
    """o → a o + b for each output."""

    def answers(self, outputs: Float[Tensor, "B outputs"]) -> Float[Tensor, "B outputs"]:
        return outputs * self.factor + self.offset  # type: ignore[operator]


@torch.no_grad()
def fit(damage: Damage) -> Mend:
    """The mend of a task. Raises `LoraLabError` without labels."""
    task, mend = damage.head.task, AffineMend()
    if task.kind == "classes":
        mend.keep(factor=torch.ones(task.outputs), offset=torch.zeros(task.outputs))
        return mend
    if damage.labels is None:
        raise LoraLabError(f"affine recalibration needs labels of {task.name}: give labelled images, or take another repair")
    outputs, labels = damage.head(damage.merged).cpu(), damage.labels.cpu().float()
    wanted = labels.flatten(1) if labels.dim() > 1 else (labels[:, None] - task.offset) / task.scale
    apart, around = outputs - outputs.mean(0), wanted - wanted.mean(0)
    factor = (apart * around).sum(0) / apart.square().sum(0).clamp(min=1e-12)
    mend.keep(factor=factor, offset=wanted.mean(0) - factor * outputs.mean(0))
    return mend


AFFINE = Repair(
    name="affine",
    title="Affine recalibration",
    paper="ours",
    summary="A factor and an offset for each output of numbers and points, fitted on labelled images.",
    needs="labels",
    fit=fit,
    mend=AffineMend,
)
