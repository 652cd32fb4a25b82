"""RegMean against examples worked by hand, the plain formula, and its own objective."""

from collections.abc import Sequence

import pytest
import torch
from conftest import random_adapter
from torch import Tensor

from lora_lab.backbones import load_backbone
from lora_lab.errors import LoraLabError
from lora_lab.lora import Factors, LoraFactors, deltas_of
from lora_lab.merging import Selection, Setting, regmean

BACKBONE = load_backbone("tiny")
NAMES = ("emotion", "landmarks", "galaxy")
FACTORS = [
    random_adapter(BACKBONE, name, rank, seed).factors for seed, (name, rank) in enumerate(zip(NAMES, (4, 8, 2), strict=True))
]
TARGET = BACKBONE.target_modules[1]
PLAIN = {"off_diagonals": 1.0, "balance": 0.0}


def grams(count: int, tokens: int = 200) -> list[dict[str, Tensor]]:
    """Gram matrices of correlated inputs, of a different size for each adapter."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for k in range(count):
        mix = torch.randn(32, 32, generator=generator)
        inputs = (k + 1) * torch.randn(tokens, 32, generator=generator) @ mix
        found.append(dict.fromkeys(BACKBONE.target_modules, inputs.T @ inputs / tokens))
    return found


GRAMS = grams(3)


def merged(weights: list[float], knobs: dict[str, float], factors: Sequence[Factors] = FACTORS) -> dict[str, Tensor]:
    selection = Selection(NAMES[: len(weights)], factors[: len(weights)], GRAMS[: len(weights)])
    return dict(regmean.METHOD.merge(selection, Setting(weights, knobs)).deltas)


def formula(weights: list[float], matrices: list[Tensor]) -> Tensor:
    """(Σ w ΔW G) (Σ G)⁻¹, as it stands."""
    deltas = [f[TARGET].delta().double() for f in FACTORS]
    numerator = sum(w * d @ g for w, d, g in zip(weights, deltas, matrices, strict=True))
    return numerator @ torch.linalg.inv(torch.stack(matrices).sum(0))  # type: ignore[operator]


def test_by_hand():
    # One input row: 3 times [1, 0] at weight 2 with G = diag(1, 3), and [1, 1] at weight 1 with G = diag(3, 1).
    # First input: (6·1 + 1·3) / 4 = 2.25; second: (0·3 + 1·1) / 4 = 0.25.
    one = {"m": LoraFactors(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0]]))}
    two = {"m": LoraFactors(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0]]))}
    matrices = [{"m": torch.diag(torch.tensor([1.0, 3.0]))}, {"m": torch.diag(torch.tensor([3.0, 1.0]))}]
    setting = Setting([2.0, 1.0], PLAIN)
    deltas = regmean.METHOD.merge(Selection(["one", "two"], [one, two], matrices), setting).deltas
    torch.testing.assert_close(deltas["m"], torch.tensor([[2.25, 0.25]]))


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.5, -1.0, 2.0]])
@pytest.mark.parametrize("off_diagonals", [0.0, 0.9, 1.0])
def test_the_formula_in_mixed_ranks(weights: list[float], off_diagonals: float):
    matrices = [g[TARGET].double() for g in GRAMS]
    matrices = [off_diagonals * g + (1 - off_diagonals) * torch.diag(g.diagonal()) for g in matrices]
    found = merged(weights, {"off_diagonals": off_diagonals, "balance": 0})[TARGET]
    torch.testing.assert_close(found, formula(weights, matrices).float(), atol=1e-5, rtol=1e-5)


def test_balanced_gram_matrices_have_the_same_trace():
    matrices = [g[TARGET].double() / g[TARGET].trace() for g in GRAMS]
    found = merged([1.0, 1.0, 1.0], {**PLAIN, "balance": 1})[TARGET]
    torch.testing.assert_close(found, formula([1.0] * 3, matrices).float(), atol=1e-5, rtol=1e-5)


def test_nothing_near_it_is_better():
    weights = [1.0, 0.7, -0.5]
    found = merged(weights, PLAIN)[TARGET].double()

    def objective(delta: Tensor) -> float:
        misses = [delta - w * f[TARGET].delta().double() for w, f in zip(weights, FACTORS, strict=True)]
        return float(sum((m @ g[TARGET].double() * m).sum() for m, g in zip(misses, GRAMS, strict=True)))

    least = objective(found)
    generator = torch.Generator().manual_seed(2)
    for size in (1e-3, 1e-1):
        for _ in range(20):
            step = size * torch.randn(found.shape, generator=generator, dtype=torch.float64)
            assert objective(found + step) > least


@pytest.mark.parametrize("knobs", [PLAIN, {"off_diagonals": 0.8, "balance": 1.0}])
def test_one_adapter_alone_stays_what_it_is(knobs: dict[str, float]):
    for target, delta in deltas_of(FACTORS[0]).items():
        torch.testing.assert_close(merged([1.0], knobs)[target], delta, atol=1e-5, rtol=1e-5)


def test_a_moved_slider_changes_nothing_that_was_made_before():
    prepared = regmean.METHOD.prepare(Selection(NAMES, FACTORS, GRAMS))
    first = prepared(Setting([1.0, 1.0, 1.0], PLAIN)).deltas[TARGET]
    kept = first.clone()
    prepared(Setting([0.1, 1.0, 1.0], PLAIN))
    prepared(Setting([1.0, 1.0, 1.0], {**PLAIN, "off_diagonals": 0.5}))
    assert torch.equal(first, kept)
    assert torch.equal(prepared(Setting([1.0, 1.0, 1.0], PLAIN)).deltas[TARGET], kept)


def test_a_module_counts_only_those_that_touch_it():
    only = {TARGET: FACTORS[1][TARGET]}
    found = merged([1.0, 1.0], PLAIN, [FACTORS[0], only])
    other = BACKBONE.target_modules[0]
    torch.testing.assert_close(found[other], FACTORS[0][other].delta(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[TARGET], merged([1.0, 1.0], PLAIN)[TARGET])


def test_gram_matrices_with_an_eigenvalue_below_zero_are_taken():
    """What is kept in float16 may be a little off."""
    off = [{TARGET: torch.diag(torch.tensor([-1e-3] + [1.0] * 31))} for _ in range(2)]
    factors = [{TARGET: f[TARGET]} for f in FACTORS[:2]]
    deltas = regmean.METHOD.merge(Selection(NAMES[:2], factors, off), Setting([1.0, 1.0], PLAIN)).deltas
    mean = (factors[0][TARGET].delta() + factors[1][TARGET].delta()) / 2
    torch.testing.assert_close(deltas[TARGET], mean, atol=1e-4, rtol=1e-4)


def test_what_is_no_gram_matrix_is_refused():
    selection = Selection(["one"], [{TARGET: FACTORS[0][TARGET]}], [{TARGET: torch.full((32, 32), torch.nan)}])
    with pytest.raises(LoraLabError, match="no Gram matrices"):
        regmean.METHOD.merge(selection, Setting([1.0], PLAIN))
