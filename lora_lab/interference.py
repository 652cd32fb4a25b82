"""What the weights alone say about how LoRA adapters disturb each other; no image is looked at.

For a task i that suffers and a partner j that disturbs it, each measure compares ΔW_i with ΔW_j, module by module.

Sources: singular task interference is of Gargiulo et al., "Task Singular Vectors" (arXiv 2412.00081); subspace alignment of
Marczak et al., "No Task Left Behind" (arXiv 2502.04959); sign conflict after TIES-Merging (arXiv 2306.01708); working in the
small space of the factors is the idea of Core Space (arXiv 2509.17786).

How this differs: the papers look at whole task matrices and at merges of many. Here each ΔW = B A is taken apart through QR
of its factors, so that only an r × r matrix is decomposed, once an adapter and module; that is no approximation. Interference
is of a pair, as its formula stands, without a normalisation: it grows with the norms and the ranks. Alignment is with the
partner's space, not with the merge's, and the space holds 95 % of the squared singular values. Only the sign conflict needs
the dense ΔW. All is computed in float64.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import nan
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int8
from torch import Tensor

from lora_lab.catalog import Catalog
from lora_lab.errors import MismatchError
from lora_lab.lora import Factors, LoraFactors

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["measure", "task", "partner", "target", "layer", "module", "value"]
ENERGY = 0.95
DRAWS = 1000
_MODULES = {"k_proj": "key", "key": "key", "v_proj": "value", "value": "value"}
# Far below what float32 factors can say, far above the rounding of float64: what is smaller was never trained.
_NEGLIGIBLE = 1e-10


@dataclass(frozen=True, eq=False)
class Parts:
    """One ΔW = U diag(s) Vᵀ, no singular value of which is zero, with an orthonormal basis of A's rows and every sign."""

    u: Float[Tensor, "out k"]
    s: Float[Tensor, "k"]
    v: Float[Tensor, "in k"]
    rows: Float[Tensor, "in q"]
    signs: Int8[Tensor, "out in"]

    @property
    def norm(self) -> float:
        """‖ΔW‖_F."""
        return float(self.s.norm())

    def leading(self) -> Float[Tensor, "out top"]:
        """The fewest left singular vectors that hold 95 % of ‖ΔW‖²_F."""
        energy = self.s.square().cumsum(0)
        # The sum is the last of the running sums; searching finds how many of those stay below the share asked for.
        return self.u[:, : int(torch.searchsorted(energy, ENERGY * energy[-1])) + 1] if len(energy) else self.u


def take_apart(factors: LoraFactors) -> Parts:
    """The parts of ΔW = B A by QR of both factors and an SVD of the r × r matrix between them."""
    a, b = (factor.detach().to("cpu", torch.float64) for factor in (factors.a, factors.b))
    right, small_a = torch.linalg.qr(a.T)
    left, small_b = torch.linalg.qr(b)
    u, s, vt = torch.linalg.svd(small_b @ small_a.T)
    # Rows of A that repeat others span less than there are rows, and a zero singular value has no direction of its own.
    spread, lengths, _ = torch.linalg.svd(small_a)
    kept, spanned = _counts(s), _counts(lengths)
    return Parts(left @ u[:, :kept], s[:kept], right @ vt[:kept].T, right @ spread[:, :spanned], (b @ a).sign().to(torch.int8))


def _counts(s: Float[Tensor, "k"]) -> int:
    return int((s > _NEGLIGIBLE * s[0]).sum())


@dataclass(frozen=True)
class Measure:
    """A number for a task and its partner in one module; `directed` where the other way round is another number.

    `compare` takes the task's parts first. NaN is for what is not defined, such as a share of a ΔW that is zero.
    """

    name: str
    title: str
    directed: bool
    meaning: str
    source: str
    compare: Callable[[Parts, Parts], float]

    def between(self, task: LoraFactors, partner: LoraFactors) -> float:
        """The measure of one pair of factors."""
        return self.compare(take_apart(task), take_apart(partner))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else nan


