"""IterIS: layer by layer, the one weight that best gives each adapter's own outputs from the merged model's inputs.

Source: Chen et al. 2024, "IterIS: Iterative Inference-Solving Alignment for LoRA Merging" (arXiv 2411.15231). Each layer
minimises Σ λₖ‖Xₖ Wₖᵀ − X̃ₖ Wᵀ‖² with λₖ = ‖Wₖ‖²/‖Xₖ Wₖᵀ‖², Xₖ being the layer's inputs under adapter k alone and X̃ₖ those of the
merged model on the same images. The target is W₀ + wₖ ΔWₖ, which is the objective's own, or wₖ ΔWₖ alone, as the authors'
code has it by default. Ours differs in that one pass from the first layer to the last takes the place of their rounds, since
that is the rounds' fixed point; in a ridge towards W₀ (towards 0 for the second target) in the place of their regularised Gram
matrices; and in `emphasis`: passes after the first weigh each adapter's term by how far the pooled feature of the pass
before had drifted from that adapter's own, so that what suffers most gets more.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_lab.backbones import Backbone, Deltas
from lora_lab.gram import solve_spd
from lora_lab.lora import Factors, deltas_of
from lora_lab.merging.base import Knob, Merge, Merged, MergeMethod, Selection, Setting, Sight
from lora_lab.merging.layer_by_layer import Seen, layer_by_layer, needed_sight

CHUNK = 64


def prepare(selection: Selection) -> Merge:
    """Nothing is worth keeping: what a layer sees depends on the weights."""
    sight = needed_sight(selection, METHOD.title)

    def merge(setting: Setting) -> Merged:
        shares = [1.0] * len(selection.names)
        deltas: Deltas = {}
        passes = int(setting.knobs["passes"])
        for place in range(passes):
            deltas = one_pass(sight.backbone, selection, setting, shares)
            if place + 1 < passes:
                drifts = drifted(selection, sight, setting, deltas)
                mean = sum(drifts) / len(drifts) or 1.0
                shares = [
                    share * (drift / mean) ** setting.knobs["emphasis"] for share, drift in zip(shares, drifts, strict=True)
                ]
        return Merged(deltas)

    return merge


def one_pass(backbone: Backbone, selection: Selection, setting: Setting, shares: Sequence[float]) -> Deltas:
    """Deltas from one pass through the layers, each adapter's term multiplied by its share."""
    full = setting.knobs["target"] == 1

    def solve(target: str, seen: Sequence[Seen]) -> Tensor:
        return solved(backbone.weight(target).cpu().double(), target, selection.factors, seen, (setting, shares, full))

    return layer_by_layer(selection, int(setting.knobs["images"]), True, solve)


def solved(
    base: Tensor, target: str, many: Sequence[Factors], seen: Sequence[Seen], how: tuple[Setting, Sequence[float], bool]
) -> Tensor:
    """ΔW (out, in) that is best for these inputs."""
    setting, shares, full = how
    right, gram = torch.zeros_like(base), torch.zeros_like(seen[0].merged)
    for factors, weight, share, one in zip(many, setting.weights, shares, seen, strict=True):
        delta = weight * factors[target].delta().double() if target in factors else torch.zeros_like(base)
        own = base + delta
        size = torch.einsum("oi,ij,oj->", own, one.own, own)
        scale = share * own.square().sum() / size if size > 0 else 0.0  # inputs of zeros ask for nothing
        gram += scale * one.merged
        # Solved for ΔW: with the full target, W₀ X̃ is what the base gives already.
        right += scale * (own @ one.cross - base @ one.merged if full else delta @ one.cross)
    return solve_spd(gram, right, setting.knobs["ridge"])


@torch.no_grad()
def drifted(selection: Selection, sight: Sight, setting: Setting, deltas: Deltas) -> list[float]:
    """For each adapter, how far the merged pooled feature is from its own, in shares of its own's variance."""
    found = []
    for name, factors, weight in zip(selection.names, selection.factors, setting.weights, strict=True):
        own_deltas = {target: weight * delta for target, delta in deltas_of(factors).items()}
        parts = sight.pixels[name][: int(setting.knobs["images"])].split(CHUNK)
        own, merged = (torch.cat([sight.backbone.encode(part, d).pooled for part in parts]) for d in (own_deltas, deltas))
        # Of one picture, or of several that are alike, there is no variance to measure against.
        variance = float(own.var(0).mean()) if len(own) > 1 else 0.0
        found.append(float((merged - own).square().mean()) / (variance or 1.0))
    return found


METHOD = MergeMethod(
    name="iteris",
    title="IterIS",
    family="activations",
    paper="arXiv 2411.15231",
    summary="Solves layer by layer for the weight that gives each adapter's own outputs from what the merged layers hand on.",
    prepare=prepare,
    needs="images",
    knobs=(
        Knob("target", "Target with W₀", 1, 0, 1, "1: W₀ + ΔW of each adapter; 0: ΔW alone", (1, 0), 1),
        Knob("ridge", "Ridge", 1e-4, 1e-8, 1, "pulls towards W₀, in shares of the Gram matrix's mean diagonal"),
        Knob("passes", "Passes", 1, 1, 4, "passes through the layers; the later ones weigh up what has drifted", (1, 2), 1),
        Knob("emphasis", "Emphasis", 1, 0, 3, "the power of the drift by which later passes weigh an adapter"),
        Knob("images", "Images", 96, 8, 1024, "images an adapter that are looked at", (), 8),
    ),
    laws=frozenset(("order", "factors", "seed")),
)
