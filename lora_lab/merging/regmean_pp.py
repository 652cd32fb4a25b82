"""RegMean++: RegMean, each layer's Gram matrices taken in the model whose lower layers are merged already.

Source: Nguyen et al. 2025, "RegMean++: Enhancing Effectiveness and Generalization of Regression Mean for Model Merging"
(arXiv 2508.03121). Ours merges deltas in the place of weights, so that an adapter's weight scales what it adds to W₀, and only
the key and value projections.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_lab.gram import solve_spd
from lora_lab.merging.base import Knob, Merge, Merged, MergeMethod, Selection, Setting
from lora_lab.merging.layer_by_layer import Seen, layer_by_layer, needed_sight

RIDGE = 1e-6


def prepare(selection: Selection) -> Merge:
    """Nothing is worth keeping: what a layer sees depends on the weights."""
    needed_sight(selection, METHOD.title)

    def merge(setting: Setting) -> Merged:
        def solve(target: str, seen: Sequence[Seen]) -> Tensor:
            gram, right = torch.zeros_like(seen[0].merged), torch.zeros(())
            for factors, weight, one in zip(selection.factors, setting.weights, seen, strict=True):
                own = shrunk(one.merged, setting.knobs["shrink"])
                gram += own
                if target in factors:
                    right = right + weight * factors[target].delta().double() @ own
            return solve_spd(gram, right, RIDGE)

        return Merged(layer_by_layer(selection, int(setting.knobs["images"]), False, solve))

    return merge


def shrunk(gram: Tensor, share: float) -> Tensor:
    """A Gram matrix (n, n) with its off-diagonal entries times `share`."""
    return share * gram + (1 - share) * torch.diag(gram.diagonal())


METHOD = MergeMethod(
    name="regmean_pp",
    title="RegMean++",
    family="activations",
    paper="arXiv 2508.03121",
    summary="RegMean from the first layer to the last, each looking at what the merged layers below hand to it.",
    prepare=prepare,
    needs="images",
    knobs=(
        Knob(
            "shrink", "Off-diagonals", 0.95, 0, 1, "off-diagonal entries of the Gram matrices times this", (0.8, 0.9, 0.95, 1.0)
        ),
        Knob("images", "Images", 96, 8, 1024, "images an adapter that are looked at", (), 8),
    ),
    laws=frozenset(("order", "factors", "seed")),
)
