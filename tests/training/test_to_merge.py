"""Adapters that are trained in each other's company: who is drawn, what a step moves, and what comes out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_adapter
from made import write_squares

from lora_lab.backbones import Backbone
from lora_lab.data import open_dataset
from lora_lab.errors import LoraLabError
from lora_lab.lora import deltas_of
from lora_lab.tasks import TASKS
from lora_lab.training import Run, TrainConfig, finish

PAIR = ("galaxy", "land_cover")
CONFIG = TrainConfig(task="+".join(PAIR), backbone="tiny", rank=4, images=320, batch=16, checks=4, patience=20, to_merge=True)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "cache"))
    for name in PAIR:
        write_squares(tmp_path / name, train=64, val=32, test=16)
    return tmp_path


def new_run(config: TrainConfig, backbone: Backbone, data: Path, start: tuple = ()) -> Run:
    return Run(config, [(TASKS[name], open_dataset(data / name)) for name in config.tasks], backbone, start)


def of(run: Run, task: str) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in run.tensors.items() if name.startswith(f"{task}/")}


def test_sets_of_every_size_are_drawn_and_always_the_same():
    config = TrainConfig(task="a+b+c", backbone="tiny", to_merge=True)
    drawn = [config.drawn(step) for step in range(300)]
    assert drawn == [config.drawn(step) for step in range(300)]
    counts = np.bincount([len(tasks) for tasks in drawn], minlength=4)
    assert counts[0] == 0
    assert min(counts[1:]) > 70
    assert {task: sum(task in tasks for tasks in drawn) > 150 for task in "abc"} == dict.fromkeys("abc", True)
    assert config.model_copy(update={"to_merge": False}).drawn(0) == ("a", "b", "c")


def test_a_step_moves_only_those_that_are_drawn(tiny: Backbone, data: Path):
    run = new_run(CONFIG, tiny, data)
    run.step = next(step for step in range(2, 100) if CONFIG.drawn(step) == ("galaxy",))
    before = {task: of(run, task) for task in PAIR}
    run.update()
    after = {task: of(run, task) for task in PAIR}
    assert any(not torch.equal(after["galaxy"][name], tensor) for name, tensor in before["galaxy"].items())
    assert all(torch.equal(after["land_cover"][name], tensor) for name, tensor in before["land_cover"].items())


def test_a_run_encodes_with_the_exact_sum_of_the_named_tasks(tiny: Backbone, data: Path):
    start = tuple(random_adapter(tiny, name, 4, seed) for seed, name in enumerate(PAIR))
    run = new_run(CONFIG, tiny, data, start)
    pixels = torch.randn(2, 3, 56, 56)
    one, two = (deltas_of(adapter.factors) for adapter in start)
    for tasks, deltas in ((("galaxy",), one), (("land_cover",), two), (PAIR, {t: one[t] + two[t] for t in one})):
        expected = run.encoder.encode(pixels, deltas).pooled
        assert torch.allclose(run.tuned.encode(pixels, tasks).pooled, expected, atol=0.02, rtol=0.02)
    assert run.tuned.squared_norm is not None
    expected = torch.stack([delta.square().sum() for delta in one.values()]).sum()
    torch.testing.assert_close(run.tuned.squared_norm(("galaxy",)).detach(), expected)


def test_each_task_gets_an_adapter_of_its_own(tiny: Backbone, data: Path):
    start = tuple(random_adapter(tiny, name, 4, seed) for seed, name in enumerate(PAIR))
    start = tuple(replace(one, card=one.card.model_copy(update={"images_seen": 1000})) for one in start)
    run = new_run(CONFIG, tiny, data, start)
    losses = [step.loss for step in run.steps()]
    assert losses[-1] < losses[0]
    adapters = {adapter.card.task: adapter for adapter in finish(run)}
    assert tuple(adapters) == PAIR
    assert all(adapter.card.mergeable and adapter.card.variant == "r4" for adapter in adapters.values())
    seen = {task: sum(task in CONFIG.drawn(step) for step in range(CONFIG.steps)) * 8 for task in PAIR}
    assert {task: adapter.card.images_seen - 1000 for task, adapter in adapters.items()} == seen
    one, two = (adapters[task].factors for task in PAIR)
    assert any(not torch.equal(one[target].b, two[target].b) for target in one)
    assert all(adapter.card.scores["val"]["macro_f1"].n == 32 for adapter in adapters.values())


def test_a_penalty_keeps_the_deltas_small(tiny: Backbone, data: Path):
    def squared(penalty: float) -> float:
        run = new_run(CONFIG.model_copy(update={"norm_penalty": penalty}), tiny, data)
        for _ in run.steps():
            pass
        run.forget_checkpoint()
        assert run.tuned.squared_norm is not None
        return run.tuned.squared_norm(()).item()

    assert squared(1.0) < 0.5 * squared(0.0)


def test_one_task_cannot_be_trained_to_be_merged(tiny: Backbone, data: Path):
    with pytest.raises(LoraLabError, match="name them, joined by commas"):
        new_run(CONFIG.model_copy(update={"task": "galaxy"}), tiny, data)