def _cosine(task: Parts, partner: Parts) -> float:
    # ⟨ΔW_i, ΔW_j⟩ = Σ s_i s_j (u_i·u_j)(v_i·v_j), over all pairs of singular vectors.
    overlaps = (task.u.T @ partner.u) * (task.v.T @ partner.v)
    return _ratio(float(task.s @ overlaps @ partner.s), task.norm * partner.norm)


def _sign_conflict(task: Parts, partner: Parts) -> float:
    products = task.signs * partner.signs
    return _ratio(int((products < 0).sum()), int(products.count_nonzero()))


def _norm_ratio(task: Parts, partner: Parts) -> float:
    return _ratio(partner.norm, task.norm)


def _singular_interference(task: Parts, partner: Parts) -> float:
    # Each basis is orthonormal by itself, so ÛᵀÛ − I and V̂ᵀV̂ − I hold only the overlaps C_u and C_v of the two, off their
    # diagonals, and the product falls into the two blocks C_u S_j C_vᵀ and C_uᵀ S_i C_v: each ΔW in the other's bases.
    left, right = task.u.T @ partner.u, task.v.T @ partner.v
    blocks = ((left * partner.s) @ right.T, (left.T * task.s) @ right)
    return float(sum(block.abs().sum() for block in blocks))


def _input_share(task: Parts, partner: Parts) -> float:
    heard = (partner.v * partner.s).T @ task.rows
    return _ratio(float(heard.norm()), task.norm)


def _alignment(task: Parts, partner: Parts) -> float:
    return _ratio(float((partner.leading().T @ (task.u * task.s)).norm()), task.norm)


MEASURES: Catalog[Measure] = Catalog(
    "measure",
    (
        (measure.name, measure)
        for measure in (
            Measure(
                "cosine", "Cosine", False, "⟨ΔW_i, ΔW_j⟩ / (‖ΔW_i‖ ‖ΔW_j‖), Frobenius, −1 to 1", "arXiv 2212.04089", _cosine
            ),
            Measure(
                "sign_conflict",
                "Sign conflict",
                False,
                "share of the entries that are not zero in both whose signs differ, 0 to 1, all entries counting alike",
                "arXiv 2306.01708",
                _sign_conflict,
            ),
            Measure("norm_ratio", "Norm ratio", True, "‖ΔW_j‖ / ‖ΔW_i‖, Frobenius, 0 and up", "none", _norm_ratio),
            Measure(
                "singular_interference",
                "Singular task interference",
                False,
                "sum of abs of (ÛᵀÛ − I) Ŝ (V̂ᵀV̂ − I) over the singular vectors of both, 0 and up, in units of the weights",
                "arXiv 2412.00081",
                _singular_interference,
            ),
            Measure(
                "input_share",
                "Input-space share",
                True,
                "‖ΔW_j P_i‖ / ‖ΔW_i‖ with P_i on the rows of A_i: what j adds where i listens, 0 to the norm ratio",
                "after arXiv 2503.08099",
                _input_share,
            ),
            Measure(
                "alignment",
                "Subspace alignment",
                True,
                "‖P_j ΔW_i‖ / ‖ΔW_i‖ with P_j on the left singular vectors that hold 95 % of ‖ΔW_j‖², 0 to 1",
                "arXiv 2502.04959",
                _alignment,
            ),
        )
    ),
)
"""The measures in the order in which they are shown."""


