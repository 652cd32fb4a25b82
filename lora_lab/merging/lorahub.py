"""One weight for each adapter, sought without gradients on a few labelled images.

Source: Huang et al. 2023, "LoraHub: Efficient Cross-Task Generalization via Dynamic LoRA Composition" (arXiv 2307.13269):
a gradient-free search over weights in ±1.5 that minimises the loss on a few examples + 0.05 · mean |w|.

Ours differs in four ways. LoraHub composes for one new task, ours for the adapters' own tasks: the loss is the mean over
them, each divided by that of its adapter alone, so that tasks of other scales count alike. The search begins at the weights
that are set, not at 0. It adds up the deltas, not A and B apart. And it is COBYQA, scipy's quadratic model in a trust region,
which ended lower after 40 evaluations than an evolution strategy did on smooth made-up losses of two, three and six weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from scipy.optimize import Bounds, minimize
from torch import Tensor

from lora_lab.backbones import Backbone, Deltas
from lora_lab.errors import LoraLabError
from lora_lab.merging.base import Knob, Merge, Merged, MergeMethod, Selection, Setting
from lora_lab.merging.layerwise import deltas_from, groups_of, sight_of, weights_of
from lora_lab.tasks import Head

WIDEST = 1.5
PENALTY = 0.05
FIRST_RADIUS, LAST_RADIUS = 0.3, 0.005
SMALLEST_LOSS = 1e-6

TRIALS = Knob("trials", "Trials", default=40, low=1, high=400, meaning="How many weights are tried.", tried=(20, 40), step=1)
IMAGES = Knob(
    "images",
    "Images a task",
    default=16,
    low=1,
    high=200,
    meaning="How many labelled images of each task every trial is judged on.",
    tried=(16,),
    step=1,
)


@dataclass(frozen=True, eq=False)
class Examples:
    """A few images that some adapters share, and each one's head and labels, by the adapter's place."""

    pixels: Float[Tensor, "n 3 H W"]
    heads: dict[int, Head]
    labels: dict[int, Shaped[Tensor, "n *target"]]

    @torch.no_grad()
    def losses(self, backbone: Backbone, deltas: Deltas) -> dict[int, float]:
        """Each head's loss on what one forward with these deltas gives."""
        features = backbone.encode(self.pixels, deltas)
        return {k: head.loss(head(features), self.labels[k]).item() for k, head in self.heads.items()}


def examples_of(selection: Selection, count: int, seed: int) -> list[Examples]:
    """At most `count` labelled images of each task, drawn by the seed. Raises `LoraLabError` where labels lack."""
    sight = sight_of(selection)
    lacking = [name for name in selection.names if name not in sight.labels or name not in sight.heads]
    if lacking:
        raise LoraLabError(f"no labels of {', '.join(lacking)}: add labelled images, or leave these adapters out")
    examples = []
    for group in groups_of(selection, range(len(selection.names))):
        rows = torch.randperm(len(group.pixels), generator=torch.Generator().manual_seed(seed))[:count]
        names = {k: selection.names[k] for k in group.adapters}
        heads = {k: sight.heads[name] for k, name in names.items()}
        examples.append(Examples(group.pixels[rows], heads, {k: sight.labels[name][rows] for k, name in names.items()}))
    return examples


def objective(selection: Selection, examples: Sequence[Examples]) -> Callable[[Float[np.ndarray, "adapters"]], float]:
    """Weights to the mean over tasks of loss / loss of the adapter alone, + 0.05 · mean |w|."""
    backbone, factors, names = sight_of(selection).backbone, selection.factors, selection.names
    layers = weights_of(selection, Setting([1.0] * len(names))).shape[1]

    def losses(which: Examples, weights: Float[np.ndarray, "adapters"]) -> dict[int, float]:
        coefficients = torch.from_numpy(weights).float()[:, None].expand(-1, layers)
        return which.losses(backbone, deltas_from(factors, coefficients))

    alone = [{k: losses(which, np.eye(len(names))[k])[k] for k in which.heads} for which in examples]

    def value(weights: Float[np.ndarray, "adapters"]) -> float:
        shares = [
            loss / max(own[k], SMALLEST_LOSS)
            for which, own in zip(examples, alone, strict=True)
            for k, loss in losses(which, weights).items()
        ]
        return float(np.mean(shares) + PENALTY * np.abs(weights).mean())

    return value


def search(
    value: Callable[[Float[np.ndarray, "n"]], float],
    start: Float[np.ndarray, "n"],
    trials: int,
    tell: Callable[[float, str], None],
) -> Float[np.ndarray, "n"]:
    """The best weights of all that were tried, the start among them; what `tell` raises ends the search."""
    tried: list[tuple[float, Float[np.ndarray, "n"]]] = []

    def try_one(weights: Float[np.ndarray, "n"]) -> float:
        tried.append((value(weights), weights.copy()))
        tell(len(tried) / trials, f"best loss {min(one for one, _ in tried):.3f}")
        return tried[-1][0]

    options = {"maxfev": trials, "initial_tr_radius": FIRST_RADIUS, "final_tr_radius": LAST_RADIUS}
    minimize(try_one, start, method="COBYQA", bounds=Bounds(-WIDEST, WIDEST), options=options)
    return min(tried, key=lambda one: one[0])[1]


def merge(selection: Selection, setting: Setting) -> Merged:
    """The search from the weights that are set, as far as they lie in ±1.5."""
    examples = examples_of(selection, round(setting.knobs["images"]), setting.seed)
    start = np.clip(np.array(setting.weights, float), -WIDEST, WIDEST)
    found = search(objective(selection, examples), start, round(setting.knobs["trials"]), sight_of(selection).tell)
    weights = weights_of(selection, setting)
    layers = (torch.from_numpy(found).float()[:, None] / weights[:, :1]).expand_as(weights).contiguous()
    return Merged(deltas_from(selection.factors, weights * layers), layers=layers)


def prepare(selection: Selection) -> Merge:
    """Nothing beforehand: which images count is for the seed to say."""
    return lambda setting: merge(selection, setting)


METHOD = MergeMethod(
    name="lorahub",
    title="LoRAHub search",
    family="learned",
    paper="arXiv 2307.13269",
    summary="Tries weights, from those that are set, and keeps the ones with which a few labelled images come out best.",
    prepare=prepare,
    needs="labels",
    knobs=(TRIALS, IMAGES),
)
