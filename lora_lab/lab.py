"""The one place that remembers: the backbone, the adapters, and what was computed lately."""

import copy
import os
import threading
import time
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch

from lora_lab.adapters import Adapter, fingerprint, load_adapter, load_statistics
from lora_lab.answers import Answer, Milliseconds
from lora_lab.backbones import DEFAULT, Backbone, Features, fast_precision, load_backbone
from lora_lab.cards import CARD, HEAD_ONLY, PRETRAINED, AdapterCard, adapter_folder, cards_of, rank_folder, roots_of, warn
from lora_lab.catalog import unknown
from lora_lab.devices import AUTO, find_device
from lora_lab.domains import Domains, Judgement
from lora_lab.errors import DataError, LoraLabError, MismatchError, NotFoundError
from lora_lab.inference import Located, MergedModel, locate
from lora_lab.merger import Merger
from lora_lab.merging import MergeRecipe, RecipeAdapter, Sight
from lora_lab.names import folder_of
from lora_lab.owners import owner_folder, touch
from lora_lab.photos import Photo
from lora_lab.recent import Recent
from lora_lab.records import PhotoPrediction
from lora_lab.tasks import Head, Task

KEPT_BYTES = 120_000_000
"""What is kept of photos, and of their crops, at most."""
VIEWS = 8
"""Of how many visitors the own adapters and merges are held ready."""


