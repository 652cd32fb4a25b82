"""Statistics are those of the inputs, keep on disk, and tell images of another kind."""

from pathlib import Path

import numpy as np
import torch
from conftest import random_adapter

from lora_lab.adapters import load_statistics, save_adapter
from lora_lab.backbones import Backbone
from lora_lab.data import Crops
from lora_lab.lora import deltas_of
from lora_lab.statistics import Statistics, balanced_rows, collect, nearness
from lora_lab.tasks import TASKS


def crops(n: int = 70) -> Crops:
    pixels = np.random.default_rng(0).integers(0, 255, (n, 72, 72, 3), dtype=np.uint8)
    return Crops(pixels, np.arange(n) % 4, None, None)


def test_grams_are_the_mean_outer_product_of_what_key_and_value_read(tiny: Backbone):
    deltas = deltas_of(random_adapter(tiny, "galaxy", 4, 0).factors)
    some = crops(3)
    found = collect(tiny, deltas, TASKS["galaxy"], some)
    assert list(found.grams) == list(dict.fromkeys(t.rpartition(".")[0] for t in tiny.target_modules))
    seen: list[torch.Tensor] = []
    pixels = tiny.normalise(torch.from_numpy(some.centre(56).copy()).permute(0, 3, 1, 2).float() / 255)
    tiny.watch(pixels, deltas, [tiny.target_modules[-1]], lambda name, inputs: seen.append(inputs))
    tokens = seen[0].flatten(0, 1)
    place = tiny.target_modules[-1].rpartition(".")[0]
    torch.testing.assert_close(found.grams[place], tokens.T @ tokens / len(tokens))
    tiny.encode(pixels)
    assert len(seen) == 1  # nothing listens any more


def test_class_means_are_those_of_the_pooled_feature(tiny: Backbone):
    some = crops(8)
    found = collect(tiny, {}, TASKS["galaxy"], some)
    pixels = tiny.normalise(torch.from_numpy(some.centre(56).copy()).permute(0, 3, 1, 2).float() / 255)
    pooled = tiny.encode(pixels).pooled
    torch.testing.assert_close(found.class_means[1], pooled[[1, 5]].mean(0))
    assert found.class_means.shape == (4, tiny.width)


def test_they_keep_on_disk_to_half_precision(tiny: Backbone, tmp_path: Path):
    from dataclasses import replace

    adapter = random_adapter(tiny, "galaxy", 4, 0)
    found = collect(tiny, deltas_of(adapter.factors), TASKS["galaxy"], crops(12))
    assert load_statistics(tmp_path) is None
    save_adapter(replace(adapter, statistics=found), tmp_path)
    again = load_statistics(tmp_path)
    assert again is not None
    for place, gram in found.grams.items():
        assert torch.equal(again.grams[place], again.grams[place].T)
        torch.testing.assert_close(again.grams[place], gram, rtol=1e-3, atol=1e-3 * gram.diagonal().mean().item())
    width = tiny.width
    halves = [t for name, t in found.packed().items() if name.startswith("root.")]
    assert all(half.dtype == torch.float16 and half.shape == (width * (width + 1) // 2,) for half in halves)


def test_rows_are_balanced_over_classes():
    targets = np.array([0] * 90 + [1] * 6 + [2] * 4)
    rows = balanced_rows(TASKS["galaxy"], targets, 15)
    assert np.bincount(targets[rows]).tolist() == [6, 5, 4]
    assert balanced_rows(TASKS["age_regression"], np.arange(50.0), 20).shape == (20,)
    assert np.array_equal(rows, balanced_rows(TASKS["galaxy"], targets, 15))


def test_nearness_is_the_largest_cosine():
    means = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    near = nearness(torch.tensor([[3.0, 0.0], [1.0, 1.0], [-1.0, -1.0]]), means)
    torch.testing.assert_close(near, torch.tensor([1.0, 0.5**0.5, -(0.5**0.5)]))
    assert isinstance(Statistics({}, means).packed()["class_means"], torch.Tensor)
