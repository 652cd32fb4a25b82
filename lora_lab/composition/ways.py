"""Five ways to learn a task that no adapter knows from a few labelled images.

Learned composition gives each layer l the mean Σ ŵₖₗ ΔWₖ of the adapters' deltas with ŵ = softmax(v), and trains v (adapters,
layers), which begins at 0, together with a new head; uniform composition leaves ŵ at 1/K. Adapters and backbone are frozen.

Source: Asadi et al. 2024, "Does Combining Parameter-efficient Modules Improve Few-shot Transfer Accuracy?" (arXiv
2402.15414). Ours differs in the adapters, which come from a handful of unlike tasks instead of related data sets; in the head,
which has 512 hidden units; in that key and value of a layer share a weight; and in the training, which is short and without
random views.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Backbone, Deltas
from lora_lab.catalog import Catalog
from lora_lab.composition.lesson import Lesson, Trained, fit
from lora_lab.errors import LoraLabError
from lora_lab.evaluation import encode_crops
from lora_lab.inference import MergedModel
from lora_lab.lora import Factors, deltas_of, new_factors, placed
from lora_lab.merging.layerwise import deltas_from, layer_of
from lora_lab.tasks import Head
from lora_lab.training import training_copy
from lora_lab.training.tuned import SHARED, Tuned, factors_of, tuned_factors, tuned_weights, untuned

RANK = 16
# Of v it is large, since a few dozen steps have to move it by some units; the others are those that adapters are trained with.
WEIGHT_RATE, LORA_RATE, FULL_RATE = 0.05, 1e-3, 3e-5


@dataclass(frozen=True)
class Way:
    """A way to learn a new task; `slow` says that it trains numbers by the hundred thousand."""

    name: str
    title: str
    train: Callable[[Lesson], Trained]
    slow: bool = False


def head_only(lesson: Lesson) -> Trained:
    """A head on the frozen backbone."""
    return _head_on(lesson, {})


def uniform(lesson: Lesson) -> Trained:
    """A head on the mean of all adapters."""
    members = _members(lesson, torch.device("cpu"))
    weights = _equal(members).softmax(0)
    return _head_on(lesson, deltas_from(members, weights), weights)


def learned(lesson: Lesson) -> Trained:
    """A head and the weights of all adapters at each layer."""
    encoder = training_copy(lesson.backbone)
    members = _members(lesson, encoder.device)
    v = _equal(members).to(encoder.device).requires_grad_()
    tuned = Tuned({"v": v}, lambda pixels, tasks=(): encoder.encode(pixels, deltas_from(members, v.softmax(0))))
    head = fit(lesson, tuned, WEIGHT_RATE)
    weights = v.detach().softmax(0)
    deltas = {target: delta.cpu() for target, delta in deltas_from(members, weights).items()}
    return Trained(_model(lesson, head, deltas), weights.cpu(), v.numel())


def lora(lesson: Lesson) -> Trained:
    """A head and new factors of rank 16."""
    encoder = training_copy(lesson.backbone)
    tuned = tuned_factors(encoder, {SHARED: new_factors(lesson.backbone, RANK, torch.Generator().manual_seed(lesson.seed))})
    head = fit(lesson, tuned, LORA_RATE)
    factors = factors_of({name: tensor.detach() for name, tensor in tuned.tensors.items()})
    return Trained(_model(lesson, head, deltas_of(factors)), parameters=_count(tuned.tensors))


def full(lesson: Lesson) -> Trained:
    """A head and all weights of the backbone."""
    encoder = training_copy(lesson.backbone)
    tuned = tuned_weights(encoder, dict(lesson.backbone.module.named_parameters()))
    head = fit(lesson, tuned, FULL_RATE)
    backbone = lesson.backbone.tuned({name: tensor.detach() for name, tensor in tuned.tensors.items()})
    return Trained(_model(lesson, head, {}, backbone), parameters=_count(tuned.tensors))


def timed(way: Way, lesson: Lesson) -> tuple[Trained, float]:
    """What a way ends with, and the seconds that it took."""
    start = time.monotonic()
    return way.train(lesson), round(time.monotonic() - start, 2)


def _members(lesson: Lesson, device: torch.device) -> list[Factors]:
    if not lesson.members:
        raise LoraLabError("there is no adapter to compose: name some, or leave fewer out")
    return [placed(factors, device) for factors in lesson.members.values()]


def _equal(members: Sequence[Factors]) -> Float[Tensor, "adapters layers"]:
    # v, from which every adapter has the same weight at every layer.
    return torch.zeros(len(members), 1 + max(layer_of(members).values()))


def _head_on(lesson: Lesson, deltas: Deltas, weights: Float[Tensor, "adapters layers"] | None = None) -> Trained:
    encoder = training_copy(lesson.backbone)
    features = encode_crops(encoder, lesson.crops, deltas)
    return Trained(_model(lesson, fit(lesson, untuned(encoder), 0.0, features), deltas), weights)


def _model(lesson: Lesson, head: Head, deltas: Deltas, backbone: Backbone | None = None) -> MergedModel:
    return MergedModel(backbone or lesson.backbone, deltas, {lesson.task.name: head})


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


WAYS: Catalog[Way] = Catalog(
    "way",
    (
        (way.name, way)
        for way in (
            Way("head_only", "Head only", head_only),
            Way("uniform", "Uniform composition", uniform),
            Way("learned", "Learned composition", learned),
            Way("lora", "LoRA from scratch", lora, slow=True),
            Way("full", "Full fine-tuning", full, slow=True),
        )
    ),
)
