"""The sparse methods by hand, TIES against peft where peft is right, draws by seed, and the laws they keep."""

from dataclasses import replace

import pytest
import torch
from conftest import random_adapter
from peft.utils.merge_utils import ties as peft_ties

from lora_lab.backbones import Deltas, load_backbone
from lora_lab.lora import Factors, LoraFactors
from lora_lab.merging import MergeMethod, Selection, Setting, exact
from lora_lab.merging.breadcrumbs import METHOD as BREADCRUMBS
from lora_lab.merging.dare import DARE, DARE_TIES
from lora_lab.merging.della import METHOD as DELLA
from lora_lab.merging.della import probabilities
from lora_lab.merging.pruning import METHOD as MAGNITUDE
from lora_lab.merging.ties import METHOD as TIES
from lora_lab.tasks import TASKS

BACKBONE = load_backbone("tiny")
METHODS = [MAGNITUDE, TIES, DARE, DARE_TIES, BREADCRUMBS, DELLA]
DRAWING = [DARE, DARE_TIES, DELLA]
every = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
drawing = pytest.mark.parametrize("method", DRAWING, ids=lambda m: m.name)
both_spaces = pytest.mark.parametrize("space", [0, 1])
ADAPTERS = [random_adapter(BACKBONE, task, rank, seed) for seed, (task, rank) in enumerate(zip(TASKS, (5, 9, 2), strict=False))]
WEIGHTS = [0.7, -1.3, 0.4]


def whole(*matrices: list[list[float]]) -> Selection:
    """Adapters whose ΔW are these."""
    factors = [{"m": LoraFactors(torch.eye(len(m[0])), torch.tensor(m))} for m in matrices]
    return Selection([f"adapter{i}" for i in range(len(matrices))], factors)


def some(*chosen: int) -> Selection:
    return Selection([ADAPTERS[i].name for i in chosen], [ADAPTERS[i].factors for i in chosen])


def made(method: MergeMethod, selection: Selection, weights: list[float], seed: float = 0, **knobs: float) -> Deltas:
    return method.merge(selection, Setting(weights, method.turned(knobs), int(seed))).deltas


def agree(one: Deltas, two: Deltas) -> None:
    assert one.keys() == two.keys()
    for target, delta in one.items():
        torch.testing.assert_close(delta, two[target], atol=1e-5, rtol=1e-5)


def differ(one: Deltas, two: Deltas) -> bool:
    return any(not torch.allclose(delta, two[target], atol=1e-3) for target, delta in one.items())


def test_magnitude_by_hand():
    # 4 and −3 stay of the first, −5 and 6 of the second: 2 · [[4, −3], [0, 0]] − [[0, −5], [6, 0]].
    two = whole([[4.0, -3], [2, 1]], [[-1.0, -5], [6, 2]])
    assert made(MAGNITUDE, two, [2.0, -1.0], density=0.5)["m"].tolist() == [[8.0, -1], [-6, 0]]


@pytest.mark.parametrize(
    ("density", "weights", "factor", "expected"),
    [
        # Trimmed to [[4, −3], [0, 0]] and [[0, −5], [6, 0]]; where only one has a vote, it is not halved.
        (0.5, [1.0, 1.0], 1.0, [[4.0, -4], [6, 0]]),
        (0.5, [1.0, 1.0], 2.0, [[8.0, -8], [12, 0]]),
        # Untrimmed, 4 outvotes −1.
        (1.0, [1.0, 1.0], 1.0, [[4.0, -4], [4, 1.5]]),
        # Votes 4 and 2, −3 and 10, 2 and −12, 1 and −4.
        (1.0, [1.0, -2.0], 1.0, [[3.0, 10], [-12, -4]]),
    ],
)
def test_ties_by_hand(density: float, weights: list[float], factor: float, expected: list[list[float]]):
    two = whole([[4.0, -3], [2, 1]], [[-1.0, -5], [6, 2]])
    assert made(TIES, two, weights, density=density, **{"lambda": factor})["m"].tolist() == expected


def test_votes_that_cancel_out_give_zero():
    assert made(TIES, whole([[2.0, 1]], [[-2.0, 1]]), [1.0, 1.0], density=1)["m"].tolist() == [[0.0, 1]]


def test_dare_by_hand():
    # What is kept with probability 1/4 is four times as large, so that the mean stays.
    delta = made(DARE, whole([[1.0, -2.0] * 32] * 64), [0.5], density=0.25, seed=3)["m"]
    assert set(delta.unique().tolist()) == {-4.0, 0.0, 2.0}
    torch.testing.assert_close(delta.mean(0).reshape(32, 2).mean(0), torch.tensor([0.5, -1]), atol=0, rtol=0.1)