def weight_interference(adapters: Mapping[str, Factors]) -> "pd.DataFrame":
    """Every measure of every ordered pair of adapters in every module that both of them have, a row each.

    Columns: measure, task (who suffers), partner (who disturbs), target (the module's full name), layer (its number), module
    ("key" or "value"), value. Raises `MismatchError` for adapters of different backbones, and for a module that is neither.
    """
    import pandas as pd  # takes half a second, and who only merges needs none

    rows: list[tuple] = []
    for target in dict.fromkeys(target for factors in adapters.values() for target in factors):
        layer, module = _place(target)
        parts = {name: take_apart(factors[target]) for name, factors in adapters.items() if target in factors}
        if len({part.signs.shape for part in parts.values()}) > 1:
            raise MismatchError(f"{', '.join(parts)} differ in the shape of {target}: compare adapters of one backbone")
        rows += [(*pair, target, layer, module, value) for pair, value in _pairs(parts).items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def by_pair(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The plain mean over the modules where the measure is defined: measure, task, partner, value."""
    return frame.groupby(COLUMNS[:3], sort=False)["value"].mean().reset_index()


def _pairs(parts: Mapping[str, Parts]) -> dict[tuple[str, str, str], float]:
    values: dict[tuple[str, str, str], float] = {}
    for measure in MEASURES.values():
        for task, partner in permutations(parts, 2):
            mirrored = None if measure.directed else values.get((measure.name, partner, task))
            value = measure.compare(parts[task], parts[partner]) if mirrored is None else mirrored
            values[measure.name, task, partner] = value
    return values


def _place(target: str) -> tuple[int, str]:
    steps = target.split(".")
    layer = next((int(step) for step in steps if step.isdecimal()), None)
    if layer is None or steps[-1] not in _MODULES:
        raise MismatchError(f"{target} names no layer's key or value: compare adapters on modules such as layer.0.k_proj")
    return layer, _MODULES[steps[-1]]


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's ρ, −1 to 1, with its 95 % interval, over n ordered pairs; NaN where one side never changes."""

    value: float
    low: float
    high: float
    n: int


def rank_correlation(
    predicted: Float[np.ndarray, "pairs"],
    harm: Float[np.ndarray, "pairs"],
    tasks: Sequence[str],
    partners: Sequence[str],
    seed: int = 0,
    draws: int = DRAWS,
) -> RankCorrelation:
    """Spearman's rank correlation of a measure and the measured harm over ordered pairs, (tasks[p], partners[p]) at place p.

    Pairs share tasks: one that is easily hurt is so in all of its pairs, and to draw pairs as if each came by itself, or a pair
    with its reverse, gives too narrow an interval. So tasks are drawn, by a Bayesian bootstrap: each gets an exponential
    weight, whichever role it plays, and a pair the product of both, as in the pigeonhole bootstrap of Owen and Eckles
    (arXiv 1106.2125), where however each role has weights of its own. The interval is the middle 95 % of the draws.

    It speaks of other tasks like these. It does not cover the noise in the harm itself, another training of the same adapters,
    nor that somebody picked the best of several measures; and with six tasks that differ much it is still somewhat narrow.

    Pairs where either side is NaN are left out. All is NaN with fewer than three pairs, or a side that is constant.
    """
    from scipy.stats import spearmanr  # takes half a second as well

    there = ~(np.isnan(predicted) | np.isnan(harm))
    predicted, harm = predicted[there].astype(np.float64), harm[there].astype(np.float64)
    n = len(harm)
    if n < 3 or not np.ptp(predicted) or not np.ptp(harm):
        return RankCorrelation(nan, nan, nan, n)
    names = sorted({*tasks, *partners})
    places = np.array([(names.index(i), names.index(j)) for i, j in zip(tasks, partners, strict=True)])[there]
    weights = np.random.default_rng(seed).exponential(size=(draws, len(names)))
    drawn = _weighted(predicted, harm, weights[:, places[:, 0]] * weights[:, places[:, 1]])
    low, high = np.percentile(drawn, (2.5, 97.5))
    return RankCorrelation(float(np.asarray(spearmanr(predicted, harm))[0]), float(low), float(high), n)


def _weighted(
    one: Float[np.ndarray, "pairs"], two: Float[np.ndarray, "pairs"], weights: Float[np.ndarray, "draws pairs"]
) -> Float[np.ndarray, "draws"]:
    """Spearman's ρ of each draw, in which a pair counts as often as its weight says."""
    weights = weights / weights.sum(1, keepdims=True)
    # A pair's rank is the weight of all that is lower and half of what is level with it.
    ranks = [weights @ ((x[:, None] < x) + (x[:, None] == x) / 2) for x in (one, two)]
    one, two = (rank - (weights * rank).sum(1, keepdims=True) for rank in ranks)
    spread = np.sqrt((weights * one**2).sum(1) * (weights * two**2).sum(1))
    return (weights * one * two).sum(1) / spread
