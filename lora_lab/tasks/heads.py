"""The output layers of a task: 512 hidden units, ReLU and an output on the pooled feature, never merged.

The shape is that of Kesim and Helli (arXiv 2411.14064).
"""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lora_lab.backbones import Features
from lora_lab.cache import whole_file
from lora_lab.errors import DataError
from lora_lab.records import Prediction
from lora_lab.tasks.base import Task

HIDDEN = 512


class Head(nn.Module):
    """Features of B crops to one answer each. `width` is that of the pooled feature."""

    # How sure the head may be, fitted on val: see `lora_lab.calibration`. Whether that was done for the very model whose
    # features it reads, `calibrated` says.
    temperature: float = 1.0
    interval: tuple[float, float] | None = None
    calibrated: bool = False

    def __init__(self, task: Task, width: int):
        super().__init__()
        self.task = task
        self.hidden = nn.Linear(width, HIDDEN)
        self.output = nn.Linear(HIDDEN, task.outputs)

    def forward(self, features: Features) -> Float[Tensor, "B outputs"]:
        return self.output(F.relu(self.hidden(features.pooled)))

    def expect(self, targets: Shaped[Tensor, "n *target"]) -> None:
        """Start from what the training targets have in common; nothing, unless a head has a use for it."""

    @abstractmethod
    def loss(self, output: Float[Tensor, "B outputs"], target: Shaped[Tensor, "B *target"]) -> Float[Tensor, ""]:
        """The training loss of a batch."""

    @abstractmethod
    def decode(self, output: Float[Tensor, "outputs"]) -> Prediction:
        """The answer of one row."""


class ClassesHead(Head):
    """A softmax over the task's labels; the loss weighs a class by the inverse root of its share."""

    class_weights: Tensor

    def __init__(self, task: Task, width: int):
        super().__init__(task, width)
        self.register_buffer("class_weights", torch.ones(task.outputs), persistent=False)

    def expect(self, targets: Shaped[Tensor, "n"]) -> None:
        share = torch.bincount(targets, minlength=self.task.outputs).clamp(min=1).float() / len(targets)
        weights = share.rsqrt()
        # On average over the training images the weight is 1, so that the learning rate means the same for every task.
        self.class_weights = weights / (weights * share).sum()

    def loss(self, output: Float[Tensor, "B outputs"], target: Shaped[Tensor, "B"]) -> Float[Tensor, ""]:
        # The weights are applied here and not inside cross_entropy, which would divide by their sum in the batch.
        losses = F.cross_entropy(output, target, label_smoothing=0.05, reduction="none")
        return (losses * self.class_weights.to(output.device)[target]).mean()

    def decode(self, output: Float[Tensor, "outputs"]) -> Prediction:
        probabilities = (output / self.temperature).softmax(0)
        best = int(probabilities.argmax())
        shares = dict(zip(self.task.labels, probabilities.tolist(), strict=True))
        label = self.task.labels[best]
        return Prediction(answer=label, confidence=shares[label], probabilities=shares, calibrated=self.calibrated)


class NumberHead(Head):
    """One number in the task's unit, trained with L1."""

    def expect(self, targets: Shaped[Tensor, "n"]) -> None:
        nn.init.constant_(self.output.bias, (targets.median().item() - self.task.offset) / self.task.scale)

    def loss(self, output: Float[Tensor, "B 1"], target: Shaped[Tensor, "B"]) -> Float[Tensor, ""]:
        return F.l1_loss(output[:, 0], (target - self.task.offset) / self.task.scale)

    def decode(self, output: Float[Tensor, "1"]) -> Prediction:
        value = output.item() * self.task.scale + self.task.offset
        low, high = (value + bound for bound in self.interval) if self.interval else (None, None)
        unit = f" {self.task.unit}" if self.task.unit else ""
        return Prediction(
            answer=f"{value:.0f}{unit}",
            value=value,
            unit=self.task.unit,
            low=low,
            high=high,
            calibrated=self.calibrated,
        )


class PointsHead(Head):
    """Points in the crop's own coordinates, 0 at its centre and ±0.5 at its edges, trained with L1."""

    def expect(self, targets: Shaped[Tensor, "n points 2"]) -> None:
        with torch.no_grad():
            self.output.bias.copy_(targets.mean(0).flatten())

    def loss(self, output: Float[Tensor, "B outputs"], target: Shaped[Tensor, "B points 2"]) -> Float[Tensor, ""]:
        # Ten times the mean distance has about the size of the other tasks' losses.
        return 10 * F.l1_loss(output, target.flatten(1))

    def decode(self, output: Float[Tensor, "outputs"]) -> Prediction:
        points = tuple((x, y) for x, y in output.view(-1, 2).tolist())
        return Prediction(answer=f"{len(points)} points", points=points)


HEADS = {"classes": ClassesHead, "number": NumberHead, "points": PointsHead}


def make_head(task: Task, width: int) -> Head:
    """An untrained head for a task."""
    return HEADS[task.kind](task, width)


def save_head(head: Head, path: Path) -> None:
    """Write a head's weights, in place of those there."""
    with whole_file(path) as part:
        save_file({name: tensor.contiguous() for name, tensor in head.state_dict().items()}, part)


def load_head(task: Task, width: int, path: Path) -> Head:
    """A head for answers alone, as it was saved. Raises `DataError`."""
    head = make_head(task, width)
    try:
        given = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} is no head for {task.name}: {str(error).splitlines()[0]}") from error
    _check_tensors(given, head, f"{path} is no head for {task.name}")
    head.load_state_dict(given)
    return head.eval().requires_grad_(False)


def _check_tensors(given: Mapping[str, Tensor], head: Head, told: str) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in given.items()}
    for name in sorted({*expected, *found}):
        if name not in expected or name not in found:
            raise DataError(f"{told}: {name} is {'missing' if name in expected else 'unknown'}, it takes {', '.join(expected)}")
        if expected[name] != found[name]:
            raise DataError(f"{told}: {name} has the shape {found[name]} and must have {expected[name]}")
    odd = [name for name, tensor in given.items() if tensor.is_complex()]
    if odd:
        raise DataError(f"{told}: {odd[0]} holds complex numbers; save it in floating point")
