"""A run learns, goes on after it was stopped as if it had not been, and says what is wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made import write_squares

from lora_lab.adapters import load_adapter, save_adapter
from lora_lab.backbones import Backbone
from lora_lab.batches import batch_rows
from lora_lab.errors import LoraLabError
from lora_lab.training import Run, TrainConfig, TrainStep, default_config, finish

CONFIG = TrainConfig(task="galaxy", backbone="tiny", rank=4, images=480, batch=16, checks=6, patience=20)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "cache"))
    write_squares(tmp_path / "galaxy", train=64, val=32, test=32)
    return tmp_path


def test_a_run_learns_and_its_adapter_is_the_best_one_seen(tiny: Backbone, data: Path, tmp_path: Path):
    run = Run(CONFIG, tiny, data)
    steps = list(run.steps())
    checks = [step.check for step in steps if step.check is not None]
    assert steps[-1].images == steps[-1].total == 480
    assert run.best is not None
    assert run.best == max(checks) > 60
    assert steps[-1].loss < 0.8 * steps[0].loss
    adapter = finish(run)
    assert adapter.card.rank == 4
    assert adapter.card.training["images"] == 480
    assert adapter.card.scores["val"]["macro_f1"].n == 32
    assert abs(adapter.card.scores["val"]["macro_f1"].value - run.best) < 7  # bfloat16 may move one answer of 32
    save_adapter(adapter, tmp_path / "out")
    again = load_adapter(tmp_path / "out", tiny)
    assert again.card.scores == adapter.card.scores


def parts(run: Run) -> list[torch.Tensor]:
    factors, head = run.adapter_parts()
    return [*(t for f in factors.values() for t in (f.a, f.b)), *head.state_dict().values()]


def test_a_stopped_run_goes_on_to_the_same_losses(tiny: Backbone, data: Path):
    whole = Run(CONFIG, tiny, data)
    expected = list(whole.steps())
    whole.forget_checkpoint()

    stopped = Run(CONFIG, tiny, data)
    for step in stopped.steps():
        if step.images >= 240:
            break  # as good as killed: nothing is saved on the way out
    again = Run(CONFIG, tiny, data)
    assert again.load_checkpoint()
    assert 0 < again.step < CONFIG.steps
    rest = list(again.steps())

    def losses(steps: list[TrainStep]) -> list[tuple]:
        return [(s.images, s.loss, s.check) for s in steps if s.images > 320]

    assert losses(rest) == losses(expected) != []
    assert all(torch.equal(one, two) for one, two in zip(parts(again), parts(whole), strict=True))


def test_a_head_alone_is_trained_on_features(tiny: Backbone, data: Path):
    run = Run(CONFIG.model_copy(update={"rank": 0, "images": 1600}), tiny, data)
    list(run.steps())
    adapter = finish(run)
    assert adapter.factors == {}
    assert adapter.card.target_modules == ()
    assert adapter.card.scores["val"]["macro_f1"].value > 60


def test_it_stops_early_when_val_gains_no_more(tiny: Backbone, data: Path):
    run = Run(CONFIG.model_copy(update={"learning_rate": 0.0, "patience": 2}), tiny, data)
    list(run.steps())
    assert run.step < CONFIG.steps


def test_every_image_is_seen_once_before_any_is_seen_twice():
    rows = np.concatenate([batch_rows(50, 16, step, seed=0) for step in range(25)])
    for start in range(0, 400, 50):
        assert sorted(rows[start : start + 50]) == list(range(50))
    assert not np.array_equal(rows[:50], rows[50:100])


def test_what_cannot_be_trained_is_told(tiny: Backbone, data: Path):
    with pytest.raises(LoraLabError, match="less than one batch"):
        Run(CONFIG.model_copy(update={"images": 3}), tiny, data)
    run = Run(CONFIG.model_copy(update={"pretrain_images": 64}), tiny, data)
    with pytest.raises(LoraLabError, match="no data to pre-train on"):
        next(run.steps())
    with pytest.raises(LoraLabError, match="did you mean 'galaxy'"):
        default_config("galaxi", "tiny", 16)
