"""Merges on disk: what took images to make, kept so that it needs none again.

A saved merge is a merge method of its own, which gives its deltas and mends as they were made. Weights do not move it: what one
adapter has in it cannot be taken out again, since the others have come to rely on it. (Taking away the adapter's part as
RegMean has it broke every other face task.)
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_lab.backbones import Deltas
from lora_lab.bundled import bundled
from lora_lab.cache import cache_folder, small_text, whole_file, whole_folder
from lora_lab.cards import Calibration, cards_below, warn
from lora_lab.errors import DataError, LoraLabError, MismatchError
from lora_lab.merging import Merged, MergeMethod, MergeRecipe
from lora_lab.merging.recipe import faults
from lora_lab.names import PREFIX, MergeName, folder_of, is_name
from lora_lab.records import Frozen
from lora_lab.repairs import REPAIRS, Mend

T = TypeVar("T")
SAVED = bundled("pretrained_merges")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
CARD, TENSORS = "merge.json", "merge.safetensors"


class MergeCard(Frozen):
    """What a saved merge is: the recipe that it was made from, the adapters' fingerprint, and what images it has seen.

    `calibration` says by adapter how sure its answers may be, where that was fitted on val outputs of this very merge.
    """

    name: MergeName
    title: str
    recipe: MergeRecipe
    fingerprint: str
    images: str
    seconds: float
    commit: str | None = None
    calibration: dict[str, Calibration] = Field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SavedMerge:
    """Deltas by target module and mends by task, in half precision on disk."""

    card: MergeCard
    deltas: Deltas
    mends: Mapping[str, Mend] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it; what is read back is rounded to float16."""
        tensors = {f"delta.{target}": delta for target, delta in self.deltas.items()}
        for task, mend in self.mends.items():
            tensors |= {f"mend.{task}.{name}": tensor for name, tensor in mend.state_dict().items()}
        halves = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
        if not all(half.isfinite().all() for half in halves.values()):
            raise LoraLabError("the merge has values beyond 65504, the most that is kept: take smaller weights")
        with whole_folder(folder) as part:
            save_file(halves, part / TENSORS)
            write_merge_card(self.card, part)

    @classmethod
    def load(cls, folder: Path) -> "SavedMerge":
        """Read it. Raises `DataError`."""
        card = read_merge_card(folder)
        try:
            tensors = {name: tensor.float() for name, tensor in load_file(folder / TENSORS).items()}
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(f"{folder} holds no merge that can be read: {str(error).splitlines()[0]}") from error
        endless = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        if endless:
            raise DataError(f"{folder} holds values that are not finite in {endless[0]}: make the merge anew")
        deltas: dict[str, Tensor] = {}
        mends: dict[str, Mend] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            task, _, place = rest.partition(".")
            if kind == "delta":
                deltas[rest] = tensor
            elif card.recipe.repair:
                mends.setdefault(task, REPAIRS[card.recipe.repair].mend()).keep(**{place: tensor})
        return cls(card, deltas, mends)

    @property
    def recipe(self) -> MergeRecipe:
        """What brings it back, at the weights that it was made with."""
        return self.card.recipe.model_copy(update={"method": PREFIX + self.card.name, "knobs": {}, "repair": None})

    @property
    def method(self) -> MergeMethod:
        """It as a merge method, under the name "saved:" and its own."""
        return MergeMethod(
            name=PREFIX + self.card.name,
            title=self.card.title,
            family="saved",
            paper="ours",
            summary=f"Made beforehand from images ({self.card.images}), so that it needs none.",
            prepare=lambda selection: lambda setting: Merged(self.deltas),
            laws=frozenset(("order", "seed")),
            refuses=frozenset(("weights",)),
        )

    def check(self, recipe: MergeRecipe) -> None:
        """Raises `MismatchError` for adapters that it was not made of."""
        known = [f"{a.name}:r{a.rank}" for a in self.card.recipe.adapters]
        strange = [name for a in recipe.adapters if (name := f"{a.name}:r{a.rank}") not in known]
        if strange:
            told = f"{self.card.title} knows {', '.join(known)}, and not {', '.join(strange)}: take another method"
            raise MismatchError(told)

    def is_at(self, recipe: MergeRecipe) -> bool:
        """Whether a recipe's adapters stand as they did when it was made; some may be left out."""
        made = {(a.name, a.rank, a.weight) for a in self.card.recipe.adapters}
        return all((a.name, a.rank, a.weight) in made for a in recipe.adapters)


def check_name(name: str) -> str:
    """A name that may be a folder's. Raises `LoraLabError`."""
    if not (NAME.fullmatch(name) and is_name(name)):
        raise LoraLabError(f"{name!r} is no name: take at most 40 letters a to z, digits, - and _, such as my-photos")
    return name


def own_folder(backbone: str) -> Path:
    """Where a user's own merges of a backbone lie."""
    return cache_folder("merges") / folder_of(backbone)


def write_merge_card(card: MergeCard, folder: Path) -> None:
    """Put a card beside a merge, in place of the one there."""
    with whole_file(folder / CARD) as part:
        part.write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_merge_card(folder: Path) -> MergeCard:
    """The card alone, without the tensors. Raises `DataError`."""
    try:
        card = MergeCard.model_validate_json(small_text(folder / CARD))
    except ValidationError as error:
        raise DataError(f"{folder} holds no merge that can be read: {faults(error)}") from error
    if card.name != folder.name:
        raise DataError(f"{folder} holds a merge of another name, {card.name}: give the folder that name")
    return card


def saved_merges(backbone: str) -> dict[str, SavedMerge]:
    """The saved merges of a backbone by name; of two that share one, a user's own. Those that cannot be read are left out."""
    return {merge.card.name: merge for merge in _readable(_roots(backbone), SavedMerge.load)}


def saved_in(root: Path) -> dict[str, SavedMerge]:
    """Those in one folder, by name."""
    return {merge.card.name: merge for merge in _readable((root,), SavedMerge.load)}


def merge_cards(backbone: str) -> dict[str, MergeCard]:
    """Their cards alone, by name."""
    return {card.name: card for card in _readable(_roots(backbone), read_merge_card)}


def _roots(backbone: str) -> tuple[Path, ...]:
    return SAVED / folder_of(backbone), own_folder(backbone)


def _readable(roots: Iterable[Path], read: Callable[[Path], T]) -> Iterator[T]:
    # One that is broken makes the others no worse, so it costs a warning and not the lab.
    for root in roots:
        for path in cards_below(root, f"*/{CARD}"):
            try:
                yield read(path.parent)
            except LoraLabError as error:
                warn(f"{error}; it is left out")