class Lab:
    """A backbone with its adapters. Safe to use from several threads.

    `adapters` is the folder that holds <backbone>/<task>/<rank>; where it is none, the adapters that come with LoRA Lab and the
    user's own, of which those that are added or removed later are seen at the next call.
    `own` is the folder of the visitor whose lab this is, none for everybody's; `joins` is where adapters lie that are added.
    `precision` is that of the forward, and of the product that makes deltas for it, the device's quickest where it is none;
    what is written to disk is float32. `device` is where it computes: auto takes a GPU where there is one. Raises
    `LoraLabError` for a device that is not here.
    """

    def __init__(
        self,
        backbone: str = DEFAULT,
        adapters: Path | None = None,
        precision: torch.dtype | None = torch.float32,
        device: str | torch.device = AUTO,
    ):
        self.device = find_device(device)
        precision = precision or fast_precision(self.device)
        self.backbone = load_backbone(backbone).on(self.device)
        self.merger = Merger(self.backbone if precision == self.backbone.dtype else self.backbone.to(precision), self.adapter)
        self.roots = roots_of(adapters)
        self.adapters_root = self.roots[0]
        self.own: Path | None = None
        self.joins: Path | None = None if adapters else self.roots[-1]
        self._views = Recent[str, Lab](VIEWS)
        self._viewing = threading.Lock()
        self._folders = Recent[tuple[str, str], list[Path]](256)
        self._read = Recent[tuple, bool](256)
        self._adapters = Recent[tuple[Path, int, int], Adapter](64)
        self._files = Recent[tuple[Path, int, int], Photo](4, KEPT_BYTES, lambda photo: photo.size_bytes)
        self._photos = Recent[str, Located](32, KEPT_BYTES, lambda located: located.size_bytes)
        self._kept = Recent[tuple, PhotoPrediction](64)
        self._bases = Recent[str, tuple[PhotoPrediction, Features]](8)

    def of(self, owner: str) -> "Lab":
        """This lab as a visitor of a page has it, with what they keep, which nobody else sees; `owner` is their secret."""
        with self._viewing:
            return self._views.get(owner, lambda: self._view(owner_folder(owner)))

    def _view(self, folder: Path) -> "Lab":
        touch(folder)
        view = copy.copy(self)
        view.own, view.joins = folder, folder / "adapters"
        view.roots = (*self.roots, view.joins)
        # By name, and two visitors may each have something of the same name.
        view._folders, view._kept = Recent(256), Recent(64)
        view.merger = self.merger.of(view.adapter, folder / "merges" / folder_of(self.backbone.name))
        return view

    def cards(self) -> list[AdapterCard]:
        """The cards of all adapters, heads alone and those that only serve to compare among them.

        Of those that did not come with LoRA Lab, one that cannot be read is left out with a warning.
        """
        return [card for card in cards_of(self.backbone.name, self.roots) if not card.mergeable or self._sound(card)]

    def _sound(self, card: AdapterCard) -> bool:
        folder = self.folder(card.name, card.variant)
        if folder.is_relative_to(PRETRAINED):
            return True

        def read() -> bool:
            try:
                self.adapter(card.name, card.rank)
            except LoraLabError as error:
                warn(f"{error}; it is left out")
                return False
            return True

        # Asked at every move of a slider; read again where any of its files is another.
        stamps = tuple((path.name, path.stat().st_mtime_ns) for path in sorted(folder.iterdir()))
        return self._read.get((folder, stamps), read)

    def folder(self, name: str, variant: str) -> Path:
        """Where an adapter lies, or would lie among those that come with LoRA Lab."""
        places = self._places(name, variant)
        return next((place for place in places if (place / CARD).exists()), places[0])

    def _places(self, name: str, variant: str) -> list[Path]:
        return self._folders.get(
            (name, variant), lambda: [adapter_folder(self.backbone.name, name, variant, root) for root in self.roots]
        )

    def tasks(self) -> dict[str, Task]:
        """The tasks of all adapters, those of people's own among them, by name."""
        return {card.name: card.load_task() for card in self.cards()}

    def ranks(self) -> dict[str, list[int]]:
        """The ranks that there are of each adapter with LoRA factors, by name."""
        ranks: dict[str, list[int]] = {}
        for card in self.cards():
            if card.mergeable:
                ranks.setdefault(card.name, []).append(card.rank)
        return ranks

    def adapter(self, name: str, rank: int) -> Adapter:
        """An adapter by name and rank, 0 for the head alone. Raises `NotFoundError`."""
        # It is asked for at every move of every slider, so files are touched once.
        for folder in self._places(name, rank_folder(rank)):
            try:
                stamp = os.stat(f"{folder}/{CARD}")
                break
            except FileNotFoundError:
                continue
        else:
            raise self._no_adapter(name, rank)

        def load() -> Adapter:
            return replace(load_adapter(folder, self.backbone), statistics=load_statistics(folder))

        # One that has taken the place of another of its name is another.
        found = self._adapters.get((folder, stamp.st_ino, stamp.st_mtime_ns), load)
        if found.name != name:
            # Where small letters and capitals name the same folder, as on a Mac, they still are two names.
            raise self._no_adapter(name, rank)
        return found

    def _no_adapter(self, name: str, rank: int) -> NotFoundError:
        cards = self.cards()
        there = [card.variant for card in cards if card.name == name]
        if not there:
            return NotFoundError(unknown("adapter", name, dict.fromkeys(card.name for card in cards)))
        return NotFoundError(f"no {rank_folder(rank)} of the adapter {name}; there is {', '.join(there)}")

    def uniform(self) -> MergeRecipe:
        """All adapters at their lowest rank, each with the weight 1/K."""
        ranks = self.ranks()
        if not ranks:
            raise NotFoundError(f"no adapter for {self.backbone.name} in {self.adapters_root}: train one with `lora-lab train`")
        weight = 1 / len(ranks)
        return self.recipe([RecipeAdapter(name=name, rank=min(r), weight=weight) for name, r in ranks.items()])

    def best(self) -> MergeRecipe:
        """The saved merge of most adapters, where those that it was made of are here; else uniform weights."""
        saved = sorted(self.merger.saved.values(), key=lambda merge: -len(merge.card.recipe.adapters))
        for merge in saved:
            if self.merger.of_these(merge):
                return merge.recipe
        return self.uniform()

    @property
    def serving(self) -> Backbone:
        """The backbone in the precision of the forward."""
        return self.merger.serving

    def heads(self, recipe: MergeRecipe) -> list[Head]:
        """The heads of a recipe's adapters."""
        return [member.head for member in self.members(recipe)]

    def recipe(self, adapters: list[RecipeAdapter]) -> MergeRecipe:
        """A recipe on this backbone by the exact sum."""
        return MergeRecipe(backbone=self.backbone.name, adapters=tuple(adapters))

    def merge(self, recipe: MergeRecipe, sight: Sight | None = None) -> MergedModel:
        """The model of a recipe; `sight` holds images for the methods that must look at some.

        Raises `NotFoundError`, `MismatchError`, and `LoraLabError` where the method cannot take what the recipe asks.
        """
        self.members(recipe)
        return self.merger.merge(recipe, sight)

    def fingerprint(self, recipe: MergeRecipe) -> str:
        """16 hex digits of the adapters of a recipe, whatever their weights: figures of others are not theirs."""
        return fingerprint(self.members(recipe))

    def photo(self, path: Path) -> Photo:
        """A photo from a file; kept while the file stays as it is. Raises `DataError`."""
        if not path.is_file():
            raise DataError(f"{path} is not there; check the path")
        stamp = path.stat()
        return self._files.get((path, stamp.st_mtime_ns, stamp.st_size), lambda: Photo.read(path))

    def locate(self, photo: Photo) -> Located:
        """Faces and crops of a photo; kept for the photos seen lately."""
        return self._photos.get(photo.key, lambda: locate(photo.image, self.backbone))

    def predict(self, photo: Photo, recipe: MergeRecipe) -> Answer:
        """Every head's answer of a merge about a photo, with the time that each part took."""
        start = time.perf_counter()
        located = self.locate(photo)
        detected = time.perf_counter()
        model = self.merge(recipe)
        merged = time.perf_counter()
        features = model.features(located)
        encoded = time.perf_counter()
        prediction = model.answer(located, features)
        parts = (start, detected, merged, encoded, time.perf_counter())
        taken = [round(1e3 * (b - a), 2) for a, b in pairwise(parts)]
        times = Milliseconds(detect=taken[0], merge=taken[1], forward=taken[2], heads=taken[3])
        return Answer(prediction, recipe, times, features)

    def base(self, photo: Photo) -> tuple[PhotoPrediction, Features]:
        """What the heads that were trained on the plain backbone say, and its features; kept for the photos seen lately."""
        located = self.locate(photo)

        def ask() -> tuple[PhotoPrediction, Features]:
            names = [card.name for card in self.cards() if card.tuning == HEAD_ONLY]
            model = MergedModel(self.serving, {}, {name: self.adapter(name, 0).head for name in names})
            # Faces and the centre square are both looked at, whatever heads there are, so that any merge can be compared.
            with torch.no_grad():
                features = self.serving.encode(located.crops(self.serving))
            return model.answer(located, features), features

        return self._bases.get(photo.key, ask)

    def judged(self, photo: Photo) -> list[dict[str, Judgement]]:
        """What each face and then the centre square look like to the plain backbone; nothing where it is one we do not know."""
        if not self._domains.fits(self.backbone):
            return []
        judged = self._domains.judge(self.base(photo)[1].pooled)
        # A crop without content has a feature like any other, and may lie near a domain's.
        return [
            {name: replace(one, inside=one.inside and not blank) for name, one in crop.items()}
            for crop, blank in zip(judged, self.locate(photo).blank, strict=True)
        ]

    @cached_property
    def _domains(self) -> Domains:
        return Domains.read()

    def alone(self, photo: Photo, name: str, rank: int) -> PhotoPrediction:
        """What one adapter says by itself, at weight 1; kept for what was asked lately."""
        return self.kept(photo, self.recipe([RecipeAdapter(name=name, rank=rank)]))

    def kept(self, photo: Photo, recipe: MergeRecipe) -> PhotoPrediction:
        """What a merge says that is asked again and again, such as one beside others; kept for what was asked lately."""
        located = self.locate(photo)

        def ask() -> PhotoPrediction:
            model = self.merge(recipe)
            return model.answer(located, model.features(located))

        return self._kept.get((photo.key, recipe.key, *self.members(recipe)), ask)

    def save_merge(self, recipe: MergeRecipe, sight: Sight | None, name: str, images: str) -> MergeRecipe:
        """Keep a merge in the user's cache, so that it needs its images no more; gives the recipe that brings it back."""
        self.members(recipe)
        return self.merger.save(recipe, sight, name, images)

    def members(self, recipe: MergeRecipe) -> list[Adapter]:
        """The adapters of a recipe, in its order. Raises `MismatchError` where it is for another backbone."""
        if recipe.backbone != self.backbone.name:
            raise MismatchError(
                f"the recipe is for the backbone {recipe.backbone}, but {self.backbone.name} is loaded: "
                f"start with --backbone {recipe.backbone}"
            )
        return [self.adapter(a.name, a.rank) for a in recipe.adapters]
