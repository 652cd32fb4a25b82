"""Gram matrices that rounding broke are mended, and any is factored or refused in one line."""

import pytest
import torch

from lora_lab.errors import LoraLabError
from lora_lab.gram import factored, positive, solve_spd
from lora_lab.statistics import Statistics


def rounded(width: int = 32, tokens: int = 8, seed: int = 0) -> torch.Tensor:
    """A Gram matrix of few inputs with one strong direction, rounded to float16: as statistics were kept."""
    inputs = torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed))
    inputs[:, 0] *= 30
    gram = inputs.T @ inputs / tokens
    scale = gram.diagonal().mean()
    return (gram / scale).half().float() * scale


def least(gram: torch.Tensor) -> float:
    return float(torch.linalg.eigvalsh(gram.double())[0])


def test_the_nearest_matrix_without_negative_eigenvalues_by_hand():
    gram = torch.tensor([[1.0, 2.0], [2.0, 1.0]])  # eigenvalues 3 and -1, so 3 · (1 1; 1 1) / 2 is left
    torch.testing.assert_close(positive(gram), torch.full((2, 2), 1.5), rtol=0, atol=1e-5)


def test_a_matrix_that_is_positive_stays_as_it_is():
    gram = torch.eye(4) + 0.1
    assert positive(gram) is gram


@pytest.mark.parametrize("seed", range(5))
def test_what_float16_broke_is_mended_and_changed_by_no_more_than_float16(seed: int):
    gram = rounded(seed=seed)
    assert least(gram) < 0
    mended = positive(gram)
    assert least(mended) > 0
    assert float((mended - gram).norm() / gram.norm()) < 1e-3


@pytest.mark.parametrize("gram", [torch.zeros(4, 4), rounded(), 1e-30 * torch.eye(4), 1e30 * torch.eye(4), torch.ones(4, 4)])
def test_singular_small_and_large_matrices_are_factored(gram: torch.Tensor):
    lower, ridge = factored(gram.double())
    torch.testing.assert_close(lower @ lower.T, gram.double() + ridge * torch.eye(len(gram), dtype=torch.float64))


def test_solving_is_division_where_there_is_nothing_to_mend():
    gram = torch.diag(torch.tensor([2.0, 4.0], dtype=torch.float64))
    torch.testing.assert_close(solve_spd(gram, torch.ones(1, 2, dtype=torch.float64), 0), torch.tensor([[0.5, 0.25]]).double())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e6])
def test_what_is_no_gram_matrix_is_one_line(value: float):
    gram = torch.eye(3, dtype=torch.float64)
    gram[1, 1] = value
    with pytest.raises(LoraLabError, match="no Gram matrices") as caught:
        factored(gram)
    assert "\n" not in str(caught.value)


def test_statistics_are_positive_however_they_were_kept():
    gram = rounded()
    statistics = Statistics({"layer": gram}, torch.zeros(1, 32))
    again = Statistics.unpack(statistics.packed())
    assert least(again.grams["layer"]) > -1e-6 * float(gram.diagonal().max())
    torch.testing.assert_close(again.grams["layer"], gram, rtol=2e-3, atol=2e-3 * float(gram.diagonal().max()))
    rows, columns = torch.triu_indices(32, 32)
    scale = gram.diagonal().mean()
    old = {
        "class_means": torch.zeros(1, 32).half(),
        "gram.layer": (gram / scale)[rows, columns].half(),
        "scale.layer": scale[None],
    }
    found = Statistics.unpack(old).by_target(["layer.k_proj"])["layer.k_proj"]
    assert least(found) > 0
    torch.testing.assert_close(found, gram, rtol=2e-3, atol=2e-3 * float(gram.diagonal().max()))


def test_statistics_that_are_not_finite_are_refused():
    tensors = Statistics({"layer": torch.eye(4)}, torch.zeros(1, 4)).packed()
    tensors["root.layer"][0] = float("nan")
    with pytest.raises(LoraLabError, match=r"not finite in root\.layer"):
        Statistics.unpack(tensors)
