"""KnOTS-TIES, TSV-M, Iso-C and Iso-CTS against examples worked by hand and their formulas on dense deltas."""

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from conftest import random_adapter
from torch import Tensor

from lora_lab.backbones import load_backbone
from lora_lab.lora import Factors, LoraFactors, deltas_of
from lora_lab.merging import MergeMethod, Selection, Setting, exact, iso, knots, tsv
from lora_lab.merging.core_space import cores

BACKBONE = load_backbone("tiny")
NAMES = ("emotion", "landmarks", "galaxy")
METHODS = (knots.METHOD, tsv.METHOD, iso.ISO_C, iso.ISO_CTS)
WEIGHTS = [1.0, 0.7, -0.5]
Plain = Callable[[list[Tensor], list[float], Mapping[str, float]], Tensor]


def made(ranks: tuple[int, ...]) -> list[Factors]:
    return [
        random_adapter(BACKBONE, name, rank, seed).factors for seed, (name, rank) in enumerate(zip(NAMES, ranks, strict=True))
    ]


# In core space, in mixed ranks, and where the ranks add up to more than the width of 32, so that it would not pay.
SELECTIONS = {"same": made((4, 4, 4)), "mixed": made((8, 2, 5)), "plain": made((16, 16, 16))}
FACTORS = SELECTIONS["mixed"]
TARGET = BACKBONE.target_modules[1]


def merged(
    method: MergeMethod, weights: list[float], factors: Sequence[Factors] = FACTORS, **knobs: float
) -> dict[str, Tensor]:
    selection = Selection(NAMES[: len(weights)], factors[: len(weights)])
    return dict(method.merge(selection, Setting(weights, method.turned(knobs))).deltas)


