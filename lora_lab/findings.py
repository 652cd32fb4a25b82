"""What the records say: scores of merges by recipe, and figures made of several."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from lora_lab.catalog import Catalog
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.metrics import DIFFERENCE, GAIN_KEPT, RETENTION
from lora_lab.sweeps import WEIGHTINGS
from lora_lab.sweeps.spelling import read_spelled
from lora_lab.tasks import TASKS

if TYPE_CHECKING:
    import pandas as pd

METRIC = "metric"
EXACT, UNIFORM = "exact", "uniform"
FEWEST_IN_GRID = 9


class Interval(NamedTuple):
    """A value and its 95 % interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return self.text()

    def holds(self, value: float) -> bool:
        """Whether a value lies within the bounds."""
        return self.low is not None and self.high is not None and bool(self.low <= value <= self.high)

    def text(self, digits: int = 1) -> str:
        """The value and its bounds, for people."""
        if self.low is None or self.high is None:
            return f"{self.value:.{digits}f}"
        dash = "–" if self.low >= 0 else " to "
        return f"{self.value:.{digits}f} ({self.low:.{digits}f}{dash}{self.high:.{digits}f})"


@dataclass(frozen=True)
class Measure:
    """A way to say how a task fares in a merge."""

    name: str
    title: str
    meaning: str


MEASURES: Catalog[Measure] = Catalog(
    "measure",
    (
        (measure.name, measure)
        for measure in (
            Measure(RETENTION, "Retention, %", "100 is as good as alone; merged/alone, or alone/merged for errors"),
            Measure(GAIN_KEPT, "Gain kept, %", "100 is as good as alone, 0 as good as the head on the plain backbone"),
            Measure(METRIC, "Metric", "macro F1 in %, RMSE in years or NME in %, whichever the task is scored by"),
            Measure(DIFFERENCE, "Difference to alone", "merged minus alone, in the unit of the task's metric"),
        )
    ),
)


@runtime_checkable
class Source(Protocol):
    """Where figures of merges come from: our records, or a paper's tables."""

    title: str
    names: tuple[str, ...]

    def score(self, task: str, merge: "Merge", measure: str) -> Interval | None:
        """A measure of a task in a merge that holds it; none where it was not measured or means nothing."""
        ...


@dataclass(frozen=True)
class Merge:
    """A set of adapters at one rank, all at weight 1, or at 1/K by the method uniform; a method is spelled with its knobs."""

    names: tuple[str, ...]
    rank: int = 16
    method: str = EXACT

    def recipe(self, backbone: str) -> MergeRecipe:
        """As a recipe, adapters in the order of the catalog."""
        weight = WEIGHTINGS[UNIFORM if self.method == UNIFORM else EXACT](len(self.names))
        known = [name for name in TASKS if name in self.names]
        names = [*known, *(name for name in self.names if name not in known)]
        adapters = tuple(RecipeAdapter(name=name, rank=self.rank, weight=weight) for name in names)
        plain = MergeRecipe(backbone=backbone, adapters=adapters)
        # One adapter is itself by any method, and measured once.
        return plain if self.method in WEIGHTINGS or len(names) == 1 else read_spelled(self.method, plain.spelled, backbone)


