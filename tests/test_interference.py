"""The measures on examples worked by hand, against their dense formulas, and the laws that they keep; ρ against SciPy's."""

import warnings
from collections.abc import Sequence
from itertools import permutations, product
from math import isnan, sqrt

import numpy as np
import pytest
import torch
from conftest import random_adapter
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor

from lora_lab import interference
from lora_lab.backbones import Backbone
from lora_lab.errors import MismatchError, NotFoundError
from lora_lab.interference import MEASURES, by_pair, rank_correlation, take_apart, weight_interference
from lora_lab.lora import LoraFactors

KEY = "encoder.layer.0.attention.k_proj"
SEEDS = st.integers(0, 10_000)
RANKS = st.sampled_from([(1, 1), (3, 2), (2, 5), (4, 4), (6, 3)])


def matrix(rows: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def random_factors(rank: int, seed: int, rows: int = 9, columns: int = 8) -> LoraFactors:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, columns, generator=generator, dtype=torch.float64)
    return LoraFactors(a, torch.randn(rows, rank, generator=generator, dtype=torch.float64))


def measured(task: LoraFactors, partner: LoraFactors) -> dict[str, float]:
    one, two = take_apart(task), take_apart(partner)
    return {name: measure.compare(one, two) for name, measure in MEASURES.items()}


# ΔW_i = [[3, 0], [0, 1], [0, 0]] with A_i = I, and ΔW_j = [[0], [2], [0]] [[0.6, 0.8]] = [[0, 0], [1.2, 1.6], [0, 0]].
TASK = LoraFactors(matrix([[1, 0], [0, 1]]), matrix([[3, 0], [0, 1], [0, 0]]))
PARTNER = LoraFactors(matrix([[0.6, 0.8]]), matrix([[0], [2], [0]]))
BY_HAND = {
    # The inner product is 1 · 1.6; the norms are √10 and 2.
    "cosine": (1.6 / (2 * sqrt(10)), 1.6 / (2 * sqrt(10))),
    # One entry is not zero in both, 1 and 1.6, and its signs agree.
    "sign_conflict": (0.0, 0.0),
    "norm_ratio": (2 / sqrt(10), sqrt(10) / 2),
    # U_iᵀ ΔW_j V_i = [[0, 0], [1.2, 1.6]], and u_jᵀ ΔW_i v_j = (0, 1)·(0.6, 0.8) = 0.8: 1.2 + 1.6 + 0.8.
    "singular_interference": (3.6, 3.6),
    # A_i's rows span everything, so all of ΔW_j passes; of ΔW_i, ΔW_i (0.6, 0.8) = (1.8, 0.8) does.
    "input_share": (2 / sqrt(10), sqrt(1.8**2 + 0.8**2) / 2),
    # ΔW_j's left space is the second axis, which holds the row (0, 1) of ΔW_i. 9 of ‖ΔW_i‖² = 10 is less than 95 %, so ΔW_i's
    # space is both of its axes, and holds all of ΔW_j.
    "alignment": (1 / sqrt(10), 1.0),
}


@pytest.mark.parametrize("name", list(MEASURES))
def test_by_hand(name: str):
    there, back = BY_HAND[name]
    assert MEASURES[name].between(TASK, PARTNER) == pytest.approx(there, abs=1e-12)
    assert MEASURES[name].between(PARTNER, TASK) == pytest.approx(back, abs=1e-12)


def test_sign_conflict_by_hand():
    """Of [[1, 2], [−3, 0]] and [[−1, 5], [−3, 4]] three entries are not zero in both, and one of them differs in sign."""
    one = LoraFactors(matrix([[1, 2], [-3, 0]]), torch.eye(2, dtype=torch.float64))
    two = LoraFactors(matrix([[-1, 5], [-3, 4]]), torch.eye(2, dtype=torch.float64))
    assert MEASURES["sign_conflict"].between(one, two) == pytest.approx(1 / 3)


