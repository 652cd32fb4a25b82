"""Learned composition beside other ways to learn a new task, as tables made from the record of `benchmarks/composition.py`.

A way is better than another where the interval of their difference lies above 0, worse where it lies below, and in between
that is open; where a way is said to be nearly as good, the line is 3 points below 0. The interval is the mean over the cells,
each of a task, a number of images and a seed, ± t₀.₉₇₅ times its standard error.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t

from lora_lab.bundled import bundled
from lora_lab.composition.ways import WAYS
from lora_lab.results.markdown import markdown
from lora_lab.tasks import TASKS

RECORD = bundled("assets", "benchmarks", "composition.json")
LONGER = RECORD.parent / "few_shot.json"
FEW = (1, 5, 20)
MARGIN = 3.0
Shots = int | None


@dataclass(frozen=True)
class Difference:
    """How much one way is above another, in points of the tasks' first metric, over n cells of the same task and seed."""

    value: float
    low: float
    high: float
    n: int

    @property
    def text(self) -> str:
        if self.n < 2:
            return f"{self.value:+.1f} (n = {self.n})"
        return f"{self.value:+.1f} ({self.low:+.1f} to {self.high:+.1f}, n = {self.n})"


@dataclass(frozen=True)
class Claim:
    """What a way is said to do beside another: the difference, in points, lies above a line. `papers` tells who says so."""

    says: str
    way: str
    other: str
    shots: tuple[Shots, ...] = FEW
    papers: bool = True
    line: float = 0.0

    def verdict(self, found: Difference | None) -> str:
        """By the rule that this file opens with."""
        if found is None or found.n < 2:
            return "not measured"
        if found.low > self.line:
            return "holds here"
        return "does not hold here" if found.high < self.line else "open"


CLAIMS = (
    Claim("few shots: uniform composition beats full fine-tuning", "uniform", "full"),
    Claim("few shots: uniform composition beats LoRA from scratch", "uniform", "lora"),
    Claim("few shots: learned composition beats full fine-tuning", "learned", "full"),
    Claim("few shots: learned composition beats LoRA from scratch", "learned", "lora"),
    Claim("all images: learned composition is nearly as good as LoRA from scratch", "learned", "lora", (None,), line=-MARGIN),
    Claim("few shots: uniform composition beats the head alone", "uniform", "head_only", papers=False),
    Claim("few shots: learned composition beats the head alone", "learned", "head_only", papers=False),
    Claim("few shots: learned composition beats uniform composition", "learned", "uniform", papers=False),
)


def tables(path: Path = RECORD, longer: Path = LONGER) -> dict[str, Callable[[], str]]:
    """The tables in docs/RESULTS.md, by the name in their marks."""
    record = json.loads(path.read_text(encoding="utf-8"))
    makers = {"composition scores": scores_table, "composition claims": claims_table, "composition weights": weights_table}
    of_longer = json.loads(longer.read_text(encoding="utf-8"))
    return {
        **{name: partial(maker, record) for name, maker in makers.items()},
        "composition after long training": partial(scores_table, of_longer),
    }


def scores_table(record: Mapping[str, Any]) -> str:
    """Markdown: a row for each task and number of images a class; mean ± standard deviation of each way over the seeds."""
    found = _values(record)
    rows = []
    for task in dict.fromkeys(cell["task"] for cell in record["cells"]):
        for shots in (*FEW, None):
            seeds = sorted({seed for at, of, seed, _ in found if (at, of) == (task, shots)})
            if not seeds:
                continue
            values = [[found[task, shots, s, way] for s in seeds if (task, shots, s, way) in found] for way in WAYS]
            rows.append([TASKS[task].title, shots_text(shots), *map(_spread, values), str(len(seeds))])
    return markdown(["task", "images a class", *(way.title for way in WAYS.values()), "seeds"], rows)


def claims_table(record: Mapping[str, Any]) -> str:
    """Markdown: each claim with the difference by number of images a class, over all of them, and the verdict from that."""
    rows = []
    for claim in CLAIMS:
        each = [difference(record, claim.way, claim.other, (s,)) if s in claim.shots else None for s in (*FEW, None)]
        whole = difference(record, claim.way, claim.other, claim.shots)
        texts = [one.text if one else "–" for one in (*each, whole)]
        rows.append([claim.says, "the paper" if claim.papers else "ours", *texts, claim.verdict(whole)])
    return markdown(["claim", "whose", *map(shots_text, (*FEW, None)), "together", "verdict"], rows)


def weights_table(record: Mapping[str, Any]) -> str:
    """Markdown: the mean weight over layers and seeds that learned composition gives each adapter, in percent."""
    rows = []
    cells = [cell for cell in record["cells"] if cell["way"] == "learned"]
    names = list(dict.fromkeys(name for cell in cells for name in cell["weights"]))
    for task, shots in dict.fromkeys((cell["task"], cell["shots"]) for cell in cells):
        own = [cell["weights"] for cell in cells if (cell["task"], cell["shots"]) == (task, shots)]
        shares = [f"{100 * mean(w[name] for w in own):.0f}" if name in own[0] else "–" for name in names]
        rows.append([TASKS[task].title, shots_text(shots), *shares, str(len(own))])
    return markdown(["task", "images a class", *(TASKS[name].title for name in names), "seeds"], rows)


def difference(record: Mapping[str, Any], way: str, other: str, shots: Sequence[Shots]) -> Difference | None:
    """How much a way is above another, positive where it is better; none where no cell has both."""
    found = _values(record)
    signs = {name: 1 if task.higher_is_better else -1 for name, task in TASKS.items()}
    apart = [
        signs[task] * (value - found[task, of, seed, other])
        for (task, of, seed, by), value in found.items()
        if by == way and of in shots and (task, of, seed, other) in found
    ]
    if not apart:
        return None
    n, middle = len(apart), mean(apart)
    half = float(t.ppf(0.975, n - 1)) * stdev(apart) / n**0.5 if n > 1 else 0.0
    return Difference(middle, middle - half, middle + half, n)


def shots_text(shots: Shots) -> str:
    """A number of images a class in words."""
    return "all" if shots is None else str(shots)


def _values(record: Mapping[str, Any]) -> dict[tuple[str, Shots, int, str], float]:
    return {(cell["task"], cell["shots"], cell["seed"], cell["way"]): cell["value"] for cell in record["cells"]}


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")
