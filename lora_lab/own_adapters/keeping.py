"""Adapters that people bring: how one joins those that come with LoRA Lab, and how it goes again."""

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lora_lab.adapters import Adapter, load_adapter, load_statistics, save_adapter
from lora_lab.backbones import Backbone
from lora_lab.cards import AdapterCard, adapter_folder, list_cards, own_root
from lora_lab.catalog import unknown
from lora_lab.data import FOUND_OUT, Reading
from lora_lab.data.own import check_own_name, own_title
from lora_lab.errors import LoraLabError, MismatchError, NotFoundError
from lora_lab.lab import Lab
from lora_lab.lora import deltas_of
from lora_lab.merging.base import nobody
from lora_lab.names import folder_of, is_name
from lora_lab.own_adapters.checking import Candidate, check
from lora_lab.own_adapters.learning import Tell, labelled, taught
from lora_lab.own_adapters.sources import opened
from lora_lab.tasks.base import Framing


@dataclass(frozen=True)
class Offer:
    """An adapter that someone brings.

    `source` is a folder, a zip, or a hub id; `name` is what it will be called here. `images` are labelled images, a folder a
    class or a zip of that, to train a head on; without them the head that came along is kept. `framing` says what of them
    is looked at, `reading` how they are read.
    """

    source: str
    name: str
    images: Path | None = None
    framing: Framing = "square"
    reading: Reading = FOUND_OUT


def add(lab: Lab, offer: Offer, tell: Tell = nobody) -> AdapterCard:
    """Check an adapter, train a head for it where images are given, and keep it among one's own; gives its card.

    `tell` is called with the share that is done and a word; what it raises ends the work, and nothing is kept. Raises
    `LoraLabError` and its children.
    """
    check_own_name(offer.name)
    root = _free_root(lab, offer.name)
    tell(0.0, f"reading {offer.source}")
    with opened(offer.source) as source:
        candidate = check(source, lab.backbone, needs_head=offer.images is None)
    if offer.images is None:
        adapter = _as_it_came(candidate, lab.backbone, offer)
    else:
        new = labelled(offer.name, offer.images, lab.backbone.image_size, offer.framing, offer.reading)
        adapter = taught(candidate, lab.backbone, new, _origin(offer), tell)
    tell(1.0, "done")
    _keep(adapter, lab.backbone, root)
    return adapter.card


def forget(backbone: str, name: str, root: Path | None = None) -> None:
    """Remove an adapter of the user's own, of a backbone by name; `root` holds those of a visitor.

    Raises `NotFoundError` where there is none, and `LoraLabError` for one that comes with LoRA Lab.
    """
    root = root or own_root()
    # By their folders, so that one whose card cannot be read goes as well.
    names = dict.fromkeys(path.name for path in sorted((root / folder_of(backbone)).glob("*")) if is_name(path.name))
    if name not in names and name in {card.name for card in list_cards(backbone)}:
        raise LoraLabError(f"{name} comes with LoRA Lab and stays; of your own there is {', '.join(names) or 'none'}")
    if name not in names:
        raise NotFoundError(unknown("adapter of your own", name, names))
    with tempfile.TemporaryDirectory(prefix=".old-", dir=root) as gone:
        os.rename(adapter_folder(backbone, name, ".", root), Path(gone) / name)


def own_cards(backbone: str) -> list[AdapterCard]:
    """The cards of the adapters that the user has brought for a backbone, by name."""
    return list_cards(backbone, own_root())


def _free_root(lab: Lab, name: str) -> Path:
    if lab.joins is None:
        raise LoraLabError(
            f"only the adapters in {lab.adapters_root} are asked for, so none can join: leave out --adapters-root"
        )
    there = {card.name for card in list_cards(lab.backbone.name, lab.joins)}
    if name in there and lab.own is None:
        raise LoraLabError(
            f"there is an adapter of your own named {name} already: take another name, or `lora-lab forget {name}`"
        )
    if name in lab.tasks():
        raise LoraLabError(f"there is an adapter named {name} already: take another name")
    return lab.joins


def _as_it_came(candidate: Candidate, backbone: Backbone, offer: Offer) -> Adapter:
    card, head = candidate.card, candidate.head
    assert card is not None, "checked to be there"
    assert head is not None, "checked to be there"
    task = replace(head.task, name=offer.name, title=own_title(offer.name))
    change = {
        "name": task.name,
        "task": task.name,
        "own_task": task.to_json(),
        "backbone": backbone.name,
        "tuning": "lora",
        "joint": (),
        "factors": ".",
        "rank": candidate.rank,
        "alpha": float(candidate.rank),
        "target_modules": tuple(candidate.factors),
        "training": card.training | {"brought_from": _origin(offer)},
    }
    return Adapter(card.model_copy(update=change), candidate.factors, head, candidate.statistics)


def _origin(offer: Offer) -> str:
    # A path of one's own machine is nobody else's business; a hub id says where it is from.
    path = Path(offer.source)
    return path.name if path.exists() else offer.source


def _keep(adapter: Adapter, backbone: Backbone, root: Path) -> None:
    # Written elsewhere first and read back, so that whoever lists adapters meets all of it or nothing.
    card = adapter.card
    place = adapter_folder(card.backbone, card.name, ".", root)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=root) as part:
        made = Path(part) / card.name
        save_adapter(adapter, made / card.variant)
        read_back(made / card.variant, backbone)
        try:
            os.rename(made, place)
        except OSError as error:
            raise LoraLabError(
                f"{place} cannot be written ({error.strerror}): is there an adapter named {card.name}?"
            ) from error


@torch.no_grad()
def read_back(folder: Path, backbone: Backbone) -> None:
    """Read an adapter as it will be read from now on, and let it answer once. Raises `LoraLabError` where that fails."""
    adapter = load_adapter(folder, backbone)
    statistics = load_statistics(folder)
    if statistics and not all(gram.isfinite().all() for gram in statistics.grams.values()):
        raise MismatchError(f"{adapter.name} has statistics that are not finite: leave them out")
    grey = torch.full((1, 3, backbone.image_size, backbone.image_size), 0.5, device=backbone.device)
    features = backbone.encode(backbone.normalise(grey), {t: 2 * delta for t, delta in deltas_of(adapter.factors).items()})
    if not (features.pooled.isfinite().all() and adapter.head(features).isfinite().all()):
        raise MismatchError(f"{adapter.name} changes the backbone so much that its answers are not finite: check its scaling")