def test_dare_ties_by_hand():
    # With all kept it is the election without a trim, as above; otherwise each kept value is doubled.
    two = whole([[4.0, -3], [2, 1]], [[-1.0, -5], [6, 2]])
    assert made(DARE_TIES, two, [1.0, 1.0], density=1)["m"].tolist() == [[4.0, -4], [4, 1.5]]
    assert set(made(DARE_TIES, whole([[1.0, -2]] * 20), [1.0], density=0.5)["m"].unique().tolist()) == {-4.0, 0.0, 2.0}


def test_breadcrumbs_by_hand():
    # Of four, the largest is dropped, then two are kept.
    assert made(BREADCRUMBS, whole([[8.0, -4], [2, 1]]), [3.0], density=0.5, outliers=0.25)["m"].tolist() == [
        [0.0, -12],
        [6, 0],
    ]


def test_breadcrumbs_keeps_no_more_than_there_is():
    assert made(BREADCRUMBS, whole([[8.0, -4], [2, 1]]), [1.0], density=1, outliers=0.5)["m"].tolist() == [[0.0, 0], [2, 1]]


def test_della_by_hand():
    row = [3.0, -1.0, 2.0, 0.5]
    expected = torch.tensor([7 / 8, 3 / 8, 5 / 8, 1 / 8])
    torch.testing.assert_close(probabilities(torch.tensor([[[row]]]), 0.5, 1)[0, 0, 0], expected)
    narrow = probabilities(torch.tensor([[[row]]]), 0.8, 0.5)[0, 0, 0]
    torch.testing.assert_close(narrow, torch.tensor([0.875, 0.775, 0.825, 0.725]))
    drawn = made(DELLA, whole([row] * 400), [1.0], density=0.5, spread=1)["m"]
    torch.testing.assert_close(drawn.abs().amax(0), torch.tensor(row).abs() / expected)
    torch.testing.assert_close((drawn != 0).float().mean(0), expected, atol=0.06, rtol=0)


def test_della_without_a_spread_is_dare_ties():
    knobs = {"density": 0.6, "lambda": 1.5}
    agree(made(DELLA, some(0, 1, 2), WEIGHTS, spread=0, **knobs), made(DARE_TIES, some(0, 1, 2), WEIGHTS, **knobs))


@pytest.mark.parametrize("density", [0.25, 0.5])
@pytest.mark.parametrize("weight", [1.0, 0.6])
def test_ties_is_that_of_peft_on_whole_deltas_with_equal_weights(density: float, weight: float):
    ours = made(TIES, some(0, 1, 2), [weight] * 3, density=density)
    for target in BACKBONE.target_modules:
        deltas = [adapter.factors[target].delta() for adapter in ADAPTERS]
        torch.testing.assert_close(ours[target], peft_ties(deltas, torch.tensor([weight] * 3), density))


def test_sliders_come_before_the_election_where_peft_elects_first():
    one, two = [[2.0, 0.1]], [[-3.0, 0.1]]
    theirs = peft_ties([torch.tensor(one), torch.tensor(two)], torch.tensor([3.0, 1.0]), 0.5)
    assert theirs.tolist() == [[-3.0, 0]]
    assert made(TIES, whole(one, two), [3.0, 1.0], density=0.5)["m"].tolist() == [[6.0, 0]]


@drawing
def test_the_seed_decides_the_draw(method: MergeMethod):
    first = made(method, some(0, 1), [1.0, 0.5], seed=7)
    agree(first, made(method, some(0, 1), [1.0, 0.5], seed=7))
    assert differ(first, made(method, some(0, 1), [1.0, 0.5], seed=8))


def test_no_draw_depends_on_who_else_takes_part():
    alone = [made(DARE, some(i), [WEIGHTS[i]]) for i in range(3)]
    expected = {target: torch.stack([deltas[target] for deltas in alone]).sum(0) for target in alone[0]}
    agree(made(DARE, some(0, 1, 2), WEIGHTS), expected)


def test_adapters_and_modules_have_draws_of_their_own():
    same = ADAPTERS[0].factors[BACKBONE.target_modules[0]]
    factors = {"m": same, "n": same}
    one, two = (made(DARE, Selection([name], [factors]), [1.0]) for name in ("one", "two"))
    assert not torch.equal(one["m"] != 0, one["n"] != 0)
    assert not torch.equal(one["m"] != 0, two["m"] != 0)


