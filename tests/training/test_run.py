"""A run learns, goes on after it was stopped as if it had not been, and says what is wrong."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from made import write_squares

from lora_lab.adapters import Adapter, load_adapter, save_adapter
from lora_lab.backbones import Backbone, pretrained
from lora_lab.data import open_dataset
from lora_lab.errors import LoraLabError, MismatchError
from lora_lab.lora import deltas_of
from lora_lab.tasks import TASKS
from lora_lab.training import Run, TrainConfig, TrainStep, default_config, finish, joint_config
from lora_lab.training.batches import Share, batch_rows
from lora_lab.training.start import first_tuned

CONFIG = TrainConfig(task="galaxy", backbone="tiny", rank=4, images=480, batch=16, checks=6, patience=20)


def new_run(config: TrainConfig, backbone: Backbone, data: Path, start: tuple[Adapter, ...] = ()) -> Run:
    sources = [(TASKS[name], open_dataset(data / TASKS[name].folder)) for name in config.task.split("+")]
    return Run(config, sources, backbone, start)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "cache"))
    write_squares(tmp_path / "galaxy", train=64, val=32, test=32)
    write_squares(tmp_path / "land_cover", train=64, val=32)
    return tmp_path


def test_a_run_learns_and_its_adapter_is_the_best_one_seen(tiny: Backbone, data: Path, tmp_path: Path):
    run = new_run(CONFIG, tiny, data)
    steps = list(run.steps())
    checks = [step.check for step in steps if step.check is not None]
    assert steps[-1].images == steps[-1].total == 480
    assert run.best is not None
    assert run.best == max(checks) > 60
    assert steps[-1].loss < 0.8 * steps[0].loss
    [adapter] = finish(run)
    assert adapter.card.rank == 4
    assert adapter.card.training["images"] == 480
    assert adapter.card.scores["val"]["macro_f1"].n == 32
    assert abs(adapter.card.scores["val"]["macro_f1"].value - run.best) < 7  # bfloat16 may move one answer of 32
    save_adapter(adapter, tmp_path / "out")
    again = load_adapter(tmp_path / "out", tiny)
    assert again.card.scores == adapter.card.scores


def parts(run: Run) -> list[torch.Tensor]:
    run.restore_best()
    return [tensor.detach().clone() for tensor in run.tensors.values()]


def test_a_stopped_run_goes_on_to_the_same_losses(tiny: Backbone, data: Path):
    whole = new_run(CONFIG, tiny, data)
    expected = list(whole.steps())
    whole.forget_checkpoint()

    stopped = new_run(CONFIG, tiny, data)
    for step in stopped.steps():
        if step.images >= 240:
            break  # as good as killed: nothing is saved on the way out
    again = new_run(CONFIG, tiny, data)
    assert again.load_checkpoint()
    assert 0 < again.step < CONFIG.steps
    rest = list(again.steps())

    def losses(steps: list[TrainStep]) -> list[tuple]:
        return [(s.images, s.loss, s.check) for s in steps if s.images > 320]

    assert losses(rest) == losses(expected) != []
    assert all(torch.equal(one, two) for one, two in zip(parts(again), parts(whole), strict=True))


def test_a_head_alone_is_trained_on_features(tiny: Backbone, data: Path):
    run = new_run(CONFIG.model_copy(update={"tuning": "head_only", "rank": 0, "images": 1600}), tiny, data)
    list(run.steps())
    [adapter] = finish(run)
    assert adapter.factors == {}
    assert adapter.card.target_modules == ()
    assert adapter.card.scores["val"]["macro_f1"].value > 60


def test_it_stops_early_when_val_gains_no_more(tiny: Backbone, data: Path):
    run = new_run(CONFIG.model_copy(update={"learning_rate": 0.0, "head_rate": 0.0, "patience": 2}), tiny, data)
    list(run.steps())
    assert run.step < CONFIG.steps


def test_every_image_is_seen_once_before_any_is_seen_twice():
    rows = np.concatenate([batch_rows(50, 16, step, seed=0) for step in range(25)])
    for start in range(0, 400, 50):
        assert sorted(rows[start : start + 50]) == list(range(50))
    assert not np.array_equal(rows[:50], rows[50:100])


def test_what_cannot_be_trained_is_told(tiny: Backbone, data: Path):
    with pytest.raises(LoraLabError, match="less than one batch"):
        new_run(CONFIG.model_copy(update={"images": 3}), tiny, data)
    with pytest.raises(LoraLabError, match="no data to pre-train on"):
        new_run(CONFIG.model_copy(update={"pretrain_images": 64}), tiny, data)
    with pytest.raises(LoraLabError, match="cannot be shared by 2: give batch a multiple of 2"):
        new_run(CONFIG.model_copy(update={"task": "galaxy+land_cover", "batch": 15}), tiny, data)


def test_a_higher_rank_learns_at_a_lower_rate():
    rates = [default_config(TASKS["galaxy"], "tiny", rank=rank).learning_rate for rank in (4, 16, 64)]
    assert rates == [1e-3, 1e-3, 5e-4]


def test_the_rate_rises_then_falls_to_nothing():
    config = CONFIG.model_copy(update={"images": 1600, "warm_up": 0.1})
    rates = [config.rate(step) for step in range(100)]
    assert rates[0] == 0
    assert rates[10] == 1
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[-1] < 0.001


def test_all_weights_can_be_trained_and_come_back_as_a_model(tiny: Backbone, data: Path, tmp_path: Path):
    config = CONFIG.model_copy(update={"tuning": "full", "rank": 0, "learning_rate": 1e-3})
    run = new_run(config, tiny, data)
    before = tiny.module.state_dict()["encoder.layer.0.mlp.fc1.weight"].clone()
    steps = list(run.steps())
    assert steps[-1].loss < steps[0].loss
    [adapter] = finish(run)
    save_adapter(adapter, tmp_path / "full")
    assert adapter.card.variant == "full"
    again = pretrained.load(str(tmp_path / "full"))
    pixels = torch.randn(2, 3, 56, 56)
    assert adapter.tuned is not None
    torch.testing.assert_close(again.encode(pixels).pooled, adapter.tuned.encode(pixels).pooled)
    assert not torch.equal(again.encode(pixels).pooled, tiny.encode(pixels).pooled)
    assert torch.equal(tiny.module.state_dict()["encoder.layer.0.mlp.fc1.weight"], before)
    loaded = load_adapter(tmp_path / "full", tiny)
    assert loaded.tuned is not None
    assert loaded.tuned.fingerprint == adapter.tuned.fingerprint


def trained(tiny: Backbone, data: Path, task: str, **changes: object) -> Adapter:
    run = new_run(CONFIG.model_copy(update={"task": task, "images": 320, **changes}), tiny, data)
    list(run.steps())
    run.forget_checkpoint()
    return finish(run)[0]


def test_one_lora_for_several_tasks_goes_on_from_their_exact_sum(tiny: Backbone, data: Path, tmp_path: Path):
    start = (trained(tiny, data, "galaxy"), trained(tiny, data, "land_cover", seed=1))
    both = (TASKS["galaxy"], TASKS["land_cover"])
    config = joint_config(both, "tiny", rank=8).model_copy(update={"images": 640, "start_from": "r4"})
    run = new_run(config, tiny, data, start)
    pixels = torch.randn(2, 3, 56, 56)
    one, two = (deltas_of(adapter.factors) for adapter in start)
    expected = run.encoder.encode(pixels, {target: one[target] + two[target] for target in one}).pooled
    torch.testing.assert_close(run.tuned.encode(pixels).pooled, expected, atol=0.05, rtol=0.05)
    losses = [step.loss for step in run.steps()]
    assert losses[-1] < losses[0]
    adapters = finish(run)
    for adapter in adapters:
        save_adapter(adapter, tmp_path / adapter.card.task / adapter.card.variant)
    assert [adapter.card.variant for adapter in adapters] == ["joint_r8", "joint_r8"]
    assert (tmp_path / "joint" / "r8" / "adapter_model.safetensors").exists()
    loaded = [load_adapter(tmp_path / task.name / "joint_r8", tiny) for task in both]
    assert all(torch.equal(loaded[0].factors[t].a, loaded[1].factors[t].a) for t in loaded[0].factors)
    assert not loaded[0].card.mergeable


def test_a_lower_rank_begins_with_the_best_sum_of_that_rank(tiny: Backbone, data: Path):
    start = [trained(tiny, data, "galaxy"), trained(tiny, data, "land_cover", seed=1)]
    config = CONFIG.model_copy(update={"rank": 3})
    tensors = first_tuned(config, tiny, tiny, start).tensors
    target = tiny.target_modules[0]
    whole = sum(deltas_of(adapter.factors)[target] for adapter in start)
    assert isinstance(whole, torch.Tensor)
    spectrum = torch.linalg.svdvals(whole)
    error = torch.linalg.matrix_norm(whole - tensors[f"{target}.b"] @ tensors[f"{target}.a"])
    torch.testing.assert_close(error, spectrum[3:].norm(), atol=1e-4, rtol=1e-3)
    with pytest.raises(MismatchError, match="cannot start from factors of rank 8: give --rank 8"):
        first_tuned(CONFIG.model_copy(update={"rank": 16}), tiny, tiny, start)


def test_what_a_run_goes_on_from_is_the_first_to_beat(tiny: Backbone, data: Path):
    start = trained(tiny, data, "galaxy")
    run = new_run(CONFIG.model_copy(update={"images": 320, "learning_rate": 10.0}), tiny, data, (start,))
    first = next(iter(run.steps()))
    assert first.best is not None
    assert first.best > 60
    list(run.steps())
    [kept] = finish(run)
    assert kept.card.scores["val"]["macro_f1"].value >= start.card.scores["val"]["macro_f1"].value - 7
    assert kept.card.images_seen == start.card.images_seen + run.step * 16


def test_processes_share_a_batch_without_overlap():
    rows = np.arange(12)
    parts = [rows[Share(rank, 3).of(rows)] for rank in range(3)]
    assert sorted(np.concatenate(parts)) == rows.tolist()
