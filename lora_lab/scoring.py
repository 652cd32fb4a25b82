"""Which models an evaluation measures: every adapter alone, the heads alone, or a merge; and scores onto cards."""

from collections.abc import Iterable, Iterator

from lora_lab.adapters import adapter_folder, write_card
from lora_lab.data import load_crops
from lora_lab.errors import NotFoundError
from lora_lab.evaluation import Images, evaluate
from lora_lab.inference import MergedModel
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.records import Record
from lora_lab.tasks import TASKS
from lora_lab.training import with_scores

HEAD_ONLY_RECIPE = "head_only"


def score_merge(lab: Lab, recipe: MergeRecipe, images: Images) -> Iterator[Record]:
    """A merge on the task of every adapter in it."""
    yield from evaluate(lab.merge(recipe), images, "merge", recipe.key)


def score_alone(lab: Lab, images: Images, head_only: bool = False) -> Iterator[Record]:
    """Every adapter by itself, or the head-only baselines, which are one model: the plain backbone with their heads."""
    if head_only:
        names = [card.name for card in lab.cards() if not card.rank]
        if not names:
            raise NotFoundError("there are no heads alone: train them with `lora-lab train TASK --head-only`")
        heads = {name: lab.adapter(name, 0).head for name in names}
        yield from evaluate(MergedModel(lab.backbone, {}, heads), images, "head_only", HEAD_ONLY_RECIPE)
        return
    for card in lab.cards():
        if card.rank:
            recipe = lab.recipe([RecipeAdapter(name=card.name, rank=card.rank)])
            yield from evaluate(lab.merge(recipe), images, "adapter", recipe.key)


def publish_scores(lab: Lab, records: Iterable[Record], images: Images) -> None:
    """Write what adapters score alone onto their cards, with the detection rate of the split."""
    records = list(records)
    for card in lab.cards():
        recipe = lab.recipe([RecipeAdapter(name=card.name, rank=card.rank)]).key if card.rank else HEAD_ONLY_RECIPE
        own = [record for record in records if record.recipe == recipe and record.task == card.task]
        if not own:
            continue
        card = with_scores(card, own)
        crops = load_crops(TASKS[card.task], images.data, images.split, lab.backbone.image_size)
        if crops.detection_rate is not None:
            rates = card.detection_rate | {images.split: crops.detection_rate}
            card = card.model_copy(update={"detection_rate": rates})
        write_card(card, adapter_folder(lab.backbone.name, card.name, card.rank, lab.adapters_root))
