"""What an adapter's training images looked like from the inside, so that methods can use them without the images.

The Gram matrices of the inputs of the key and value projections are those that RegMean needs (Jin et al. 2023, arXiv
2212.09849): G = XᵀX / n over n tokens, one per layer, since key and value share their input. On disk is the lower triangle L of
its Cholesky factor, divided by the root of the mean diagonal, in float16: LLᵀ has no negative eigenvalue, however L is rounded.
Files of earlier versions hold the upper half of G itself, which rounding may have made indefinite; what is read from them is
the nearest matrix that is not. The class means of the pooled feature serve to tell images of another kind.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Backbone, Deltas
from lora_lab.data import Crops
from lora_lab.errors import DataError
from lora_lab.gram import factored, positive
from lora_lab.tasks import Task

IMAGES = 512
BATCH = 32


@dataclass(frozen=True, eq=False)
class Statistics:
    """Gram matrices (D, D) by the module that holds key and value, and means (classes, D) of the pooled feature."""

    grams: Mapping[str, Float[Tensor, "D D"]]
    class_means: Float[Tensor, "classes D"]

    def by_target(self, targets: Iterable[str]) -> dict[str, Float[Tensor, "D D"]]:
        """The Gram matrix of each target module's inputs; key and value of a layer share theirs."""
        return {target: self.grams[target.rpartition(".")[0]] for target in targets}

    def packed(self) -> dict[str, Tensor]:
        """As it is stored: each Cholesky factor scaled and in float16, with its scale."""
        tensors = {"class_means": self.class_means.half()}
        for name, gram in self.grams.items():
            scale = float(gram.diagonal().mean()) or 1.0
            lower, _ = factored(positive(gram).double() / scale)
            rows, columns = torch.tril_indices(*gram.shape)
            tensors[f"root.{name}"] = lower[rows, columns].half()
            tensors[f"scale.{name}"] = torch.tensor([scale])
        return tensors

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor]) -> "Statistics":
        """From what `packed` gives, or gave in earlier versions. Raises `DataError` for values that are not finite."""
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise DataError(f"the statistics hold values that are not finite in {name}: write them again")
        means = tensors["class_means"].float()
        width = means.shape[1] if means.ndim == 2 else 0
        halves = [name for name in tensors if _is_half(name)]
        wrong = [name for name in halves if tensors[name].shape != (width * (width + 1) // 2,)]
        wrong += [name for name in halves if f"scale.{name.partition('.')[2]}" not in tensors]
        if wrong:
            raise DataError(f"the statistics hold no half of a matrix of width {width}, or no scale of it, for {wrong[0]}")
        return cls(_Unpacked(tensors, means.shape[1]), means)


def _is_half(name: str) -> bool:
    return name.partition(".")[0] in ("root", "gram")


class _Unpacked(Mapping[str, Tensor]):
    """Gram matrices that are made from what is stored when they are first asked for, since few methods ask."""

    def __init__(self, tensors: Mapping[str, Tensor], width: int):
        halves = (name.partition(".") for name in tensors if _is_half(name))
        self._kinds = {place: kind for kind, _, place in halves}
        self._made: Callable[[str], Tensor] = cache(lambda place: self._make(tensors, place, width))

    def __getitem__(self, place: str) -> Tensor:
        return self._made(place)

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def _make(self, tensors: Mapping[str, Tensor], place: str, width: int) -> Float[Tensor, "D D"]:
        kind = self._kinds[place]
        rows, columns = torch.tril_indices(width, width) if kind == "root" else torch.triu_indices(width, width)
        half = torch.zeros(width, width)
        half[rows, columns] = tensors[f"{kind}.{place}"].float()
        scale = tensors[f"scale.{place}"].float()
        return scale * (half @ half.T) if kind == "root" else positive(scale * (half + half.triu(1).T))


def balanced_rows(task: Task, targets: np.ndarray, count: int = IMAGES) -> np.ndarray:
    """At most `count` images, as many of each class as there are; for a number or points any, the same each time."""
    order = np.random.default_rng(0).permutation(len(targets))
    if task.kind != "classes":
        return np.sort(order[:count])
    place = np.empty(len(targets), np.int64)  # first of its class, second of its class, …
    for label in np.unique(targets):
        own = order[targets[order] == label]
        place[own] = np.arange(len(own))
    return np.sort(order[np.argsort(place[order], kind="stable")][:count])


@torch.no_grad()
def collect(backbone: Backbone, deltas: Deltas, task: Task, crops: Crops) -> Statistics:
    """The statistics of these images on the backbone with an adapter's deltas."""
    keys = {target.rpartition(".")[0]: target for target in reversed(backbone.target_modules)}
    places = {target: place for place, target in reversed(keys.items())}
    grams = {place: torch.zeros(backbone.width, backbone.width, device=backbone.device) for place in places.values()}
    tokens = 0

    def see(target: str, inputs: Float[Tensor, "B T D"]) -> None:
        flat = inputs.flatten(0, 1).float()
        grams[places[target]].addmm_(flat.T, flat)

    pooled = []
    images = crops.centre(backbone.image_size)
    for start in range(0, len(images), BATCH):
        pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).permute(0, 3, 1, 2)
        features = backbone.watch(backbone.normalise(pixels.to(backbone.device).float() / 255), deltas, tuple(places), see)
        pooled.append(features.pooled)
        tokens += features.patches.shape[0] * (features.patches.shape[1] + 1)
    return Statistics(
        {place: gram.cpu() / tokens for place, gram in grams.items()}, _class_means(task, crops, torch.cat(pooled))
    )


def nearness(pooled: Float[Tensor, "n D"], class_means: Float[Tensor, "classes D"]) -> Float[Tensor, "n"]:
    """The largest cosine of each pooled feature with a class mean."""
    return torch.nn.functional.cosine_similarity(pooled[:, None], class_means.to(pooled.device)[None], dim=2).amax(1)


def _class_means(task: Task, crops: Crops, pooled: Float[Tensor, "n D"]) -> Float[Tensor, "classes D"]:
    if task.kind != "classes":
        return pooled.mean(0, keepdim=True).cpu()
    labels = torch.from_numpy(crops.targets).to(pooled.device)
    return torch.stack([pooled[labels == label].mean(0) for label in labels.unique()]).cpu()
