"""How merge methods stand in the league, read from its records: a row for each recipe and for each bound."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lora_lab.cards import HEAD_ONLY
from lora_lab.findings import EXACT, METRIC, UNIFORM, Interval
from lora_lab.merging import MERGE_METHODS, MergeRecipe
from lora_lab.metrics import ALL, MEAN_RETENTION, MERGE_SECONDS, RETENTION, WORST_RETENTION
from lora_lab.names import PREFIX
from lora_lab.records import RECORDS, RecordFile
from lora_lab.repairs import REPAIRS
from lora_lab.saved_merges import MergeCard, merge_cards, read_merge_card
from lora_lab.sweeps.league import BOUND, LEAGUE
from lora_lab.sweeps.spelling import read_spelled
from lora_lab.tasks import TASKS

if TYPE_CHECKING:
    import pandas as pd

Table = Literal["plain", "repaired", "trained"]
TRAINED, KEPT = "trained", "merges"
"""The folders, beside the records of the others, of adapters trained to be merged, and of the cards of kept merges."""

NEEDS = ("nothing", "statistics", "images", "labels", "task id", "training")
Figures = Mapping[tuple[str, str], Interval]
"""Intervals of one model by task and metric; the task `all` is of all of them."""


@dataclass(frozen=True)
class Standing:
    """A model in the league: a recipe, or what is no merge by its variant; `seconds` is the time of the merge alone.

    `n` is the number of images of the task with the fewest.
    """

    key: str
    recipe: MergeRecipe | None
    method: str
    title: str
    table: Table
    tasks: tuple[str, ...]
    rank: int
    needs: str
    bound: bool
    figures: Figures
    n: int
    spelled: str = ""

    def at(self, task: str, measure: str) -> Interval | None:
        """A measure of a task, its first metric by the name `metric`."""
        return self.figures.get((task, TASKS[task].metric if measure == METRIC else measure))

    @property
    def mean(self) -> Interval:
        return self.figures[ALL, MEAN_RETENTION]

    @property
    def worst(self) -> Interval:
        return self.figures[ALL, WORST_RETENTION]

    @property
    def worst_task(self) -> str:
        """The task that keeps least."""
        return min(self.tasks, key=lambda task: self.figures[task, RETENTION].value)

    @property
    def seconds(self) -> float | None:
        found = self.figures.get((ALL, MERGE_SECONDS))
        return found.value if found else None

    def to_json(self) -> dict[str, Any]:
        """For other programs."""
        return {
            "method": self.method,
            "title": self.title,
            "table": self.table,
            "tasks": list(self.tasks),
            "rank": self.rank,
            "mean_retention": self.mean.value,
            "low": self.mean.low,
            "high": self.mean.high,
            "worst_retention": self.worst.value,
            "worst_task": self.worst_task,
            "seconds": self.seconds,
            "needs": self.needs,
            "bound": self.bound,
            "recipe": self.recipe.model_dump() if self.recipe else None,
            "spelled": self.spelled,
            "n": self.n,
        }


def standings(
    records: "pd.DataFrame",
    backbone: str,
    split: str = "val",
    trained: bool = False,
    kept: Mapping[str, MergeCard] | None = None,
) -> list[Standing]:
    """Every merge and every bound of some records that has a mean retention, the best first.

    `kept` are the cards of the kept merges among them by name; those that come with LoRA Lab where they are not given.
    """
    cards = merge_cards(backbone) if kept is None else kept
    rows = records[(records.split == split) & (records.subject != "adapter") & records.label.isna()]
    measured = set(rows.recipe[rows.metric == MEAN_RETENTION])
    found = [_standing(of, backbone, trained, cards) for key, of in rows.groupby("recipe", sort=False) if key in measured]
    return sorted(found, key=lambda standing: -standing.mean.value)


def read_standings(backbone: str, folder: Path = RECORDS.parent, file: str = LEAGUE, split: str = "val") -> list[Standing]:
    """All that a folder of records holds, adapters trained to be merged among them."""
    found = []
    # Kept merges of adapters that are served no more have left their cards beside the records.
    kept = {path.name: read_merge_card(path) for path in sorted((folder / KEPT).glob("*"))} or None
    for place, trained in ((folder, False), (folder / TRAINED, True)):
        found += standings(RecordFile(place / file).read(), backbone, split, trained, kept)
    return sorted(found, key=lambda standing: -standing.mean.value)


def in_table(rows: list[Standing], table: Table | None, size: int | None = None) -> list[Standing]:
    """Those of a table, bounds in each, that merge so many adapters, as many as there are where it is none."""
    most = max((len(row.tasks) for row in rows), default=0)
    return [row for row in rows if len(row.tasks) == (size or most) and (table is None or row.bound or row.table == table)]


def name_of(recipe: MergeRecipe) -> str:
    """Under which a recipe stands: its method, where the exact sum at 1/K is one of its own."""
    shared = len(recipe.adapters) > 1 and all(a.weight == 1 / len(recipe.adapters) for a in recipe.adapters)
    return UNIFORM if recipe.method == EXACT and shared else recipe.method


def title_of(recipe: MergeRecipe) -> str:
    """Method and repair for people."""
    name = name_of(recipe)
    title = MERGE_METHODS[name].title if name in MERGE_METHODS else name.capitalize()
    return f"{title} + {REPAIRS[recipe.repair].title}" if recipe.repair else title


def table_of(recipe: MergeRecipe | None, trained: bool) -> Table:
    """The table that a recipe stands in."""
    if trained:
        return "trained"
    return "repaired" if recipe and recipe.repair else "plain"


def _standing(rows: "pd.DataFrame", backbone: str, trained: bool, cards: Mapping[str, MergeCard]) -> Standing:
    first = rows.iloc[0]
    columns = (rows[name] for name in ("task", "metric", "value", "low", "high"))
    figures = {(task, metric): Interval(*values) for task, metric, *values in zip(*columns, strict=True)}
    tasks = tuple(task for task in TASKS if (task, RETENTION) in figures)
    n = int(rows.n[rows.task == ALL].iloc[0])
    if first.subject != "merge":
        return _unmerged(str(first.recipe), tasks, figures, n)
    recipe = read_spelled(first.method, first.adapters, backbone)
    kept = cards.get(recipe.method.removeprefix(PREFIX)) if recipe.method.startswith(PREFIX) else None
    made = kept.recipe if kept else recipe
    if kept:
        figures[ALL, MERGE_SECONDS] = Interval(kept.seconds)
    method = MERGE_METHODS[made.method]
    asked = [method.needs, *([REPAIRS[made.repair].needs] if made.repair else [])]
    return Standing(
        key=str(first.recipe),
        recipe=recipe,
        method=name_of(recipe),
        title=title_of(made) + (" (kept)" if kept else ""),
        table=table_of(made, trained),
        tasks=tasks,
        rank=max(a.rank for a in recipe.adapters),
        needs=max(asked, key=NEEDS.index),
        bound=method.family == BOUND,
        figures=figures,
        n=n,
        spelled=str(first.method),
    )


def _unmerged(variant: str, tasks: tuple[str, ...], figures: Figures, n: int) -> Standing:
    bare = variant == HEAD_ONLY
    rank = 0 if bare else int(variant.rpartition("r")[2])
    title = "Heads alone, no adapter" if bare else f"One LoRA trained on all tasks, rank {rank}"
    needs = "nothing" if bare else "training"
    return Standing(variant, None, variant, title, "plain", tasks, rank, needs, True, figures, n)
