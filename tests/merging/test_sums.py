"""The other sums: factor-wise, uniform and truncated, by hand, against peft, and the laws they keep."""

from pathlib import Path
from typing import cast

import pytest
import torch
from conftest import random_adapter
from peft import PeftModel
from peft.tuners.lora.layer import Linear as LoraLayer

from lora_lab.adapters import Adapter, save_adapter
from lora_lab.backbones import Deltas, load_backbone
from lora_lab.lora import LoraFactors
from lora_lab.merging import MergeMethod, Selection, Setting, exact, factorwise, truncated, uniform
from lora_lab.tasks import TASKS

BACKBONE = load_backbone("tiny")
NAMES = list(TASKS)[:3]
WEIGHTS = [0.7, -1.3, 0.4]


def adapters(*ranks: int) -> list[Adapter]:
    return [random_adapter(BACKBONE, name, rank, seed) for seed, (name, rank) in enumerate(zip(NAMES, ranks, strict=False))]


def select(members: list[Adapter]) -> Selection:
    return Selection([m.name for m in members], [m.factors for m in members])


def made(method: MergeMethod, selection: Selection, weights: list[float], **knobs: float) -> Deltas:
    return method.merge(selection, Setting(weights, method.turned(knobs))).deltas


def by_peft(members: list[Adapter], folder: Path, **how: object) -> Deltas:
    """The deltas of peft's weighted adapter."""
    for member in members:
        save_adapter(member, folder / member.name)
    names = [member.name for member in members]
    model = PeftModel.from_pretrained(load_backbone("tiny").module, str(folder / names[0]), adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(str(folder / name), adapter_name=name)
    model.add_weighted_adapter(names, adapter_name="merged", **how)
    modules = {target: cast(LoraLayer, model.get_base_model().get_submodule(target)) for target in BACKBONE.target_modules}
    with torch.no_grad():
        return {target: module.get_delta_weight("merged") for target, module in modules.items()}


def agree(one: Deltas, two: Deltas) -> None:
    assert one.keys() == two.keys()
    for target, delta in one.items():
        torch.testing.assert_close(delta, two[target], atol=1e-5, rtol=1e-5)


def distance(one: Deltas, two: Deltas) -> float:
    """‖one − two‖ / ‖two‖ over all modules."""
    apart = sum(float((one[t] - two[t]).square().sum()) for t in two)
    return (apart / sum(float(delta.square().sum()) for delta in two.values())) ** 0.5


def pair(a: list[list[float]], b: list[list[float]]) -> LoraFactors:
    return LoraFactors(torch.tensor(a), torch.tensor(b))


@pytest.mark.parametrize(("weight", "expected"), [(1.0, [[4.0, 2.0], [2.0, 1.0]]), (-1.0, [[4.0, -2.0], [2.0, -1.0]])])
def test_factor_wise_by_hand(weight: float, expected: list[list[float]]):
    # A = 2 [1, 0] ± [0, 1] and B = 2 [1, 0] + [0, 1]; the exact sum is diag(4, ±1), so the 2s are cross terms.
    both = Selection(["one", "two"], [{"m": pair([[1.0, 0.0]], [[1.0], [0.0]])}, {"m": pair([[0.0, 1.0]], [[0.0], [1.0]])}])
    assert made(factorwise.METHOD, both, [4.0, weight])["m"].tolist() == expected


def test_factor_wise_fills_smaller_ranks_with_zeros():
    first, second = adapters(5, 2)
    filled = {
        target: LoraFactors(torch.cat([f.a, f.a.new_zeros(3, 32)]), torch.cat([f.b, f.b.new_zeros(32, 3)], 1))
        for target, f in second.factors.items()
    }
    mixed = made(factorwise.METHOD, select([first, second]), [0.5, -2.0])
    agree(mixed, made(factorwise.METHOD, Selection(["one", "two"], [first.factors, filled]), [0.5, -2.0]))


def test_factor_wise_is_what_peft_calls_linear_and_is_not_the_sum(tmp_path: Path):
    members = adapters(8, 8, 8)
    ours = made(factorwise.METHOD, select(members), WEIGHTS)
    agree(ours, by_peft(members, tmp_path, weights=WEIGHTS, combination_type="linear"))
    assert distance(ours, exact.METHOD.merge(select(members), Setting(WEIGHTS)).deltas) > 0.8


def test_uniform_by_hand():
    both = Selection(["one", "two"], [{"m": pair([[3.0, 4.0]], [[1.0], [2.0]])}, {"m": pair([[0.0, 1.0]], [[1.0], [0.0]])}])
    # Half of [[3, 4], [6, 8]] + [[0, 1], [0, 0]].
    assert made(uniform.METHOD, both, [2.0, -1.0])["m"].tolist() == [[1.5, 2.5], [3.0, 4.0]]
    assert "weights" in uniform.METHOD.refuses


def test_truncated_by_hand():
    # diag(1, −3, 2) without its smallest singular value; 1 of 1 + 9 + 4 is lost.
    three = Selection(["one"], [{"m": pair([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [[1.0, 0, 0], [0, -3, 0], [0, 0, 2]])}])
    torch.testing.assert_close(made(truncated.METHOD, three, [1.0], rank=2)["m"], torch.diag(torch.tensor([0.0, -3, 2])))
    assert truncated.relative_error(three, Setting([1.0], {"rank": 2})) == pytest.approx((1 / 14) ** 0.5)


@pytest.mark.parametrize("ranks", [(4, 9, 2), (16, 16, 16)])
def test_truncated_is_what_peft_calls_svd(tmp_path: Path, ranks: tuple[int, ...]):
    members = adapters(*ranks)
    ours = made(truncated.METHOD, select(members), WEIGHTS, rank=5)
    agree(ours, by_peft(members, tmp_path, weights=WEIGHTS, combination_type="svd", svd_rank=5))


def test_the_error_of_the_truncation_is_its_distance_from_the_sum():
    selection = select(adapters(4, 9, 2))
    whole = exact.METHOD.merge(selection, Setting(WEIGHTS)).deltas
    stated = [truncated.relative_error(selection, Setting(WEIGHTS, {"rank": rank})) for rank in (1, 5, 14)]
    found = [distance(made(truncated.METHOD, selection, WEIGHTS, rank=rank), whole) for rank in (1, 5, 14)]
    assert stated == pytest.approx(found, abs=1e-5)
    assert stated == sorted(stated, reverse=True)


@pytest.mark.parametrize("rank", [15, 128])
def test_a_rank_that_holds_the_sum_loses_nothing(rank: int):
    selection = select(adapters(4, 9, 2))
    agree(made(truncated.METHOD, selection, WEIGHTS, rank=rank), exact.METHOD.merge(selection, Setting(WEIGHTS)).deltas)
    assert truncated.relative_error(selection, Setting(WEIGHTS, {"rank": rank})) < 1e-5


def test_the_error_of_a_sum_of_nothing_is_zero():
    twice = Selection(["one", "two"], [adapters(4)[0].factors] * 2)
    none = {target: LoraFactors(f.a, 0 * f.b) for target, f in twice.factors[0].items()}
    assert truncated.relative_error(Selection(["one"], [none]), Setting([1.0], {"rank": 2})) == 0


@pytest.mark.parametrize("method", [factorwise.METHOD, truncated.METHOD], ids=lambda m: m.name)
def test_weights_times_a_number_give_deltas_times_it(method: MergeMethod):
    selection = select(adapters(4, 9, 2))
    once = made(method, selection, WEIGHTS)
    agree(made(method, selection, [-1.5 * w for w in WEIGHTS]), {target: -1.5 * delta for target, delta in once.items()})


@pytest.mark.parametrize("method", [factorwise.METHOD, uniform.METHOD, truncated.METHOD], ids=lambda m: m.name)
def test_order_changes_nothing_and_modules_may_differ(method: MergeMethod):
    first, second = adapters(4, 9)
    part = dict(list(second.factors.items())[1:])
    there = made(method, Selection(["one", "two"], [first.factors, part]), [1.5, -0.5])
    assert there.keys() == first.factors.keys()
    agree(there, made(method, Selection(["two", "one"], [part, first.factors]), [-0.5, 1.5]))


@pytest.mark.parametrize("method", [factorwise.METHOD, uniform.METHOD], ids=lambda m: m.name)
def test_one_adapter_alone_is_itself(method: MergeMethod):
    (only,) = adapters(4)
    agree(made(method, select([only]), [1.0]), {target: f.delta() for target, f in only.factors.items()})
