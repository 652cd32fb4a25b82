"""The tables of Kesim and Helli, "Multi LoRA Meets Vision" (arXiv 2411.14064), as a source of figures beside ours.

Its tasks keep their names: where we have land cover, it has fire risk. The paper gives no intervals.
"""

import csv
from pathlib import Path

from lora_lab.bundled import bundled
from lora_lab.findings import METRIC, Interval, Merge
from lora_lab.metrics import DIFFERENCE, GAIN_KEPT, RETENTION

TABLES = bundled("assets", "paper", "tables.csv")
SHORT = {
    "AC": "age_class",
    "AR": "age_regression",
    "E": "emotion",
    "L": "landmarks",
    "G": "galaxy",
    "F": "fire_risk",
}
TITLES = {"fire_risk": "Fire risk (the paper's)"}
OURS = {"fire_risk": "land_cover"}
"""What stands in our tables where the paper has another task."""

THEIRS = {ours: theirs for theirs, ours in OURS.items()}

FIRST = ("macro_f1", "rmse", "nme_percent")
HEAD = frozenset({"head"})


class Paper:
    """Figures by the set of adapters, the rank and the task that was measured."""

    title = "the paper"
    names = tuple(SHORT.values())

    def __init__(self, path: Path = TABLES):
        self._values: dict[tuple[str, frozenset[str], int], float] = {}
        self.tables: dict[str, list[tuple[str, frozenset[str], int]]] = {}
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["metric"] not in FIRST:
                    continue
                short = row["adapters"].split("+")
                names = HEAD if short == ["head"] else frozenset(SHORT[name] for name in short)
                place = (row["measured_task"], names, int(row["rank"] or 0))
                self.tables.setdefault(row["table"], []).append(place)
                if row["value"]:
                    self._values[place] = float(row["value"])

    def score(self, task: str, merge: Merge, measure: str) -> Interval | None:
        """A measure of a task in a merge by the exact sum; none where the paper has none or it was illegible."""
        if merge.method != "exact":
            return None
        now = self._values.get((task, frozenset(merge.names), merge.rank))
        alone = self._values.get((task, frozenset({task}), merge.rank))
        head = self.head_only(task)
        if now is None or alone is None or head is None:
            return None
        values = {
            METRIC: now,
            DIFFERENCE: now - alone,
            RETENTION: 100 * (alone / now if task in ("age_regression", "landmarks") else now / alone),
        }
        gained = head - alone if task in ("age_regression", "landmarks") else alone - head
        if gained > 0:
            values[GAIN_KEPT] = 100 * (now - head) / (alone - head)
        return Interval(values[measure]) if measure in values else None

    def head_only(self, task: str) -> float | None:
        """The head on the frozen backbone."""
        return self._values.get((task, HEAD, 0))