def test_the_space_of_alignment_holds_95_percent_and_no_more():
    """Energies 16, 3, 1 sum to 20: the first two hold exactly 95 %, and of 16, 2, 2 it takes all three."""
    eye = torch.eye(3, dtype=torch.float64)
    third = LoraFactors(eye[2:], eye[:, 2:])
    for energies, share in (([16.0, 3.0, 1.0], 0.0), ([16.0, 2.0, 2.0], 1.0)):
        partner = LoraFactors(torch.diag(matrix([energies])[0].sqrt()), eye)
        assert MEASURES["alignment"].between(third, partner) == pytest.approx(share, abs=1e-12)


def dense(task: LoraFactors, partner: LoraFactors) -> dict[str, float]:
    """The formulas as they are written, on the whole matrices."""
    one, two = task.delta(), partner.delta()
    (u1, s1, v1), (u2, s2, v2) = (torch.linalg.svd(delta, full_matrices=False) for delta in (one, two))
    u1, s1, v1 = u1[:, : task.rank], s1[: task.rank], v1[: task.rank]
    u2, s2, v2 = u2[:, : partner.rank], s2[: partner.rank], v2[: partner.rank]
    u, v, s = torch.cat([u1, u2], 1), torch.cat([v1, v2]).T, torch.diag(torch.cat([s1, s2]))
    eye = torch.eye(len(s), dtype=s.dtype)
    top = next(k for k in range(1, len(s2) + 1) if s2[:k].square().sum() >= 0.95 * s2.square().sum())
    both = (one != 0) & (two != 0)
    listens = torch.linalg.pinv(task.a) @ task.a
    return {
        "cosine": float((one * two).sum() / one.norm() / two.norm()),
        "sign_conflict": float((one.sign() != two.sign())[both].double().mean()),
        "norm_ratio": float(two.norm() / one.norm()),
        "singular_interference": float(((u.T @ u - eye) @ s @ (v.T @ v - eye)).abs().sum()),
        "input_share": float((two @ listens).norm() / one.norm()),
        "alignment": float((u2[:, :top] @ u2[:, :top].T @ one).norm() / one.norm()),
    }


@settings(max_examples=15, deadline=None)
@given(RANKS, SEEDS)
def test_the_small_space_gives_what_the_dense_formulas_give(ranks: tuple[int, int], seed: int):
    task, partner = random_factors(ranks[0], seed), random_factors(ranks[1], seed + 1)
    assert measured(task, partner) == pytest.approx(dense(task, partner), abs=1e-9)


def test_what_is_directed_is_another_number_the_other_way_round():
    assert {name for name, (there, back) in BY_HAND.items() if there != back} == {
        m.name for m in MEASURES.values() if m.directed
    }


@settings(max_examples=10, deadline=None)
@given(RANKS, SEEDS)
def test_ranges_and_what_is_the_same_both_ways(ranks: tuple[int, int], seed: int):
    task, partner = random_factors(ranks[0], seed), random_factors(ranks[1], seed + 1)
    found, back = measured(task, partner), measured(partner, task)
    for measure in MEASURES.values():
        assert measure.directed or found[measure.name] == pytest.approx(back[measure.name], abs=1e-10), measure.name
    assert -1 <= found["cosine"] <= 1
    assert 0 <= found["sign_conflict"] <= 1
    assert 0 <= found["input_share"] <= found["norm_ratio"] + 1e-12
    assert 0 <= found["alignment"] <= 1 + 1e-12


@settings(max_examples=10, deadline=None)
@given(RANKS, SEEDS)
def test_how_a_delta_is_factored_does_not_matter(ranks: tuple[int, int], seed: int):
    """A → M A and B → B M⁻¹ leave B A as it is, and the rows of A span what they did."""
    task, partner = random_factors(ranks[0], seed), random_factors(ranks[1], seed + 1)
    mix = random_factors(ranks[0], seed + 2, ranks[0], ranks[0]).a + 3 * torch.eye(ranks[0], dtype=torch.float64)
    mixed = LoraFactors(mix @ task.a, task.b @ torch.linalg.inv(mix))
    twice = LoraFactors(torch.cat([task.a, task.a]), torch.cat([0.3 * task.b, 0.7 * task.b], 1))
    for other in (mixed, twice):
        assert measured(other, partner) == pytest.approx(measured(task, partner), rel=1e-6, abs=1e-7)
        assert measured(partner, other) == pytest.approx(measured(partner, task), rel=1e-6, abs=1e-7)


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.sampled_from([0.25, 2.0, 5.0]))
def test_what_scaling_does(seed: int, scale: float):
    task, partner = random_factors(3, seed), random_factors(2, seed + 1)
    louder = LoraFactors(partner.a, scale * partner.b)
    factor = {name: scale if name in ("norm_ratio", "input_share") else 1.0 for name in MEASURES}
    before, after = measured(task, partner), measured(task, louder)
    for name in MEASURES.keys() - {"singular_interference"}:
        assert after[name] == pytest.approx(factor[name] * before[name], abs=1e-10), name
    # Interference is of the weights' own size: it scales where both do.
    both = MEASURES["singular_interference"].between(LoraFactors(task.a, scale * task.b), louder)
    assert both == pytest.approx(scale * before["singular_interference"])


