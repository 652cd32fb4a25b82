"""A slider that moves: the sum of the adapters that stay is kept, W₀ with it, and only what moves is added anew."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.adapters import Adapter
from lora_lab.backbones import Deltas, QuickDeltas
from lora_lab.merger import Merger
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.recent import Recent

Weights = Mapping[str, Float[Tensor, "out in"]]


@dataclass(frozen=True, eq=False)
class MovedSum(QuickDeltas):
    """The deltas of a sum in which one adapter moves.

    `originals` are W₀ of the target modules, `stays` the same with all other adapters added, `moves` the delta of the one
    that moves, at weight 1; all in float32.
    """

    originals: Weights
    stays: Weights
    moves: Deltas
    weight: float

    def __getitem__(self, target: str) -> Tensor:
        return self._moved(target) - self.originals[target]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stays)

    def __len__(self) -> int:
        return len(self.stays)

    def weights(self, dtype: torch.dtype) -> dict[str, Tensor]:
        return {target: self._moved(target).to(dtype) for target in self.stays}

    def _moved(self, target: str) -> Tensor:
        stays, delta = self.stays[target], self.moves.get(target)
        return stays if delta is None or not self.weight else torch.add(stays, delta, alpha=self.weight)


class Sliders:
    """What each person's sliders showed last, and the sums that they are likely to need next. Safe from several threads."""

    def __init__(self, merger: Merger, adapter: Callable[[str, int], Adapter]):
        self._merger, self._adapter = merger, adapter
        self._last = Recent[Hashable, MergeRecipe](64)
        self._stays = Recent[tuple, Weights](8)

    def moved(self, recipe: MergeRecipe, session: Hashable) -> MovedSum | None:
        """The deltas of a session's recipe, where all that has changed since its last is one weight of an exact sum.

        The sum of those that stay is always made from the factors, so that nothing drifts.
        """
        last = self._last.swap(session, recipe)
        moved = one_moved(last, recipe)
        if moved is None or recipe.method != "exact" or recipe.repair or any(a.layers for a in recipe.adapters):
            return None
        stay = tuple(a for a in recipe.adapters if a.weight and a.name != moved.name)
        members = tuple((self._adapter(a.name, a.rank), a.weight) for a in stay)
        serving = self._merger.serving
        originals = {target: serving.weight(target).detach() for target in serving.target_modules}

        def add_up() -> Weights:
            deltas = self._merger.merged(recipe.model_copy(update={"adapters": stay})).deltas if stay else {}
            return {target: weight + deltas[target] if target in deltas else weight for target, weight in originals.items()}

        stays = self._stays.get(members, add_up)
        return MovedSum(originals, stays, self._merger.delta_of(self._adapter(moved.name, moved.rank)), moved.weight)


def one_moved(last: MergeRecipe | None, now: MergeRecipe) -> RecipeAdapter | None:
    """The one adapter whose weight has changed; taking one in or out is a move from or to weight 0."""
    if last is None:
        return None
    before = {a.name: (a.rank, a.weight) for a in last.adapters}
    changed = [a for a in now.adapters if before.pop(a.name, (a.rank, 0.0)) != (a.rank, a.weight)]
    gone = [name for name, (_, weight) in before.items() if weight]
    return changed[0] if len(changed) == 1 and not gone else None
