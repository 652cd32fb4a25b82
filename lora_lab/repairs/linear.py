"""Linear repairs: the adapter's own pooled feature from the merged model's, by ridge regression in closed form.

A closed form of Representation Surgery (Yang et al. 2024, arXiv 2402.02705): no labels, no steps. The first reads the pooled
feature alone. The second, which is ours, also reads the patch tokens, averaged over each cell of a grid, since a merge leaves
in them much of what it drives out of the class token. Both are kept to the directions in which the adapter's own features vary
most, and the ridge is chosen on a fifth of the images that the fit has not seen.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Features
from lora_lab.errors import LoraLabError
from lora_lab.repairs.base import Damage, Mend, Repair

RIDGES = tuple(10.0**power for power in (-4, -3, -2, -1, 0, 1))
HELD_OUT, FEWEST = 5, 4
DIRECTIONS = 64
CELLS = 4


class LinearMend(Mend):
    """z → (x − x̄) U V + z̄, x being what is read of the features: the pooled token, and cells of patches if `cells` is not 0."""

    def forward(self, features: Features) -> Features:
        read = reading(features, int(self.cells))  # type: ignore[arg-type]
        pooled = (read - self.centre) @ self.reduce @ self.expand + self.target  # type: ignore[operator]
        return Features(pooled, features.patches)


def reading(features: Features, cells: int) -> Float[Tensor, "B inputs"]:
    """The pooled token, and beside it the mean of the patch tokens in each of cells × cells, if there are any.

    Each block is divided by the root of its number of cells, so that no block weighs more for having more numbers.
    """
    if not cells:
        return features.pooled
    side = round(features.patches.shape[1] ** 0.5)
    grid = features.patches.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    blocks = [torch.nn.functional.adaptive_avg_pool2d(grid, count).flatten(1) / count for count in (1, cells)]
    return torch.cat([features.pooled, *blocks], 1)


def fit(damage: Damage, cells: int) -> Mend:
    """The mend of a task."""
    read, own = reading(damage.merged, cells).cpu().double(), damage.alone.cpu().double()
    if len(own) < FEWEST:
        raise LoraLabError(
            f"a linear repair of {damage.head.task.name} needs {FEWEST} images, and there are {len(own)}: give more"
        )
    order = torch.randperm(len(own), generator=torch.Generator().manual_seed(damage.seed))
    held = order[: max(1, len(order) // HELD_OUT)]
    learned = order[len(held) :]
    errors = Ridge(read[learned], own[learned]).errors(read[held], own[held])
    best = Ridge(read, own)
    weights = best.weights(RIDGES[int(torch.tensor(errors).argmin())])
    reduce, expand = reduced(read - best.centre, weights)
    mend = LinearMend()
    mend.keep(centre=best.centre, target=best.target, reduce=reduce, expand=expand, cells=torch.tensor(cells))
    return mend


class Ridge:
    """Ridge regression of Y (n, outputs) on X (n, inputs), whose one decomposition serves every ridge."""

    def __init__(self, x: Float[Tensor, "n inputs"], y: Float[Tensor, "n outputs"]):
        self.centre, self.target = x.mean(0), y.mean(0)
        self._x, self._y = x - self.centre, y - self.target
        self._wide = x.shape[1] > x.shape[0]
        gram = self._x @ self._x.T if self._wide else self._x.T @ self._x
        self._values, self._vectors = torch.linalg.eigh(gram)
        self._scale = self._values.sum() / len(x)

    def weights(self, ridge: float) -> Float[Tensor, "inputs outputs"]:
        """The regression at a ridge in shares of the inputs' variance."""
        damped = self._vectors / (self._values.clamp(min=0) + ridge * self._scale)
        if self._wide:
            return self._x.T @ (damped @ (self._vectors.T @ self._y))
        return damped @ (self._vectors.T @ (self._x.T @ self._y))

    def errors(self, x: Float[Tensor, "m inputs"], y: Float[Tensor, "m outputs"]) -> list[float]:
        """The mean squared error on other images at each ridge."""
        found = ((x - self.centre) @ self.weights(ridge) + self.target - y for ridge in RIDGES)
        return [float(error.square().mean()) for error in found]


def reduced(x: Float[Tensor, "n inputs"], weights: Float[Tensor, "inputs outputs"]) -> tuple[Tensor, Tensor]:
    """Factors (inputs, k) and (k, outputs) of a regression, kept to the directions in which its answers vary most."""
    _, _, directions = torch.linalg.svd(x @ weights, full_matrices=False)
    kept = directions[:DIRECTIONS]
    return weights @ kept.T, kept


LINEAR = Repair(
    name="linear",
    title="Linear repair",
    paper="closed form of arXiv 2402.02705",
    summary="Maps the merged pooled feature to the adapter's own by ridge regression on images without labels.",
    needs="images",
    fit=lambda damage: fit(damage, 0),
    mend=LinearMend,
)
PATCHES = Repair(
    name="patches",
    title="Linear repair with patches",
    paper="ours",
    summary="The linear repair, which also reads the patch tokens, averaged over a 4 × 4 grid and over all.",
    needs="images",
    fit=lambda damage: fit(damage, CELLS),
    mend=LinearMend,
)
