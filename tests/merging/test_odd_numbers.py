"""Gram matrices and factors at the edges of what numbers can be: a finite answer, or one line."""

from itertools import combinations_with_replacement

import pytest
import torch

from lora_lab.backbones import load_backbone
from lora_lab.gram import balanced
from lora_lab.lora import Factors, LoraFactors, split
from lora_lab.merging import MERGE_METHODS, Selection, Setting, Sight, iteris, regmean
from lora_lab.merging.base import Needs

BACKBONE = load_backbone("tiny")
NAMES = ("age_class", "emotion")
WIDTH = BACKBONE.width
FEW = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
GRAMS = {
    "zero": torch.zeros(WIDTH, WIDTH),
    "of rank 1": torch.ones(WIDTH, WIDTH),
    "of few inputs": FEW.T @ FEW,
    "tiny": 1e-35 * torch.eye(WIDTH),
    "huge": 1e35 * torch.eye(WIDTH),
    "ill conditioned": torch.diag(torch.logspace(-30, 8, WIDTH)),
}


def factors(size: float, seed: int = 0, *, dependent: bool = False) -> Factors:
    generator, found = torch.Generator().manual_seed(seed), {}
    for target in BACKBONE.target_modules:
        rows, columns = BACKBONE.weight(target).shape
        a, b = torch.randn(4, columns, generator=generator), size * torch.randn(rows, 4, generator=generator)
        found[target] = LoraFactors(a[:1].repeat(4, 1) if dependent else a, b)
    return found


PLAIN = factors(1)
ODD = {
    "plain": PLAIN,
    "zero": factors(0, 1),
    "tiny": factors(1e-30, 2),
    "huge": factors(1e15, 3),
    "dependent": factors(1, 4, dependent=True),
}
FREE: tuple[Needs, ...] = ("nothing", "task id")


def finite(method: str, pair: list[Factors], grams: torch.Tensor | None = None, **knobs: float) -> dict[str, torch.Tensor]:
    """The deltas of two adapters that have the same Gram matrices."""
    one = MERGE_METHODS[method]
    seen = [] if grams is None else [dict.fromkeys(BACKBONE.target_modules, grams)] * 2
    deltas = dict(one.merge(Selection(NAMES, pair, seen), Setting((1.0, 0.5), one.turned(knobs))).deltas)
    assert all(delta.isfinite().all() for delta in deltas.values())
    return deltas


@pytest.mark.parametrize("method", [name for name, one in MERGE_METHODS.items() if one.needs in FREE])
def test_every_method_takes_odd_factors(method: str):
    for one, other in combinations_with_replacement(ODD, 2):
        finite(method, [ODD[one], ODD[other]])


@pytest.mark.parametrize("kind", GRAMS)
@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_regmean_takes_odd_gram_matrices(kind: str, balance: float):
    deltas = finite("regmean", [PLAIN, ODD["dependent"]], GRAMS[kind], balance=balance)
    cut = split(deltas, 2, dict.fromkeys(deltas, GRAMS[kind]))
    assert all(pair.a.isfinite().all() and pair.b.isfinite().all() for pair in cut.values())


def test_of_inputs_that_are_all_zero_regmean_is_the_mean():
    deltas = finite("regmean", [PLAIN, PLAIN], GRAMS["zero"], balance=1.0)
    target = BACKBONE.target_modules[0]
    torch.testing.assert_close(deltas[target], 0.75 * PLAIN[target].delta())  # (1 + 0.5) / 2


def test_a_balanced_matrix_has_the_trace_1_or_is_zero():
    assert float(balanced(2 * torch.eye(4)).trace()) == 1
    assert not balanced(torch.zeros(4, 4)).any()
    assert float(balanced(torch.full((2, 2), 3e38)).trace()) == pytest.approx(1)
    assert torch.equal(regmean.shrunk(torch.eye(4), 0.5, True), torch.eye(4).double() / 4)


@pytest.mark.parametrize("images", [1, 3])
def test_iteris_in_two_passes_takes_one_picture_and_pictures_that_are_alike(images: int):
    pixels = torch.zeros(images, 3, 56, 56)
    sight = Sight(BACKBONE, dict.fromkeys(NAMES, pixels), {})
    setting = Setting((1.0, 0.5), iteris.METHOD.turned({"passes": 2, "images": 8}))
    deltas = iteris.METHOD.merge(Selection(NAMES, [PLAIN, ODD["zero"]], [], sight), setting).deltas
    assert all(delta.isfinite().all() for delta in deltas.values())


def test_a_second_pass_takes_adapters_from_which_nothing_has_drifted():
    pixels = torch.randn(4, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    sight = Sight(BACKBONE, dict.fromkeys(NAMES, pixels), {})
    setting = Setting((1.0, 1.0), iteris.METHOD.turned({"passes": 2, "images": 8}))
    nothing = ODD["zero"]
    deltas = iteris.METHOD.merge(Selection(NAMES, [nothing, nothing], [], sight), setting).deltas
    assert all(float(delta.abs().max()) < 1e-6 for delta in deltas.values())