class Findings:
    """Records of merges on one backbone and split, looked up by recipe."""

    title = "LoRA Lab"

    def __init__(self, records: "pd.DataFrame", backbone: str, split: str = "val"):
        self.backbone = backbone
        self.records = records[records.split == split]
        columns = (self.records[name] for name in ("recipe", "task", "metric", "label", "value", "low", "high"))
        self._scores = {
            (recipe, task, metric, label if isinstance(label, str) else None): Interval(value, low, high)
            for recipe, task, metric, label, value, low, high in zip(*columns, strict=True)
        }
        singles = self.records[self.records.subject == "adapter"].task.unique()
        self.names = tuple(name for name in TASKS if name in singles)

    def at(self, recipe: str, task: str, metric: str, label: str | None = None) -> Interval | None:
        """A metric of a task under a recipe's key, or under head_only."""
        return self._scores.get((recipe, task, metric, label))

    def score(self, task: str, merge: Merge, measure: str) -> Interval | None:
        """A measure of a task in a merge that holds it."""
        return self.of_recipe(task, merge.recipe(self.backbone), measure)

    def of_recipe(self, task: str, recipe: MergeRecipe, measure: str) -> Interval | None:
        """The same for any recipe."""
        return self.at(recipe.key, task, TASKS[task].metric if measure == METRIC else measure)

    def methods(self, rank: int) -> list[str]:
        """The methods by which every pair at this rank was measured, spelled with their knobs; plain sums first."""
        merged = self.records[(self.records.subject == "merge") & (self.records.metric == RETENTION)]
        pairs = merged[(merged.adapters.str.count(",") == 1) & merged.adapters.str.contains(f":r{rank}=")]
        counts = pairs.groupby("method").recipe.nunique()
        names = [str(name) for name in counts.index if "+" not in str(name)]
        plain = [name for name in (EXACT, UNIFORM) if EXACT in names]
        wanted = [*plain, *sorted(name for name in names if name not in plain)]
        return [name for name in wanted if len(self.sets(rank, name, 2)) == len(self.names) * (len(self.names) - 1) // 2]

    def sets(self, rank: int, method: str, size: int) -> list[Merge]:
        """The sets of so many adapters that were measured."""
        merges = (Merge(names, rank, method) for names in combinations(self.names, size))
        return [merge for merge in merges if self.score(merge.names[0], merge, METRIC)]

    def grids(self, rank: int) -> list[tuple[str, str]]:
        """The pairs that were measured at many weights."""
        pairs: dict[tuple[str, str], int] = {}
        for weights, _ in self._pairs(rank):
            one, two = weights
            pairs[one, two] = pairs.get((one, two), 0) + 1
        return [pair for pair, count in pairs.items() if count >= FEWEST_IN_GRID]

    def grid(self, pair: tuple[str, str], rank: int) -> "pd.DataFrame":
        """All that was measured of a pair at any two weights: columns task, metric, x, y (the weights), value, low, high."""
        import pandas as pd

        rows = [
            cells.assign(x=weights[pair[0]], y=weights[pair[1]])
            for weights, cells in self._pairs(rank)
            if set(weights) == set(pair)
        ]
        columns = ["task", "metric", "x", "y", "value", "low", "high"]
        return pd.concat(rows)[columns] if rows else pd.DataFrame(columns=columns)

    def _pairs(self, rank: int) -> Iterator[tuple[dict[str, float], "pd.DataFrame"]]:
        merged = self.records[(self.records.subject == "merge") & (self.records.method == EXACT) & self.records.label.isna()]
        for adapters, cells in merged[merged.adapters.str.count(",") == 1].groupby("adapters", sort=False):
            recipe = MergeRecipe.parse(str(adapters), self.backbone)
            if all(a.rank == rank for a in recipe.adapters):
                yield {a.name: a.weight for a in recipe.adapters}, cells


def combine(parts: Iterable[tuple[str, float, Interval]]) -> Interval:
    """A weighted sum of figures, each with the name of the images that it was measured on, its weight and itself.

    Its interval is wide rather than narrow: figures on the same images count as wholly dependent, in whichever way is
    worse, those on others as independent.
    """
    value, below, above = 0.0, {}, {}
    for images, weight, one in parts:
        assert one.low is not None, "only figures with an interval can be combined"
        assert one.high is not None, "only figures with an interval can be combined"
        value += weight * one.value
        down, up = weight * (one.low - one.value), weight * (one.high - one.value)
        below[images] = below.get(images, 0.0) + min(down, up)
        above[images] = above.get(images, 0.0) + max(down, up)
    spread = [sum(each**2 for each in side.values()) ** 0.5 for side in (below, above)]
    return Interval(value, value - spread[0], value + spread[1])
