"""Factors for each adapter and layer, learned by gradients through the merged forward.

What the methods that learn such factors share: deltas that gradients flow through, and the descent. The key and the value
projection of a layer share a coefficient. ΔW is made from the factors side by side: beside a forward of images that costs
nothing, and no dense ΔW of an adapter is kept.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Deltas, layer_name
from lora_lab.errors import LoraLabError
from lora_lab.lora import Factors, placed
from lora_lab.merging.base import Knob, Merged, Selection, Setting, Sight

RATE = Knob(
    "rate",
    "Learning rate",
    default=0.01,
    low=1e-4,
    high=0.1,
    meaning="How far AdamW moves a layer's factor in one step; the paper takes 0.001.",
    tried=(0.001, 0.01),
)
# At the paper's rate 100 steps move a factor by at most about 0.1; these 40 move it by 0.4 in two fifths of the time.
STEPS = Knob("steps", "Steps", default=40, low=1, high=1000, meaning="How many steps AdamW takes.", tried=(40,), step=1)
IMAGES = Knob(
    "images",
    "Images a step",
    default=4,
    low=1,
    high=64,
    meaning="How many images of each task a step looks at.",
    tried=(4,),
    step=1,
)
START = Knob(
    "start",
    "Start",
    default=1,
    low=0,
    high=1,
    meaning="Factors begin at 1/Kˢ for K adapters: s = 0 at the weights as they are set, s = 1 at the weights over K.",
    tried=(0, 1),
)
KNOBS = (RATE, STEPS, IMAGES, START)

Loss = Callable[[Deltas, tuple[int, ...], Float[Tensor, "B 3 H W"]], Float[Tensor, ""]]
"""What these adapters, by their places in the selection, add to a step's loss, given merged deltas and their images."""


@dataclass(frozen=True, eq=False)
class Group:
    """Adapters, by their places in the selection, that look at the same images, and so share a forward."""

    pixels: Float[Tensor, "n 3 H W"]
    adapters: tuple[int, ...]


def sight_of(selection: Selection) -> Sight:
    """The images of a selection. Raises `LoraLabError` where there are none."""
    if selection.sight is None:
        raise LoraLabError("this method must look at images of each task, and there are none: name some")
    return selection.sight


def groups_of(selection: Selection, places: Iterable[int]) -> list[Group]:
    """These adapters, grouped by the tensors that they share. Raises `LoraLabError` for those without an image."""
    sight, places = sight_of(selection), list(places)
    lacking = [selection.names[k] for k in places if not len(sight.pixels.get(selection.names[k], ()))]
    if lacking:
        raise LoraLabError(f"no images of {', '.join(lacking)}: add some, or leave these adapters out")
    shared: dict[int, list[int]] = {}
    for k in places:
        shared.setdefault(id(sight.pixels[selection.names[k]]), []).append(k)
    return [Group(sight.pixels[selection.names[same[0]]], tuple(same)) for same in shared.values()]


def layer_of(factors: Sequence[Factors]) -> dict[str, int]:
    """The layer of each target module, counted in the order in which the layers are met."""
    names: dict[str, int] = {}
    return {target: names.setdefault(layer_name(target), len(names)) for own in factors for target in own}


def deltas_from(
    factors: Sequence[Factors], coefficients: Float[Tensor, "adapters layers"]
) -> dict[str, Float[Tensor, "out in"]]:
    """Σ cₖₗ ΔWₖ of every target module in layer l. Gradients reach the coefficients."""
    deltas = {}
    for target, layer in layer_of(factors).items():
        parts = [(k, own[target]) for k, own in enumerate(factors) if target in own]
        b = torch.cat([coefficients[k, layer] * pair.b for k, pair in parts], 1)
        deltas[target] = b @ torch.cat([pair.a for _, pair in parts])
    return deltas


def weights_of(selection: Selection, setting: Setting) -> Float[Tensor, "adapters layers"]:
    """The weights that are set, the same in every layer."""
    layers = 1 + max(layer_of(selection.factors).values())
    return torch.tensor(setting.weights, dtype=torch.float32)[:, None].repeat(1, layers)


def learn(selection: Selection, groups: Sequence[Group], loss: Loss, word: str) -> Callable[[Setting], Merged]:
    """The merge that goes down the sum of the groups' losses by AdamW, with the knobs in `KNOBS`.

    `word` names the loss where its progress is told. What is told after a step is the loss before it.
    """
    sight = sight_of(selection)
    device = sight.backbone.device
    factors = [placed(own, device) for own in selection.factors]

    def merge(setting: Setting) -> Merged:
        weights = weights_of(selection, setting).to(device)
        layers = torch.full_like(weights, len(weights) ** -setting.knobs["start"]).requires_grad_()
        optimizer = torch.optim.AdamW([layers], lr=setting.knobs["rate"], weight_decay=0)
        # Each group draws from the same seed, so that the order of the adapters changes nothing.
        draws = [torch.Generator().manual_seed(setting.seed) for _ in groups]
        steps = round(setting.knobs["steps"])
        for step in range(steps):
            optimizer.zero_grad()
            total = 0.0
            for group, draw in zip(groups, draws, strict=True):
                rows = torch.randperm(len(group.pixels), generator=draw)[: round(setting.knobs["images"])]
                total += _backward(loss, deltas_from(factors, weights * layers), group, group.pixels[rows])
            optimizer.step()
            sight.tell((step + 1) / steps, f"{word} {total:.4f}")
        found = layers.detach()
        return Merged(deltas_from(factors, weights * found), layers=found.cpu())

    return torch.enable_grad()(merge)


def _backward(loss: Loss, deltas: Deltas, group: Group, pixels: Float[Tensor, "B 3 H W"]) -> float:
    # One group at a time, so that only the activations of one mini-batch are held.
    part = loss(deltas, group.adapters, pixels)
    if part.requires_grad:  # an adapter of the first layer alone sees nothing that a factor changes
        part.backward()
    return part.item()