def test_what_is_kept_at_a_low_density_is_kept_at_a_higher_one():
    low, high = (made(DARE, some(0), [1.0], density=density)[BACKBONE.target_modules[0]] != 0 for density in (0.3, 0.6))
    assert not (low & ~high).any()
    assert 0.2 < low.float().mean() < 0.4


@pytest.mark.parametrize("method", [MAGNITUDE, DARE], ids=lambda m: m.name)
@both_spaces
def test_with_all_kept_it_is_the_exact_sum(method: MergeMethod, space: int):
    expected = exact.METHOD.merge(some(0, 1, 2), Setting(WEIGHTS)).deltas
    agree(made(method, some(0, 1, 2), WEIGHTS, density=1, space=space), expected)


@pytest.mark.parametrize("method", [MAGNITUDE, TIES, BREADCRUMBS], ids=lambda m: m.name)
def test_core_space_looks_at_other_entries(method: MergeMethod):
    # Each ΔW has one entry in core space, and four in the plain one, of which the smallest are lost.
    one = LoraFactors(torch.tensor([[1.0, 2, 0]]), torch.tensor([[1.0], [2], [0]]))
    two = LoraFactors(torch.tensor([[2.0, -1, 0]]), torch.tensor([[1.0], [-0.5], [0]]))
    both = Selection(["one", "two"], [{"m": one}, {"m": two}])
    knobs = {"outliers": 0.0} if method is BREADCRUMBS else {}
    kept = made(method, both, [1.0, 1.0], density=0.25, space=1, **knobs)
    agree(kept, {"m": one.delta() + two.delta()})
    assert differ(kept, made(method, both, [1.0, 1.0], density=0.25, **knobs))


@every
@both_spaces
def test_order_changes_nothing(method: MergeMethod, space: int):
    one = made(method, some(0, 1, 2), WEIGHTS, space=space)
    agree(one, made(method, some(2, 0, 1), [WEIGHTS[i] for i in (2, 0, 1)], space=space))


@every
@both_spaces
def test_weights_times_a_number_give_deltas_times_it(method: MergeMethod, space: int):
    once = made(method, some(0, 1, 2), WEIGHTS, space=space)
    more = made(method, some(0, 1, 2), [-1.5 * w for w in WEIGHTS], space=space)
    agree(more, {target: -1.5 * delta for target, delta in once.items()})


@every
@both_spaces
def test_only_the_deltas_count(method: MergeMethod, space: int):
    def resplit(factors: Factors) -> Factors:
        return {t: LoraFactors(f.a[[*range(1, f.rank), 0]] * 4, f.b[:, [*range(1, f.rank), 0]] / 4) for t, f in factors.items()}

    selection = some(0, 1, 2)
    other = replace(selection, factors=[resplit(factors) for factors in selection.factors])
    agree(made(method, selection, WEIGHTS, space=space), made(method, other, WEIGHTS, space=space))


def test_turned_axes_turn_what_core_space_gives_but_not_what_the_plain_space_gives():
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.linalg.qr(torch.randn(32, 32, generator=generator))[0] for _ in range(2))
    selection = some(0, 1)
    turned = replace(
        selection, factors=[{t: LoraFactors(f.a @ columns.T, rows @ f.b) for t, f in fs.items()} for fs in selection.factors]
    )
    for space, kept in ((1, True), (0, False)):
        before, after = (made(TIES, chosen, [1.0, 0.5], space=space) for chosen in (selection, turned))
        assert differ({t: rows @ delta @ columns.T for t, delta in before.items()}, after) != kept


@every
def test_what_is_kept_between_moves_changes_no_result(method: MergeMethod):
    selection = some(0, 1, 2)
    merge = method.prepare(selection)
    for weights, seed, density in ((WEIGHTS, 0, 0.5), ([1.0, 1.0, 1.0], 0, 0.5), (WEIGHTS, 1, 0.5), (WEIGHTS, 0, 0.8)):
        setting = Setting(weights, method.turned({"density": density}), seed)
        agree(merge(setting).deltas, method.merge(selection, setting).deltas)


@every
def test_modules_may_differ(method: MergeMethod):
    first, second = BACKBONE.target_modules[:2]
    apart = Selection(["one", "two"], [{first: ADAPTERS[0].factors[first]}, {second: ADAPTERS[1].factors[second]}])
    alone = made(method, Selection(["one"], [{first: ADAPTERS[0].factors[first]}]), [0.5])
    agree({first: made(method, apart, [0.5, 1.0])[first]}, alone)


@every
def test_the_league_tries_six_settings_at_most(method: MergeMethod):
    settings = 1
    for knob in method.knobs:
        assert not knob.tried or knob.default in knob.tried
        settings *= len(knob.tried) or 1
    assert settings <= 6
