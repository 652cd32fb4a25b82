"""The exact sum against a sum written out, against peft, and the laws it keeps."""

from pathlib import Path

import pytest
import torch
from conftest import random_adapter
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel

from lora_lab.adapters import save_adapter
from lora_lab.backbones import Backbone, load_backbone
from lora_lab.lora import LoraFactors, concatenate, deltas_of
from lora_lab.merging import Selection, Setting, exact
from lora_lab.tasks import TASKS

BACKBONE = load_backbone("tiny")
ADAPTERS = [
    random_adapter(BACKBONE, task, rank, seed)
    for seed, (task, rank) in enumerate(zip(TASKS, (16, 4, 8, 2, 16, 1), strict=True))
]
WEIGHTS = st.lists(st.floats(-1, 2, width=32), min_size=1, max_size=6)


def merged(weights: list[float]) -> dict[str, torch.Tensor]:
    """As a lab asks for it: adapters at weight 0 are left out."""
    chosen = [(adapter, weight) for adapter, weight in zip(ADAPTERS, weights, strict=False) if weight]
    selection = Selection([adapter.name for adapter, _ in chosen], [adapter.factors for adapter, _ in chosen])
    return dict(exact.merge(selection, Setting([weight for _, weight in chosen])))


def test_by_hand():
    # B A = [[1], [2]] [[3, 4]] = [[3, 4], [6, 8]], and [[1], [0]] [[0, 1]] = [[0, 1], [0, 0]].
    one = {"m": LoraFactors(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0], [2.0]]))}
    two = {"m": LoraFactors(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0], [0.0]]))}
    deltas = exact.merge(Selection(["one", "two"], [one, two]), Setting([2.0, -1.0]))
    assert deltas["m"].tolist() == [[6.0, 7.0], [12.0, 16.0]]


@settings(max_examples=40, deadline=None)
@given(WEIGHTS)
def test_the_sum_of_the_weighted_deltas(weights: list[float]):
    deltas = merged(weights)
    for target in BACKBONE.target_modules if any(weights) else ():
        expected = sum(w * a.factors[target].delta() for w, a in zip(weights, ADAPTERS, strict=False))
        torch.testing.assert_close(deltas[target], expected, atol=1e-5, rtol=1e-5)


def test_all_zero_is_no_delta_at_all():
    assert merged([0.0] * 6) == {}


def test_one_adapter_at_weight_one_is_its_own_delta():
    assert all(torch.equal(merged([1.0])[t], delta) for t, delta in deltas_of(ADAPTERS[0].factors).items())


def test_peft_agrees_where_it_is_exact(tmp_path: Path, tiny: Backbone):
    """peft's "cat" is the exact sum; its scaling is alpha/r = 1 for each."""
    weights = [0.7, 1.3, 0.4]
    names = [adapter.name for adapter in ADAPTERS[:3]]
    for adapter in ADAPTERS[:3]:
        save_adapter(adapter, tmp_path / adapter.name)
    model = PeftModel.from_pretrained(tiny.to(torch.float32).module, str(tmp_path / names[0]), adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(str(tmp_path / name), adapter_name=name)
    model.add_weighted_adapter(names, weights, "sum", combination_type="cat")
    model.set_adapter("sum")
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(pixels).pooler_output
    torch.testing.assert_close(tiny.encode(pixels, merged(weights)).pooled, expected, atol=1e-5, rtol=1e-5)


def test_adapters_on_different_modules_are_added_where_they_are():
    first, second = BACKBONE.target_modules[:2]
    one = {first: ADAPTERS[0].factors[first]}
    two = {second: ADAPTERS[1].factors[second]}
    deltas = deltas_of(concatenate([(one, 1.0), (two, 0.5)]))
    assert set(deltas) == {first, second}
    torch.testing.assert_close(deltas[second], 0.5 * two[second].delta())


@pytest.mark.parametrize("weights", [[0.0, 1.0], [1.0, 0.0]])
def test_weight_zero_takes_an_adapter_out(weights: list[float]):
    alone = deltas_of(ADAPTERS[weights.index(1.0)].factors)
    assert all(torch.equal(merged(weights)[t], delta) for t, delta in alone.items())
