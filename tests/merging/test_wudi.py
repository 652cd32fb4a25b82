"""WUDI against examples worked by hand, the plain formulas, RegMean, and what it is for."""

from collections.abc import Sequence

import pytest
import torch
from conftest import random_adapter
from torch import Tensor

from lora_lab.backbones import load_backbone
from lora_lab.lora import Factors, LoraFactors, deltas_of
from lora_lab.merging import MergeMethod, Selection, Setting, exact, regmean, wudi

BACKBONE = load_backbone("tiny")
NAMES = ("emotion", "landmarks", "galaxy")
FACTORS = [
    random_adapter(BACKBONE, name, rank, seed).factors for seed, (name, rank) in enumerate(zip(NAMES, (4, 8, 2), strict=True))
]
TARGET = BACKBONE.target_modules[1]
WEIGHTS = [1.0, 0.7, -0.5]


def merged(
    method: MergeMethod, weights: list[float], factors: Sequence[Factors] = FACTORS, **knobs: float
) -> dict[str, Tensor]:
    selection = Selection(NAMES[: len(weights)], factors[: len(weights)])
    return dict(method.merge(selection, Setting(weights, method.turned(knobs))).deltas)


def heard(delta: Tensor) -> Tensor:
    return delta.T @ delta / delta.square().sum()


def deltas() -> list[Tensor]:
    return [f[TARGET].delta().double() for f in FACTORS]


def test_soft_by_hand():
    # Both have one row: 2 [1, 0], and 3 [1, 0]. Each H is diag(1, 0), and the mean diagonal of ΣH is 1, so ε = 1.
    # To nothing: (2 + 3) / (2 + 1). To the sum: (2 + 3) (1 + 1) / (2 + 1).
    one, two = ({"m": LoraFactors(torch.tensor([[1.0, 0.0]]), torch.tensor([[b]]))} for b in (2.0, 3.0))
    for anchor, expected in ((0, 5 / 3), (1, 10 / 3)):
        setting = Setting([1.0, 1.0], {"damping": 1.0, "anchor": anchor})
        found = wudi.SOFT.merge(Selection(["one", "two"], [one, two]), setting).deltas["m"]
        torch.testing.assert_close(found, torch.tensor([[expected, 0.0]]))


def test_hard_by_hand():
    # ΔW_1 = [2, 0] and ΔW_2 = 3 [1, 1]. On [1, 0] it must be 2, on [1, 1] 6: so [2, 4], where the sum is [5, 3].
    one = {"m": LoraFactors(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0]]))}
    two = {"m": LoraFactors(torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0]]))}
    found = wudi.HARD.merge(Selection(["one", "two"], [one, two]), Setting([1.0, 1.0])).deltas["m"]
    torch.testing.assert_close(found, torch.tensor([[2.0, 4.0]]))


@pytest.mark.parametrize("damping", [0.1, 10.0])
@pytest.mark.parametrize("anchor", [0.0, 1.0])
def test_the_formula_in_mixed_ranks(damping: float, anchor: float):
    ridge = damping * 3 / 32 * torch.eye(32, dtype=torch.float64)
    listened = [heard(d) for d in deltas()]
    numerator = torch.stack([w * d @ (h + anchor * ridge) for w, d, h in zip(WEIGHTS, deltas(), listened, strict=True)]).sum(0)
    expected = numerator @ torch.linalg.inv(torch.stack(listened).sum(0) + ridge)
    found = merged(wudi.SOFT, WEIGHTS, damping=damping, anchor=anchor)[TARGET]
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-5)


def test_soft_is_regmean_on_what_the_adapters_listen_to():
    # Ranks that add up to more than the width, so that ΣH has an inverse and neither needs a ridge.
    factors = [random_adapter(BACKBONE, name, 16, seed).factors for seed, name in enumerate(NAMES)]
    grams = [{target: heard(delta.double()) for target, delta in deltas_of(f).items()} for f in factors]
    setting = Setting(WEIGHTS, {"off_diagonals": 1.0, "balance": 0.0})
    fitted = regmean.METHOD.merge(Selection(NAMES, factors, grams), setting).deltas
    found = merged(wudi.SOFT, WEIGHTS, factors, damping=1e-6, anchor=0)
    for target in BACKBONE.target_modules:
        torch.testing.assert_close(found[target], fitted[target], atol=1e-4, rtol=1e-3)


def test_hard_does_what_each_adapter_does_on_its_rows_and_nothing_else():
    found = merged(wudi.HARD, WEIGHTS)[TARGET]
    for weight, factors in zip(WEIGHTS, FACTORS, strict=True):
        pair = factors[TARGET]
        torch.testing.assert_close(found @ pair.a.T, weight * pair.delta() @ pair.a.T, atol=1e-4, rtol=1e-4)
    rows = torch.cat([factors[TARGET].a for factors in FACTORS])
    beside = torch.eye(32) - torch.linalg.pinv(rows) @ rows
    assert float((found @ beside).abs().max()) < 1e-5


def test_hard_is_soft_with_no_damping():
    found, limit = merged(wudi.HARD, WEIGHTS)[TARGET], merged(wudi.SOFT, WEIGHTS, damping=1e-6, anchor=0)[TARGET]
    assert float((found - limit).norm() / found.norm()) < 1e-3


def test_much_damping_gives_the_exact_sum_or_nothing():
    total = exact.merge(Selection(NAMES, FACTORS), Setting(WEIGHTS))[TARGET]
    anchored, free = (merged(wudi.SOFT, WEIGHTS, damping=100.0, anchor=anchor)[TARGET] for anchor in (1, 0))
    assert float((anchored - total).norm() / total.norm()) < 0.1
    assert float(free.norm() / total.norm()) < 0.1


@pytest.mark.parametrize("damping", [0.1, 10.0])
def test_one_adapter_alone_stays_what_it_is_under_hard_and_anchored_soft(damping: float):
    for found in (merged(wudi.HARD, [1.0]), merged(wudi.SOFT, [1.0], damping=damping, anchor=1)):
        for target, delta in deltas_of(FACTORS[0]).items():
            torch.testing.assert_close(found[target], delta, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", [wudi.SOFT, wudi.HARD], ids=lambda method: method.name)
def test_a_module_counts_only_those_that_touch_it(method: MergeMethod):
    only = {TARGET: FACTORS[1][TARGET]}
    found = merged(method, [1.0, 1.0], [FACTORS[0], only])
    other = BACKBONE.target_modules[0]
    torch.testing.assert_close(found[other], FACTORS[0][other].delta(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[TARGET], merged(method, [1.0, 1.0])[TARGET])


def test_rows_that_b_does_not_use_are_not_obeyed():
    pair = FACTORS[0][TARGET]
    padded = {TARGET: LoraFactors(torch.cat([pair.a, FACTORS[1][TARGET].a[:2]]), torch.cat([pair.b, torch.zeros(32, 2)], 1))}
    found = merged(wudi.HARD, [1.0, 1.0], [padded, FACTORS[1]])[TARGET]
    torch.testing.assert_close(found, merged(wudi.HARD, [1.0, 1.0])[TARGET], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", [wudi.SOFT, wudi.HARD], ids=lambda method: method.name)
def test_an_adapter_that_does_nothing_changes_nothing(method: MergeMethod):
    idle = {TARGET: LoraFactors(FACTORS[1][TARGET].a, torch.zeros(32, 8))}
    found = merged(method, [1.0, 1.0], [FACTORS[0], idle], **({"anchor": 1} if method is wudi.SOFT else {}))[TARGET]
    torch.testing.assert_close(found, FACTORS[0][TARGET].delta(), atol=1e-5, rtol=1e-5)
