"""The adapters that come with LoRA Lab: complete, small, honest about themselves, and the same in peft."""

from pathlib import Path

import pytest
import torch
from conftest import PORTRAIT
from peft import PeftModel

from lora_lab.adapters import PRETRAINED, AdapterCard, adapter_folder, list_cards, load_adapter
from lora_lab.backbones import DEFAULT, Backbone, load_backbone
from lora_lab.inference import locate
from lora_lab.lora import deltas_of
from lora_lab.metrics import better
from lora_lab.photos import open_photo
from lora_lab.tasks import TASKS

CARDS = {(card.task, card.rank): card for card in list_cards(DEFAULT)}
FLOORS = {
    ("age_class", "macro_f1"): 66.0,
    ("age_regression", "rmse"): 10.5,
    ("emotion", "accuracy"): 72.0,
    ("land_cover", "accuracy"): 96.0,
    ("galaxy", "macro_f1"): 70.0,
    ("landmarks", "nme"): 7.0,
}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(DEFAULT)


def test_there_is_one_of_rank_16_and_a_head_alone_for_every_task():
    assert set(CARDS) >= {(task, rank) for task in TASKS for rank in (0, 16)}


@pytest.mark.parametrize("card", CARDS.values(), ids=[f"{task}-{rank}" for task, rank in CARDS])
def test_a_card_says_where_the_adapter_comes_from(card: AdapterCard, backbone: Backbone):
    assert card.fingerprint == backbone.fingerprint
    assert card.commit
    assert card.data == TASKS[card.task].source
    assert card.licence == TASKS[card.task].licence
    assert card.training["seed"] == card.seed
    for split in ("val", "test"):
        score = card.scores[split][TASKS[card.task].metric]
        assert score.low < score.value < score.high
    if TASKS[card.task].stored in ("face", "padded_face"):
        assert set(card.detection_rate) == {"val", "test"}


@pytest.mark.parametrize(("task", "metric"), FLOORS, ids=[task for task, _ in FLOORS])
def test_an_adapter_reaches_its_floor_on_val(task: str, metric: str):
    value = CARDS[task, 16].scores["val"][metric].value
    assert value >= FLOORS[task, metric] if TASKS[task].higher_is_better else value <= FLOORS[task, metric]


@pytest.mark.parametrize("task", TASKS)
def test_an_adapter_is_better_than_its_head_alone_on_val(task: str):
    metric = TASKS[task].metric
    adapter, head = (CARDS[task, rank].scores["val"][metric].value for rank in (16, 0))
    assert better(TASKS[task], adapter, head)


@pytest.mark.parametrize("task", TASKS)
def test_peft_loads_it_to_the_same_features(task: str, backbone: Backbone):
    folder = adapter_folder(DEFAULT, task, 16)
    located = locate(open_photo(PORTRAIT), backbone)
    pixels = torch.cat([located.face_pixels, located.square_pixels])
    model = PeftModel.from_pretrained(backbone.to(torch.float32).module, str(folder))
    with torch.no_grad():
        expected = model(pixels).pooler_output
    ours = backbone.encode(pixels, deltas_of(load_adapter(folder, backbone).factors)).pooled
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_together_they_are_small():
    files = [path for path in Path(PRETRAINED).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40e6
    assert {path.suffix for path in files} == {".json", ".safetensors"}