def nearest(x: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns."""
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    return u @ vt


def weighted(deltas: list[Tensor], weights: list[float]) -> list[Tensor]:
    return [w * delta for w, delta in zip(weights, deltas, strict=True)]


def significant(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    n = int((s > 1e-5 * s[0]).sum())
    return u[:, :n], s[:n], vt[:n].T


def plain_knots(deltas: list[Tensor], weights: list[float], knobs: Mapping[str, float]) -> Tensor:
    u, s, v = significant(torch.cat(deltas, 1))
    blocks = []
    for block in (s[:, None] * v.T).split(deltas[0].shape[1], 1):
        kept = round(knobs["density"] * block.numel())
        lowest = block.abs().flatten().sort(descending=True).values[kept - 1]
        blocks.append(torch.where(block.abs() >= lowest, block, 0))
    stacked = torch.stack([w * block for w, block in zip(weights, blocks, strict=True)])
    agree = (stacked * stacked.sum(0).sign()) > 0
    return knobs["lambda"] * u @ ((stacked * agree).sum(0) / agree.sum(0).clamp(min=1))


def plain_tsv(deltas: list[Tensor], weights: list[float], knobs: Mapping[str, float]) -> Tensor:
    most = deltas[0].shape[0] // len(deltas)
    u, s, v = (
        torch.cat(side, -1)
        for side in zip(*[[x[..., :most] for x in significant(d)] for d in weighted(deltas, weights)], strict=True)
    )
    return knobs["scale"] * nearest(u) @ torch.diag(s) @ nearest(v).T


def plain_iso_c(deltas: list[Tensor], weights: list[float], knobs: Mapping[str, float]) -> Tensor:
    u, s, v = significant(torch.stack(weighted(deltas, weights)).sum(0))
    return knobs["scale"] * s.mean() * u @ v.T


def plain_iso_cts(deltas: list[Tensor], weights: list[float], knobs: Mapping[str, float]) -> Tensor:
    u, s, v = significant(torch.stack(weighted(deltas, weights)).sum(0))
    each = (len(s) - round(knobs["common"] * len(s))) // len(deltas)
    common = len(s) - each * len(deltas)
    sides = [(u[:, :common], s[:common], v[:, :common])]
    for delta in weighted(deltas, weights):
        own = significant(delta - u[:, :common] @ u[:, :common].T @ delta)
        sides.append((own[0][:, :each], own[1][:each], own[2][:, :each]))
    u, s, v = (torch.cat(side, -1) for side in zip(*sides, strict=True))
    return knobs["scale"] * s.mean() * nearest(u) @ nearest(v).T


PLAIN: list[tuple[MergeMethod, Plain, dict[str, float]]] = [
    (knots.METHOD, plain_knots, {"density": 0.2, "lambda": 1.0}),
    (knots.METHOD, plain_knots, {"density": 1.0, "lambda": 2.0}),
    (tsv.METHOD, plain_tsv, {"scale": 1.0}),
    (iso.ISO_C, plain_iso_c, {"scale": 0.7}),
    (iso.ISO_CTS, plain_iso_cts, {"scale": 1.0, "common": 0.8}),
    (iso.ISO_CTS, plain_iso_cts, {"scale": 1.0, "common": 0.3}),
]


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], WEIGHTS])
@pytest.mark.parametrize("ranks", SELECTIONS)
@pytest.mark.parametrize(("method", "plain", "knobs"), PLAIN, ids=lambda x: getattr(x, "name", ""))
def test_the_same_as_on_dense_deltas(
    method: MergeMethod, plain: Plain, knobs: dict[str, float], ranks: str, weights: list[float]
):
    factors = SELECTIONS[ranks]
    assert cores(Selection(NAMES, factors))[TARGET].pays == (ranks != "plain")
    found = merged(method, weights, factors, **knobs)
    for target in BACKBONE.target_modules:
        deltas = [f[target].delta().double() for f in factors]
        torch.testing.assert_close(found[target], plain(deltas, weights, knobs).float(), atol=1e-5, rtol=1e-5)


def one_row(*numbers: tuple[list[float], list[float]]) -> list[Factors]:
    return [{"m": LoraFactors(torch.tensor([a]), torch.tensor(b)[:, None])} for b, a in numbers]


def test_knots_by_hand():
    # Both write to the first output only, so that the shared direction is that one, and TIES is done on [4, 1] and [−2, 3].
    # The signs of the sums are + and +: of the first only 4 agrees, of the second both, (1 + 3) / 2.
    factors = one_row(([1.0, 0.0], [4.0, 1.0]), ([1.0, 0.0], [-2.0, 3.0]))
    found = merged(knots.METHOD, [1.0, 1.0], factors, density=1.0)["m"]
    torch.testing.assert_close(found, torch.tensor([[4.0, 2.0], [0.0, 0.0]]))
    # With the second three times as strong, the first output's sign turns.
    found = merged(knots.METHOD, [1.0, 3.0], factors, density=1.0)["m"]
    torch.testing.assert_close(found, torch.tensor([[-6.0, 5.0], [0.0, 0.0]]))


def test_tsv_by_hand():
    # Outputs differ already; the inputs [1, 0] and [0.6, 0.8] are turned by the same angle until they are orthogonal.
    factors = one_row(([2.0, 0.0], [1.0, 0.0]), ([0.0, 5.0], [0.6, 0.8]))
    found = merged(tsv.METHOD, [1.0, -1.0], factors)["m"]
    halfway = torch.tensor([1.6, 0.8]) / 3.2**0.5
    across = torch.tensor([halfway[1], -halfway[0]])
    expected = torch.stack([2 * (halfway + across), -5 * (halfway - across)]) / 2**0.5
    torch.testing.assert_close(found, expected)


def test_iso_c_by_hand():
    # The sum is diag(3, 1): both directions at the mean of 2.
    factors = one_row(([3.0, 0.0], [1.0, 0.0]), ([0.0, 1.0], [0.0, 1.0]))
    torch.testing.assert_close(merged(iso.ISO_C, [1.0, 1.0], factors)["m"], torch.diag(torch.tensor([2.0, 2.0])))
    torch.testing.assert_close(merged(iso.ISO_C, [1.0, -1.0], factors)["m"], torch.diag(torch.tensor([2.0, -2.0])))


def test_iso_cts_by_hand():
    # The sum is diag(9, 1, 1); a third of three is common, the first. Without it each task has one direction left, the second
    # of strength 1 and the third, and the mean is (9 + 1 + 1) / 3. Had nothing been projected out, both would bring the first.
    def task(row: list[float]) -> Factors:
        return {"m": LoraFactors(torch.tensor([[1.0, 0.0, 0.0], row]), torch.tensor([[4.5, 0.0, 0.0], row]).T)}

    factors = [task([0.0, 1.0, 0.0]), task([0.0, 0.0, 1.0])]
    found = merged(iso.ISO_CTS, [1.0, 1.0], factors, common=1 / 3)["m"]
    torch.testing.assert_close(found, 11 / 3 * torch.eye(3))


@pytest.mark.parametrize("ranks", SELECTIONS)
def test_knots_with_a_plain_sum_is_the_exact_sum(ranks: str):
    selection = Selection(NAMES, SELECTIONS[ranks])
    total = exact.merge(selection, Setting(WEIGHTS))
    for target, delta in knots.plain_sum(selection, WEIGHTS).items():
        torch.testing.assert_close(delta, total[target], atol=1e-5, rtol=1e-5)


def test_tsv_of_one_adapter_is_the_adapter():
    for target, delta in deltas_of(FACTORS[0]).items():
        torch.testing.assert_close(merged(tsv.METHOD, [1.0])[target], delta, atol=1e-5, rtol=1e-5)


def test_tsv_directions_are_orthonormal_and_no_more_than_the_width_holds():
    pairs = [factors[TARGET] for factors in SELECTIONS["plain"]]
    found = tsv.orthogonal(pairs)
    assert [pair.rank for pair in found] == [10, 10, 10]
    rows = torch.cat([pair.a for pair in found])
    torch.testing.assert_close(rows @ rows.T, torch.eye(30), atol=1e-5, rtol=0)


def test_two_of_a_kind_count_once_under_tsv():
    found = merged(tsv.METHOD, [1.0, 1.0], [FACTORS[0], FACTORS[0]])[TARGET]
    torch.testing.assert_close(found, FACTORS[0][TARGET].delta(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", [iso.ISO_C, iso.ISO_CTS], ids=lambda method: method.name)
@pytest.mark.parametrize(("ranks", "directions"), [("mixed", 15), ("plain", 32)])
def test_all_singular_values_of_an_isotropic_merge_are_equal(method: MergeMethod, ranks: str, directions: int):
    s = torch.linalg.svdvals(merged(method, WEIGHTS, SELECTIONS[ranks])[TARGET])
    torch.testing.assert_close(s[:directions], s[0].expand(directions), atol=1e-4, rtol=1e-4)
    assert float(s[directions:].sum()) < 1e-4


def test_iso_cts_with_all_directions_common_is_iso_c():
    common, flat = merged(iso.ISO_CTS, WEIGHTS, common=1.0), merged(iso.ISO_C, WEIGHTS)
    torch.testing.assert_close(common[TARGET], flat[TARGET], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_adapters_on_different_modules(method: MergeMethod):
    only = {TARGET: FACTORS[1][TARGET]}
    found = merged(method, [1.0, 0.5], [FACTORS[0], only])
    other = BACKBONE.target_modules[0]
    assert set(found) == set(BACKBONE.target_modules)
    torch.testing.assert_close(found[other], merged(method, [1.0])[other], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[TARGET], merged(method, [1.0, 0.5])[TARGET], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_delta_at_all_stays_none(method: MergeMethod):
    idle = [{TARGET: LoraFactors(f[TARGET].a, torch.zeros_like(f[TARGET].b))} for f in FACTORS]
    assert float(merged(method, WEIGHTS, idle)[TARGET].abs().max()) == 0
