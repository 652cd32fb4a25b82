"""EMR against entries elected, masked and scaled by hand, and the laws it keeps."""

import pytest
import torch
from conftest import random_adapter

from lora_lab.backbones import load_backbone
from lora_lab.lora import Factors, LoraFactors, deltas_of
from lora_lab.merging import Merged, Selection, Setting, emr

BACKBONE = load_backbone("tiny")
ADAPTERS = [random_adapter(BACKBONE, task, rank, seed) for seed, (task, rank) in enumerate([("galaxy", 4), ("landmarks", 8)])]
FACTORS = [adapter.factors for adapter in ADAPTERS]


def row(*entries: float) -> Factors:
    """A delta of one row, by hand."""
    return {"m": LoraFactors(torch.tensor([entries], dtype=torch.float32), torch.tensor([[1.0]]))}


def merged(factors: list[Factors], weights: list[float]) -> Merged:
    names = [str(k) for k in range(len(factors))]
    return emr.METHOD.merge(Selection(names, factors), Setting(weights))


def test_by_hand():
    # Sums 5, -4, 0: signs +, -, none; the largest of those signs are 3 and 5.
    result = merged([row(3, -5, 2), row(2, 1, -2)], [1.0, 1.0])
    assert result.deltas["m"].tolist() == [[3.0, -5.0, 0.0]]
    # The first keeps 3 and -5: (3 + 5 + 2) / (3 + 5). The second keeps 3 alone: (2 + 1 + 2) / 3.
    torch.testing.assert_close(result.own[0]["m"], torch.tensor([[3.75, -6.25, 0.0]]))
    torch.testing.assert_close(result.own[1]["m"], torch.tensor([[5.0, 0.0, 0.0]]))


def test_weights_are_folded_in_before_the_vote():
    # At -2 the second is -4, 2 and outvotes the first in the first entry.
    result = merged([row(3, 1), row(2, -1)], [1.0, -2.0])
    assert result.deltas["m"].tolist() == [[-4.0, 2.0]]
    torch.testing.assert_close(result.own[0]["m"], torch.tensor([[0.0, 4.0]]))


def test_an_outvoted_adapter_keeps_nothing():
    assert merged([row(3, 0), row(-1, 0)], [1.0, 1.0]).own[1]["m"].tolist() == [[0.0, 0.0]]


def test_one_scale_over_all_modules():
    one = {"m": LoraFactors(torch.tensor([[4.0]]), torch.eye(1)), "n": LoraFactors(torch.tensor([[1.0]]), torch.eye(1))}
    two = {"m": LoraFactors(torch.tensor([[8.0]]), torch.eye(1))}
    own = merged([one, two], [1.0, 1.0]).own
    # (4 + 1) / (8 + 1) on both modules of the first; the second has only the one.
    torch.testing.assert_close((own[0]["m"].item(), own[0]["n"].item()), (40 / 9, 5 / 9))
    assert set(own[1]) == {"m"}


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_one_adapter_is_that_adapter(adapter):
    result = merged([adapter.factors], [1.0])
    for target, delta in deltas_of(adapter.factors).items():
        assert torch.equal(result.deltas[target], delta)
        torch.testing.assert_close(result.own[0][target], delta)


def test_what_a_task_keeps_has_the_signs_and_the_total_size_of_its_adapter():
    result = merged(FACTORS, [0.7, 1.3])
    for own, factors, weight in zip(result.own, FACTORS, (0.7, 1.3), strict=True):
        mine = {target: weight * delta for target, delta in deltas_of(factors).items()}
        assert all((own[target] * mine[target] >= 0).all() for target in mine)
        size = sum(delta.abs().sum() for delta in mine.values())
        torch.testing.assert_close(sum(delta.abs().sum() for delta in own.values()), size)
        assert any((own[target] == 0).any() for target in mine)


def test_the_order_changes_nothing_and_a_scale_scales():
    result, turned, doubled = merged(FACTORS, [0.7, 1.3]), merged(FACTORS[::-1], [1.3, 0.7]), merged(FACTORS, [-1.4, -2.6])
    for target in BACKBONE.target_modules:
        torch.testing.assert_close(turned.deltas[target], result.deltas[target])
        torch.testing.assert_close(turned.own[1][target], result.own[0][target])
        torch.testing.assert_close(doubled.deltas[target], -2 * result.deltas[target])
        torch.testing.assert_close(doubled.own[1][target], -2 * result.own[1][target])
