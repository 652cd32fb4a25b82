"""From a recipe to a merged model: checks what is asked, prepares what a selection decides once, merges, and mends."""

import copy
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lora_lab.adapters import Adapter, calibrated, fingerprint, uncalibrated
from lora_lab.backbones import Backbone, Deltas, Features, joined
from lora_lab.cards import Calibration
from lora_lab.catalog import Catalog, unknown
from lora_lab.errors import LoraLabError, MismatchError, NotFoundError
from lora_lab.inference import MergedModel
from lora_lab.lora import deltas_of, scaled_by_layer
from lora_lab.merging import (
    MERGE_METHODS,
    Merge,
    Merged,
    MergeMethod,
    MergeRecipe,
    RecipeAdapter,
    Selection,
    Setting,
    Sight,
)
from lora_lab.provenance import commit
from lora_lab.recent import Recent, held_bytes
from lora_lab.repairs import REPAIRS, Damage, Mend
from lora_lab.saved_merges import MergeCard, SavedMerge, check_name, own_folder, saved_in, saved_merges
from lora_lab.tasks import TASKS, Head

PREPARED, PREPARED_BYTES = 4, 400_000_000
CHUNK = 64
PLACES = {name: place for place, name in enumerate(TASKS)}


class Merger:
    """Makes merged models of one backbone's adapters. Safe to use from several threads.

    `serving` is the backbone that forwards run on, `adapter` gives an adapter by name and rank.
    """

    def __init__(self, serving: Backbone, adapter: Callable[[str, int], Adapter]):
        self.serving, self._adapter = serving, adapter
        self._own = own_folder(serving.name)
        self.saved: dict[str, SavedMerge] = {merge.method.name: merge for merge in saved_merges(serving.name).values()}
        self._fingerprints = Recent[tuple[Adapter, ...], str](8)
        self._prepared = Recent[tuple, Merge](PREPARED, PREPARED_BYTES, held_bytes)
        self._looked = Recent[tuple, tuple[Sight, Merged]](1)
        self._alone = Recent[Adapter, Deltas](16)
        self._seen = Recent[tuple[int, int], tuple[Tensor, Deltas, Features]](16)

    def of(self, adapter: Callable[[str, int], Adapter], own: Path) -> "Merger":
        """The same for one who has adapters of their own, and whose saved merges lie in the folder `own`."""
        view = copy.copy(self)
        view._adapter, view._own = adapter, own
        view.saved = {merge.method.name: merge for merge in saved_in(own).values()} | self.saved
        return view

    @property
    def methods(self) -> Catalog[MergeMethod]:
        """All methods, the saved merges among them."""
        return Catalog("merge method", [*MERGE_METHODS.items(), *((name, one.method) for name, one in self.saved.items())])

    def merge(self, recipe: MergeRecipe, sight: Sight | None = None) -> MergedModel:
        """The model of a recipe. Raises `LoraLabError` and its children where the recipe asks what cannot be."""
        members = [self._adapter(a.name, a.rank) for a in recipe.adapters]
        merged = self.merged(recipe, sight, self.serving.dtype)
        taking_part = [a.name for a in recipe.adapters if a.weight]
        return MergedModel(
            self.serving,
            merged.deltas,
            self.heads(recipe),
            mends=self._mends(recipe, members, merged.deltas, sight),
            own=dict(zip(taking_part, merged.own, strict=bool(merged.own))),
        )

    def heads(self, recipe: MergeRecipe) -> dict[str, Head]:
        """The heads of a recipe by task, each as sure of its answers as was found for this very model.

        That is known of an adapter alone at weight 1 and of a saved merge with a calibration of its own. Elsewhere a head stays
        as sure as it is alone, and says that it is not calibrated.
        """
        taking_part = [a for a in recipe.adapters if a.weight]
        own = self.calibration(recipe)
        alone = len(taking_part) == 1 and is_plain(recipe, taking_part[0], self.methods[recipe.method])
        found: dict[str, Head] = {}
        for a in recipe.adapters:
            member = self._adapter(a.name, a.rank)
            if a.name in own:
                found[member.card.task] = calibrated(member.head, own[a.name])
            else:
                found[member.card.task] = member.head if alone and a.weight else uncalibrated(member.head)
        return found

    def calibration(self, recipe: MergeRecipe) -> Mapping[str, Calibration]:
        """How sure the answers of a saved merge may be, by adapter, where that was fitted on it; nothing for other merges."""
        saved = self.saved.get(recipe.method)
        return saved.card.calibration if saved and self.of_these(saved) and any(a.weight for a in recipe.adapters) else {}

    def of_these(self, saved: SavedMerge) -> bool:
        """Whether a saved merge was made of the very adapters that are here, and not of others of the same names."""
        try:
            members = tuple(self._adapter(a.name, a.rank) for a in saved.card.recipe.adapters)
        except NotFoundError:
            return False
        return self._fingerprints.get(members, lambda: fingerprint(members)) == saved.card.fingerprint

    def merged(self, recipe: MergeRecipe, sight: Sight | None = None, dtype: torch.dtype = torch.float32) -> Merged:
        """What the method of a recipe makes of its adapters; those at weight 0 take no part.

        In float32 unless it only serves a forward in another precision.
        """
        # One order for all, so that a recipe gives the same bits in whatever order its adapters are named.
        ordered = recipe.model_copy(update={"adapters": tuple(sorted(recipe.adapters, key=_place_of))})
        if sight is None:
            return _as_named(self._worked_out(ordered, None, dtype), ordered, recipe)
        # With images it takes long, and one merge may be mended in several ways.
        place = (recipe.model_copy(update={"repair": None}).key, id(sight))
        found = self._looked.get(place, lambda: (sight, self._worked_out(ordered, sight, torch.float32)))[1]
        return _as_named(found, ordered, recipe)

    def _worked_out(self, recipe: MergeRecipe, sight: Sight | None, dtype: torch.dtype) -> Merged:
        try:
            return self._merged(recipe, sight, dtype)
        except torch.linalg.LinAlgError as error:
            # Values that are not finite, or that span more digits than there are, leave a decomposition without an answer.
            title = self.methods[recipe.method].title
            raise LoraLabError(
                f"{title} finds no answer for these adapters at these weights: take weights nearer to 1, or another method"
            ) from error

    def _merged(self, recipe: MergeRecipe, sight: Sight | None, dtype: torch.dtype) -> Merged:
        method = self.methods[recipe.method]
        knobs = method.turned(recipe.knobs)
        if recipe.method in self.saved:
            self._check(self.saved[recipe.method], recipe)
            return Merged(self.saved[recipe.method].deltas if any(a.weight for a in recipe.adapters) else {})
        taking_part = tuple(a for a in recipe.adapters if a.weight)
        if not taking_part:
            return Merged({})
        weights = tuple(a.weight for a in taking_part)
        if "negative weights" in method.refuses and min(weights) < 0:
            raise LoraLabError(f"{method.title} takes no negative weights, and there is {min(weights):g}: set it to 0 or more")
        setting = Setting(weights, knobs, recipe.seed, dtype)
        return self._placed(self._made(method, taking_part, setting, sight))

    def _made(self, method: MergeMethod, taking_part: Sequence[RecipeAdapter], setting: Setting, sight: Sight | None) -> Merged:
        if method.needs in ("images", "labels"):
            if sight is None:
                raise LoraLabError(f"{method.title} needs {method.needs}: name some with --images, or take another method")
            return method.merge(self._selection(taking_part, method, sight), setting)
        place = (method.name, tuple((self._adapter(a.name, a.rank), a.layers) for a in taking_part))
        return self._prepared.get(place, lambda: method.prepare(self._selection(taking_part, method)))(setting)

    def _placed(self, merged: Merged) -> Merged:
        # Where the forwards are run, so that no forward has to fetch them anew.
        place = self.serving.place
        return replace(merged, deltas=place(merged.deltas), own=[place(deltas) for deltas in merged.own])

    def _check(self, saved: SavedMerge, recipe: MergeRecipe) -> None:
        saved.check(recipe)
        if not self.of_these(saved):
            told = "was made of other adapters than those that have their names now: make it anew, or take another method"
            raise MismatchError(f"{saved.card.title} {told}")

    def save(self, recipe: MergeRecipe, sight: Sight | None, name: str, images: str) -> MergeRecipe:
        """Keep a merge under a name, with a word about the images that it has seen; gives the recipe that brings it back."""
        name, start = check_name(name), time.monotonic()
        model = self.merge(recipe, sight)
        if model.own:
            raise LoraLabError(f"{self.methods[recipe.method].title} is a bound and no merge, so there is nothing to keep")
        members = [self._adapter(a.name, a.rank) for a in recipe.adapters]
        card = MergeCard(
            name=name,
            title=f"{name.capitalize()}: {self._title(recipe)}, {len(members)} adapters",
            recipe=recipe,
            fingerprint=fingerprint(members),
            images=images,
            seconds=round(time.monotonic() - start, 1),
            commit=commit(),
        )
        keep = SavedMerge(card, model.deltas, model.mends)
        folder = self._own / name
        keep.save(folder)
        merge = SavedMerge.load(folder)
        self.saved = {**self.saved, merge.method.name: merge}
        return merge.recipe

    def forget(self, name: str) -> None:
        """Remove a saved merge of one's own. Raises `NotFoundError`."""
        own = saved_in(self._own)
        if name not in own:
            raise NotFoundError(unknown("merge of your own", name, dict.fromkeys(own)))
        shutil.rmtree(self._own / name)
        self.saved = {method: merge for method, merge in self.saved.items() if method != own[name].method.name}

    def _title(self, recipe: MergeRecipe) -> str:
        repair = f" + {REPAIRS[recipe.repair].title.lower()}" if recipe.repair else ""
        return self.methods[recipe.method].title + repair

    def _selection(self, adapters: Sequence[RecipeAdapter], method: MergeMethod, sight: Sight | None = None) -> Selection:
        members = [self._adapter(a.name, a.rank) for a in adapters]
        grams = []
        if method.needs == "statistics":
            lacking = [member.name for member in members if member.statistics is None]
            if lacking:
                raise LoraLabError(
                    f"{method.title} needs statistics, and there are none beside {', '.join(lacking)}: "
                    "write them with `lora-lab evaluate --publish`"
                )
            grams = [member.statistics.by_target(member.factors) for member in members if member.statistics]
        factors = [scaled_by_layer(member.factors, a.layers) for member, a in zip(members, adapters, strict=True)]
        return Selection(tuple(a.name for a in adapters), factors, grams, sight)

    def _mends(self, recipe: MergeRecipe, members: Sequence[Adapter], deltas: Deltas, sight: Sight | None) -> dict[str, Mend]:
        if recipe.method in self.saved:
            mends = self.saved[recipe.method].mends
            return {a.name: self._mend(mends[a.name]) for a in recipe.adapters if a.name in mends}
        if recipe.repair is None:
            return {}
        repair = REPAIRS[recipe.repair]
        if sight is None:
            raise LoraLabError(f"{repair.title} needs {repair.needs}: name some with --images, or leave the repair out")
        found = {}
        for place, member in enumerate(members):
            found[member.card.task] = self._mend(repair.fit(self._damage(member, deltas, sight, recipe.seed)))
            sight.tell((place + 1) / len(members), f"repair of {member.name}")
        return found

    def _mend(self, mend: Mend) -> Mend:
        return mend.to(self.serving.device)

    def look(self, recipe: MergeRecipe, sight: Sight) -> None:
        """Encode all that a repair of this merge has to see, whichever repair it is."""
        deltas = self.merged(recipe, sight, self.serving.dtype).deltas
        for a in recipe.adapters:
            self._damage(self._adapter(a.name, a.rank), deltas, sight, recipe.seed)

    def _damage(self, member: Adapter, deltas: Deltas, sight: Sight, seed: int) -> Damage:
        pixels = sight.pixels[member.name]
        merged, alone = (self._features(sight, pixels, d) for d in (deltas, self.delta_of(member)))
        return Damage(merged, alone.pooled, member.head, sight.labels.get(member.name), seed)

    def delta_of(self, member: Adapter) -> Deltas:
        """ΔW of an adapter by itself, in float32; kept for those asked for lately."""
        return self._alone.get(member, lambda: self.serving.place(deltas_of(member.factors)))

    def _features(self, sight: Sight, pixels: Tensor, deltas: Deltas) -> Features:
        # By identity: what is remembered holds on to images and deltas, so that nothing else can have their place.
        def see() -> tuple[Tensor, Deltas, Features]:
            with torch.no_grad():
                return pixels, deltas, joined([sight.backbone.encode(part, deltas) for part in pixels.split(CHUNK)])

        return self._seen.get((id(pixels), id(deltas)), see)[2]


def _place_of(adapter: RecipeAdapter) -> tuple[int, str]:
    return PLACES.get(adapter.name, len(PLACES)), adapter.name


def _as_named(merged: Merged, ordered: MergeRecipe, recipe: MergeRecipe) -> Merged:
    """What a method says of each adapter, in the order in which a recipe names those that take part."""
    places = {a.name: place for place, a in enumerate(a for a in ordered.adapters if a.weight)}
    turn = [places[a.name] for a in recipe.adapters if a.weight]
    layers = None if merged.layers is None else merged.layers[turn]
    return replace(merged, layers=layers, own=[merged.own[place] for place in turn] if merged.own else ())


def is_plain(recipe: MergeRecipe, adapter: RecipeAdapter, method: MergeMethod) -> bool:
    """Whether a recipe of one adapter leaves it just as it was trained."""
    as_trained = adapter.weight == 1 and all(factor == 1 for factor in adapter.layers)
    return as_trained and "alone" in method.laws and not recipe.knobs and recipe.repair is None
