"""Merges on disk: what took images to make, kept so that it needs none again, and sliders still move it.

A saved merge is a merge method of its own. At the weights it was made with it gives its deltas as they are. A moved slider
adds or takes away the adapter's part as RegMean has it, (wₖ − w⁰ₖ) ΔWₖ Gₖ (Σ G)⁻¹, since the plain ΔWₖ would also undo what the
others rely on. Its mends stay as they were fitted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_lab.adapters import Adapter
from lora_lab.backbones import Deltas
from lora_lab.cache import cache_folder, whole_file
from lora_lab.errors import DataError, MismatchError
from lora_lab.lora import Factors, LoraFactors
from lora_lab.merging import Merge, Merged, MergeMethod, MergeRecipe, Selection, Setting, regmean
from lora_lab.records import Frozen
from lora_lab.repairs import REPAIRS, Mend

PREFIX = "saved:"
SAVED = Path(__file__).parent.parent / "pretrained_merges"
CARD, TENSORS = "merge.json", "merge.safetensors"


class MergeCard(Frozen):
    """What a saved merge is: the recipe that it was made from, the adapters' fingerprint, and what images it has seen."""

    name: str
    title: str
    recipe: MergeRecipe
    fingerprint: str
    images: str
    seconds: float
    commit: str | None = None


@dataclass(frozen=True, eq=False)
class SavedMerge:
    """Deltas by target module, each adapter's part as factors, and mends by task; in half precision on disk."""

    card: MergeCard
    deltas: Deltas
    parts: Mapping[str, Factors]
    mends: Mapping[str, Mend] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it; what is read back is rounded to float16."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"delta.{target}": delta for target, delta in self.deltas.items()}
        for name, factors in self.parts.items():
            tensors |= {f"{side}.{name}.{at}": getattr(pair, side) for at, pair in factors.items() for side in "ab"}
        for task, mend in self.mends.items():
            tensors |= {f"mend.{task}.{name}": tensor for name, tensor in mend.state_dict().items()}
        with whole_file(folder / TENSORS) as part:
            save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, part)
        with whole_file(folder / CARD) as part:
            part.write_text(self.card.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "SavedMerge":
        """Read it. Raises `DataError`."""
        try:
            card = MergeCard.model_validate(json.loads((folder / CARD).read_text(encoding="utf-8")))
            tensors = {name: tensor.float() for name, tensor in load_file(folder / TENSORS).items()}
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(f"{folder} holds no merge that can be read: {str(error).splitlines()[0]}") from error
        deltas: dict[str, Tensor] = {}
        sides: dict[tuple[str, str], dict[str, Tensor]] = {}
        mends: dict[str, Mend] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            owner, _, place = rest.partition(".")
            if kind == "delta":
                deltas[rest] = tensor
            elif kind == "mend" and card.recipe.repair:
                mends.setdefault(owner, REPAIRS[card.recipe.repair].mend()).keep(**{place: tensor})
            else:
                sides.setdefault((owner, place), {})[kind] = tensor
        parts: dict[str, dict[str, LoraFactors]] = {}
        for (owner, target), pair in sides.items():
            parts.setdefault(owner, {})[target] = LoraFactors(**pair)
        return cls(card, deltas, parts, mends)

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
            summary=f"Made beforehand from images ({self.card.images}); it needs none, and the sliders move it.",
            prepare=self._prepare,
            laws=frozenset(("order", "seed")),
        )

    def _prepare(self, selection: Selection) -> Merge:
        before = {a.name: a.weight for a in self.card.recipe.adapters}
        strange = [name for name in selection.names if name not in before]
        if strange:
            raise MismatchError(
                f"{self.card.title} knows {', '.join(before)}, and not {', '.join(strange)}: take another method"
            )

        def merge(setting: Setting) -> Merged:
            now = dict(zip(selection.names, setting.weights, strict=True))
            deltas = dict(self.deltas)
            for name, factors in self.parts.items():
                moved = now.get(name, 0.0) - before[name]
                if moved:
                    for target, pair in factors.items():
                        deltas[target] = torch.addmm(deltas[target], pair.b, pair.a, alpha=moved)
            return Merged(deltas)

        return merge


def slider_parts(members: Sequence[Adapter]) -> dict[str, Factors]:
    """What a moved slider adds or takes away, by adapter: RegMean's factors, or the plain ones where statistics lack."""
    statistics = [member.statistics for member in members]
    if any(one is None for one in statistics):
        return {member.name: member.factors for member in members}
    grams = [one.by_target(member.factors) for one, member in zip(statistics, members, strict=True) if one]
    selection = Selection([member.name for member in members], [member.factors for member in members], grams)
    return dict(zip(selection.names, regmean.parts(selection), strict=True))


def own_folder(backbone: str) -> Path:
    """Where a user's own merges of a backbone lie."""
    return cache_folder("merges") / backbone.replace("/", "--")


def saved_merges(backbone: str) -> dict[str, SavedMerge]:
    """The saved merges of a backbone by name, those that come with LoRA Lab first."""
    roots = (SAVED / backbone, own_folder(backbone))
    folders = [path.parent for root in roots for path in sorted(root.glob(f"*/{CARD}"))]
    return {merge.card.name: merge for merge in map(SavedMerge.load, folders)}
