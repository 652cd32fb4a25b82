"""Distillation: all key and value weights learn together to make every head answer as it does on its own adapter.

Ours; close to ProDistill (Xu et al. 2025, "Scalable Model Merging with Progressive Layer-wise Distillation", arXiv 2502.12706),
which matches features layer by layer. Several heads may read the same crop, and no single feature can be equal to what each of
their adapters makes of it. So here the heads' answers are matched, through the heads as they are, end to end: what a head does
not read is left to the others. It starts from one pass of IterIS, needs no labels, and takes minutes in the place of seconds.

The loss of a head is its squared error against its own adapter's answers, in shares of their variance. Heads that read faces
answer on every adapter's faces, since a photo's face is shown to them all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Backbone, Deltas, Features
from lora_lab.lora import deltas_of
from lora_lab.merging import iteris
from lora_lab.merging.base import Knob, Merge, Merged, MergeMethod, Selection, Setting, Sight
from lora_lab.merging.layer_by_layer import needed_sight
from lora_lab.tasks import Head

CHUNK = 64
WARM_UP = 30


@dataclass(frozen=True, eq=False)
class Lesson:
    """What heads answer on the same n images under their own adapters, and the share that each has in the loss."""

    pixels: Float[Tensor, "n 3 H W"]
    heads: Sequence[Head]
    answers: Sequence[Float[Tensor, "n _"]]
    shares: Sequence[float]

    def loss(self, pooled: Float[Tensor, "b D"], rows: Tensor) -> Tensor:
        """The loss of these images' merged features."""
        features = Features(pooled, pooled.new_zeros(len(pooled), 0, pooled.shape[1]))
        parts = zip(self.heads, self.answers, self.shares, strict=True)
        return sum((share * (head(features) - own[rows]).square().sum(1).mean() for head, own, share in parts), torch.zeros(()))


def prepare(selection: Selection) -> Merge:
    """Nothing is kept: the lessons depend on the weights."""
    sight = needed_sight(selection, METHOD.title)

    def merge(setting: Setting) -> Merged:
        knobs = {knob.name: knob.default for knob in iteris.METHOD.knobs} | {"images": setting.knobs["start"]}
        start = iteris.METHOD.merge(selection, Setting(setting.weights, knobs, setting.seed)).deltas
        return Merged(descend(sight, start, lessons_of(selection, sight, setting), setting))

    return merge


def lessons_of(selection: Selection, sight: Sight, setting: Setting) -> list[Lesson]:
    """A lesson for each set of images."""
    owns = {}
    for name, factors, weight in zip(selection.names, selection.factors, setting.weights, strict=True):
        owns[name] = sight.backbone.place({target: weight * delta for target, delta in deltas_of(factors).items()})
    seen = {id(sight.pixels[name]): sight.pixels[name] for name in selection.names}
    spread: dict[str, float] = {}
    answered: dict[tuple[int, str], Tensor] = {}
    for name in selection.names:
        for place, pixels in seen.items():
            if sight.pixels[name] is pixels or _both_faces(sight, name, pixels):
                answered[place, name] = answers(sight, name, owns[name], pixels)
        spread[name] = float(answered[id(sight.pixels[name]), name].var(0).sum())
        sight.tell(0.0, f"{name} answers by itself")
    lessons = []
    for place, pixels in seen.items():
        names = [name for name in selection.names if (place, name) in answered]
        shares = [share_of(sight, name, pixels, setting) / spread[name] for name in names]
        lessons.append(Lesson(pixels, [sight.heads[n] for n in names], [answered[place, n] for n in names], shares))
    return lessons


def share_of(sight: Sight, name: str, pixels: Tensor, setting: Setting) -> float:
    """How much a head counts on these images: less where they are another's, more where an error shows in full."""
    own = 1.0 if sight.pixels[name] is pixels else setting.knobs["cross"]
    return own * (setting.knobs["points"] if sight.heads[name].task.kind == "points" else 1.0)