def test_an_adapter_with_itself():
    one = random_factors(4, 0)
    found = measured(one, one)
    assert found["cosine"] == pytest.approx(1)
    assert found["sign_conflict"] == 0
    assert [found["norm_ratio"], found["input_share"]] == pytest.approx([1, 1])
    assert sqrt(0.95) <= found["alignment"] <= 1 + 1e-12
    # C_u and C_v are the identity: both blocks are diag(s).
    assert found["singular_interference"] == pytest.approx(2 * float(torch.linalg.svdvals(one.delta())[:4].sum()))


def test_orthogonal_spaces():
    """Inputs apart: no share, no cosine, no interference, though the outputs are the same. Outputs apart: no alignment."""
    eye, b = torch.eye(6, dtype=torch.float64), random_factors(2, 0).b
    apart = measured(LoraFactors(eye[:2], b), LoraFactors(eye[2:4], b))
    assert [apart[name] for name in ("input_share", "cosine", "singular_interference")] == pytest.approx([0] * 3, abs=1e-12)
    assert apart["alignment"] >= sqrt(0.95) - 1e-12
    a = random_factors(2, 1).a
    elsewhere = measured(LoraFactors(a, eye[:, :2]), LoraFactors(a, eye[:, 2:4]))
    assert elsewhere["alignment"] == pytest.approx(0, abs=1e-12)
    assert elsewhere["input_share"] == pytest.approx(1)


def test_a_delta_of_zero_is_nan_where_there_is_nothing_to_share():
    one, zero = random_factors(3, 0), LoraFactors(random_factors(2, 1).a, torch.zeros(9, 2, dtype=torch.float64))
    assert {n for n, value in measured(zero, one).items() if isnan(value)} == MEASURES.keys() - {"singular_interference"}
    found = measured(one, zero)
    assert {name for name, value in found.items() if isnan(value)} == {"cosine", "sign_conflict"}
    assert {value for value in found.values() if not isnan(value)} == {0.0}


def test_the_frame_holds_every_ordered_pair_in_every_module(tiny: Backbone):
    adapters = {name: random_adapter(tiny, "emotion", rank, rank).factors for name, rank in (("a", 4), ("b", 2), ("c", 3))}
    frame = weight_interference(adapters)
    assert list(frame.columns) == ["measure", "task", "partner", "target", "layer", "module", "value"]
    assert len(frame) == len(MEASURES) * 6 * len(tiny.target_modules)
    for row in frame.itertuples():
        assert row.target == f"encoder.layer.{row.layer}.attention.{'k' if row.module == 'key' else 'v'}_proj"
    at = frame.set_index(["measure", "task", "partner", "target"])["value"].sort_index()
    for target, (task, partner) in product(tiny.target_modules, permutations(adapters, 2)):
        for name, value in measured(adapters[task][target], adapters[partner][target]).items():
            assert at[name, task, partner, target] == pytest.approx(value)
    pairs = by_pair(frame)
    assert list(pairs.columns) == ["measure", "task", "partner", "value"]
    assert list(dict.fromkeys(pairs["measure"])) == list(MEASURES)
    first = pairs.iloc[0]
    assert first["value"] == pytest.approx(at[first["measure"], first["task"], first["partner"]].mean())


