"""The shared bases against an example by hand, and that nothing is lost in them."""

import pytest
import torch

from lora_lab.lora import LoraFactors
from lora_lab.merging import Selection
from lora_lab.merging.core_space import cores, stacks


def same(one: torch.Tensor, two: torch.Tensor) -> None:
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def random_pair(rank: int, seed: int, out: int = 20, width: int = 24) -> LoraFactors:
    generator = torch.Generator().manual_seed(seed)
    return LoraFactors(torch.randn(rank, width, generator=generator), torch.randn(out, rank, generator=generator))


def select(*pairs: LoraFactors) -> Selection:
    return Selection([f"adapter{i}" for i in range(len(pairs))], [{"m": pair} for pair in pairs])


def test_by_hand():
    # ΔW of the first has a 2 at (0, 0), that of the second a 3 at (1, 2): the axes are those, the smaller first.
    one = LoraFactors(torch.tensor([[2.0, 0, 0]]), torch.tensor([[1.0], [0], [0]]))
    two = LoraFactors(torch.tensor([[0, 0, 1.0]]), torch.tensor([[0], [3.0], [0]]))
    core = cores(select(one, two))["m"]
    torch.testing.assert_close(core.left.abs(), torch.tensor([[1.0, 0], [0, 1], [0, 0]]))
    torch.testing.assert_close(core.right.abs(), torch.tensor([[1.0, 0], [0, 0], [0, 1]]))
    torch.testing.assert_close(core.parts.abs(), torch.tensor([[[2.0, 0], [0, 0]], [[0, 0], [0, 3]]]))


@pytest.mark.parametrize("ranks", [(4,), (1, 7, 2), (6, 6, 7), (4, 16), (16, 16, 16)])
def test_nothing_is_lost(ranks: tuple[int, ...]):
    pairs = [random_pair(rank, seed) for seed, rank in enumerate(ranks)]
    core = cores(select(*pairs))["m"]
    assert core.pays == (sum(ranks) < 20)
    for basis in (core.left, core.right):
        same(basis.T @ basis, torch.eye(basis.shape[1]))
    for pair, part in zip(pairs, core.parts, strict=True):
        same(core.lift(part), pair.delta())


def test_columns_that_repeat_lose_nothing():
    pair = random_pair(3, 0)
    twice = LoraFactors(torch.cat([pair.a, pair.a]), torch.cat([pair.b, pair.b], 1))
    core = cores(select(pair, twice, LoraFactors(pair.a, 0 * pair.b)))["m"]
    same(core.left.T @ core.left, torch.eye(12))
    for part, expected in zip(core.parts, (pair.delta(), 2 * pair.delta(), 0 * pair.delta()), strict=True):
        same(core.lift(part), expected)


def test_an_adapter_without_the_module_has_a_part_of_zero():
    pair, other = random_pair(2, 0), random_pair(3, 1)
    both = Selection(["one", "two"], [{"m": pair, "n": pair}, {"n": other}])
    core = cores(both)
    assert list(core) == ["m", "n"]
    assert not core["m"].parts[1].any()
    same(core["n"].lift(core["n"].parts[1]), other.delta())


def test_the_axes_follow_from_the_deltas_alone():
    pairs = [random_pair(rank, seed) for seed, rank in enumerate((2, 5))]
    # Another split of the second ΔW: B G and G⁻¹ A.
    turn = torch.randn(5, 5, generator=torch.Generator().manual_seed(9)) + 4 * torch.eye(5)
    split = LoraFactors(torch.linalg.solve(turn, pairs[1].a), pairs[1].b @ turn)
    first, second = cores(select(*pairs))["m"], cores(select(split, pairs[0]))["m"]
    torch.testing.assert_close(first.parts.abs(), second.parts.flip(0).abs(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("space", [0, 1])
def test_a_stack_holds_all_modules_of_a_shape(space: int):
    wide = {"m": random_pair(2, 0), "n": random_pair(2, 1), "o": random_pair(2, 2, out=30)}
    more = {"m": random_pair(3, 3), "n": random_pair(3, 4), "o": random_pair(3, 5, out=30)}
    found = stacks(Selection(["one", "two"], [wide, more]), space)
    assert [stack.targets for stack in found] == [("m", "n"), ("o",)]
    for stack in found:
        for target, delta in stack.lift(stack.total([2.0, -0.5])).items():
            same(delta, 2 * wide[target].delta() - 0.5 * more[target].delta())