def _both_faces(sight: Sight, name: str, pixels: Tensor) -> bool:
    owners = [sight.heads[other] for other, seen in sight.pixels.items() if seen is pixels]
    return all(head.task.framing == "face" for head in (sight.heads[name], *owners))


@torch.no_grad()
def answers(sight: Sight, name: str, deltas: Deltas, pixels: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n outputs"]:
    """A head's outputs under these deltas."""
    head = sight.heads[name]
    return torch.cat([head(sight.backbone.encode(part, deltas)) for part in pixels.split(CHUNK)])


@torch.enable_grad()
def descend(sight: Sight, start: Deltas, lessons: Sequence[Lesson], setting: Setting) -> Deltas:
    """Deltas after so many steps of AdamW, a batch of each lesson's images in every step."""
    learned = {target: delta.clone().requires_grad_() for target, delta in sight.backbone.place(start).items()}
    rate, steps = setting.knobs["rate"], int(setting.knobs["steps"])
    optimiser = torch.optim.AdamW(learned.values(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    generator = torch.Generator().manual_seed(setting.seed)
    orders = [Rows(len(lesson.pixels), generator) for lesson in lessons]
    for step in range(steps):
        rows = [order.take(batch_of(lesson, setting)) for lesson, order in zip(lessons, orders, strict=True)]
        loss = batch_loss(sight.backbone, learned, lessons, rows)
        optimiser.param_groups[0]["lr"] = rate * min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned.values(), 1.0)
        optimiser.step()
        sight.tell((step + 1) / steps, f"step {step + 1} of {steps}, loss {loss.item():.3f}")
    return {target: delta.detach() for target, delta in learned.items()}


def batch_of(lesson: Lesson, setting: Setting) -> int:
    """Images a step: more of those that more heads learn from."""
    most = max(1, int(setting.knobs["batch"]))
    return max(1, min(len(lesson.pixels), most if len(lesson.heads) > 1 else most // 2))


def batch_loss(backbone: Backbone, deltas: Deltas, lessons: Sequence[Lesson], rows: Sequence[Tensor]) -> Tensor:
    """The loss of one batch, all lessons in one forward."""
    pixels = torch.cat([lesson.pixels[taken] for lesson, taken in zip(lessons, rows, strict=True)])
    pooled = backbone.encode(pixels, deltas).pooled.split([len(taken) for taken in rows])
    return sum((lesson.loss(z, taken) for lesson, z, taken in zip(lessons, pooled, rows, strict=True)), torch.zeros(()))


class Rows:
    """Rows of n images in a new random order each time all were taken."""

    def __init__(self, n: int, generator: torch.Generator):
        self._n, self._generator, self._left = n, generator, torch.empty(0, dtype=torch.long)

    def take(self, count: int) -> Tensor:
        """The next rows."""
        while len(self._left) < count:
            self._left = torch.cat([self._left, torch.randperm(self._n, generator=self._generator)])
        taken, self._left = self._left[:count], self._left[count:]
        return taken


METHOD = MergeMethod(
    name="distillation",
    title="Distillation",
    family="activations",
    paper="ours; cf. arXiv 2502.12706",
    summary="Starts from IterIS and lets the merged weights learn, without labels, to make each head answer as it does alone.",
    prepare=prepare,
    needs="images",
    knobs=(
        Knob("steps", "Steps", 100, 1, 20_000, "steps of AdamW", (), 1),
        Knob("rate", "Learning rate", 2e-4, 1e-6, 1e-2, "the highest rate; it falls along half a cosine"),
        Knob("batch", "Images a step", 8, 1, 64, "of each set of faces, and half as many of others", (), 1),
        Knob("cross", "Others' faces", 0.5, 0, 1, "what a face head's answers on another adapter's faces count"),
        Knob("points", "Points", 4, 0.1, 10, "what a head that gives points counts, as its every error shows"),
        Knob("start", "Images to start", 96, 8, 1024, "images an adapter that IterIS looks at first", (), 8),
    ),
    laws=frozenset(("factors",)),
)