def test_only_modules_that_both_have_are_compared(tiny: Backbone):
    one, two = (random_adapter(tiny, "emotion", 2, seed).factors for seed in (0, 1))
    target = tiny.target_modules[1]
    assert set(weight_interference({"a": one, "b": {target: two[target]}})["target"]) == {target}
    assert len(weight_interference({"a": one})) == 0
    assert len(by_pair(weight_interference({"a": one}))) == 0


def test_names_of_modules():
    def place(target: str) -> tuple[int, str]:
        frame = weight_interference({name: {target: random_factors(2, seed)} for seed, name in enumerate("ab")})
        return int(frame["layer"][0]), str(frame["module"][0])

    assert place("encoder.layer.11.attention.attention.value") == (11, "value")
    assert place("layers.3.k_proj") == (3, "key")
    for target in ("encoder.layer.0.mlp.fc1", "k_proj"):
        with pytest.raises(MismatchError, match=r"layer\.0\.k_proj"):
            place(target)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(MismatchError, match=f"a, b differ in the shape of {KEY}"):
        weight_interference({"a": {KEY: random_factors(2, 0)}, "b": {KEY: random_factors(2, 0, columns=7)}})
    with pytest.raises(NotFoundError, match="did you mean 'cosine'"):
        MEASURES["cosin"]


NAMES = list("abcdef")
PAIRS = list(permutations(NAMES, 2))
TASKS, PARTNERS = [task for task, _ in PAIRS], [partner for _, partner in PAIRS]


def some_pairs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    one = rng.normal(size=30)
    # Rounded, so that some are level.
    return one.round(1), (one + rng.normal(size=30)).round(1)


def test_rank_correlation_is_scipys_and_lies_in_its_interval():
    for seed in range(20):
        predicted, harm = some_pairs(seed)
        found = rank_correlation(predicted, harm, TASKS, PARTNERS)
        assert found.value == pytest.approx(spearmanr(predicted, harm).statistic)  # pyright: ignore[reportAttributeAccessIssue]
        assert -1 <= found.low <= found.value <= found.high <= 1
        assert found.n == 30
    assert found == rank_correlation(predicted, harm, TASKS, PARTNERS)


def test_weights_say_how_often_a_pair_counts():
    predicted, harm = some_pairs(0)
    counts = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), size=50)
    expected = [spearmanr(predicted.repeat(c), harm.repeat(c))[0] for c in counts]
    assert interference._weighted(predicted, harm, counts.astype(float)) == pytest.approx(np.array(expected))


def test_a_perfect_order_is_certain():
    predicted, _ = some_pairs(0)
    found = rank_correlation(predicted, -np.exp(predicted), TASKS, PARTNERS)
    assert (found.value, found.low, found.high) == pytest.approx((-1, -1, -1))


def test_what_tasks_have_of_their_own_widens_the_interval():
    """Harm that only the task decides is six numbers, not thirty; drawing pairs one by one does not see it."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(2, 6))
    places = [NAMES.index(task) for task in TASKS]
    predicted, harm = own[:, places] + 0.1 * rng.normal(size=(2, 30))
    found = rank_correlation(predicted, harm, TASKS, PARTNERS)
    counts = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), size=1000).astype(float)
    low, high = np.percentile(interference._weighted(predicted, harm, counts), (2.5, 97.5))
    assert found.high - found.low > 1.3 * (high - low)


@pytest.mark.parametrize("swap", [False, True])
def test_a_constant_has_no_rank_correlation(swap: bool):
    sides = [np.full(30, 0.1), some_pairs(0)[0]]
    predicted, harm = sides[::-1] if swap else sides
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rank_correlation(predicted, harm, TASKS, PARTNERS)
    assert all(isnan(value) for value in (found.value, found.low, found.high))


def test_what_is_not_a_number_is_left_out():
    predicted, harm = some_pairs(0)
    predicted[3], harm[7] = np.nan, np.nan
    kept = [p for p in range(30) if p not in (3, 7)]
    found = rank_correlation(predicted, harm, TASKS, PARTNERS)
    less = rank_correlation(predicted[kept], harm[kept], [TASKS[p] for p in kept], [PARTNERS[p] for p in kept])
    assert found == less
    assert found.n == 28
    assert isnan(rank_correlation(np.array([1.0, 2.0]), np.array([1.0, 2.0]), ["a", "b"], ["b", "a"]).value)
