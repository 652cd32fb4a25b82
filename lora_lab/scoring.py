"""Which models an evaluation measures: adapters by themselves, or a merge; and scores onto cards."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from lora_lab.adapters import Adapter, load_adapter, save_adapter
from lora_lab.cards import FULL, HEAD_ONLY, JOINT, AdapterCard, write_card
from lora_lab.data import load_crops, task_dataset
from lora_lab.describing import describe, with_scores
from lora_lab.errors import NotFoundError
from lora_lab.evaluation import Images, Subject, evaluate
from lora_lab.inference import MergedModel
from lora_lab.lab import Lab
from lora_lab.lora import deltas_of
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.records import Record

logger = logging.getLogger(__name__)


def score_merge(lab: Lab, recipe: MergeRecipe, images: Images) -> Iterator[Record]:
    """A merge on the task of every adapter in it."""
    yield from evaluate(lab.merge(recipe), images, "merge", recipe.key)


def score_alone(lab: Lab, images: Images, variant: str | None = None) -> Iterator[Record]:
    """Every adapter by itself, or those of one variant (r16, head_only, joint_r96, full …).

    What shares its backbone, such as all heads alone, is one model with several heads.
    """
    for cards in _models(_cards(lab, variant)):
        adapters = [adapter for card in cards if (adapter := _load(lab, card))]
        if not adapters:
            continue
        first = adapters[0]
        heads = {adapter.card.task: adapter.head for adapter in adapters}
        model = MergedModel(first.tuned or lab.backbone, deltas_of(first.factors), heads)
        yield from evaluate(model, images, _subject(first.card), _recipe_key(lab, first.card))


def publish_scores(lab: Lab, records: Iterable[Record], images: Images) -> None:
    """Write what adapters score alone onto their cards, with the detection rate of the split."""
    records = list(records)
    for card in lab.cards():
        own = [record for record in records if (record.recipe, record.task) == (_recipe_key(lab, card), card.task)]
        if not own:
            continue
        card = with_scores(card, own)
        task = card.load_task()
        crops = load_crops(task, task_dataset(task, images.data, images.reading), images.split, lab.backbone.image_size)
        if crops.detection_rate is not None:
            rates = card.detection_rate | {images.split: crops.detection_rate}
            card = card.model_copy(update={"detection_rate": rates})
        write_card(card, _folder(lab, card))


def publish_descriptions(lab: Lab, images: Images, variant: str | None = None) -> Iterator[AdapterCard]:
    """Write scores on val, calibration, gate and statistics of adapters anew; gives each card when it is written."""
    for card in _cards(lab, variant):
        task, size = card.load_task(), lab.backbone.image_size
        adapter = _load(lab, card)
        dataset = images.open(task) if adapter else None
        if adapter and dataset:
            train, val = (load_crops(task, dataset, split, size) for split in ("train", "val"))
            adapter = describe(adapter, lab.backbone, train, val)
            save_adapter(adapter, _folder(lab, card))
            yield adapter.card


def _cards(lab: Lab, variant: str | None) -> list[AdapterCard]:
    cards = [card for card in lab.cards() if variant in (None, card.variant)]
    if not cards:
        there = ", ".join(dict.fromkeys(card.variant for card in lab.cards()))
        raise NotFoundError(f"no adapter of the variant {variant!r}; there is {there or 'none at all'}")
    return cards


def _models(cards: list[AdapterCard]) -> list[list[AdapterCard]]:
    shared: dict[tuple[str, str], list[AdapterCard]] = {}
    for card in cards:
        together = card.joint or card.tuning == HEAD_ONLY
        shared.setdefault(("" if together else card.task, card.variant), []).append(card)
    return list(shared.values())


def _load(lab: Lab, card: AdapterCard) -> Adapter | None:
    adapter = load_adapter(_folder(lab, card), lab.backbone)
    if card.tuning == FULL and adapter.tuned is None:
        logger.warning("the weights of %s, all trained, are not at hand: left out", card.name)
        return None
    return adapter


def _folder(lab: Lab, card: AdapterCard) -> Path:
    return lab.folder(card.name, card.variant)


def _subject(card: AdapterCard) -> Subject:
    if card.tuning != "lora":
        return card.tuning
    return JOINT if card.joint else "adapter"


def _recipe_key(lab: Lab, card: AdapterCard) -> str:
    # What is no merge of adapters has no recipe, and goes by its variant.
    return lab.recipe([RecipeAdapter(name=card.name, rank=card.rank)]).key if card.mergeable else card.variant
