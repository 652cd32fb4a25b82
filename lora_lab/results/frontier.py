"""Long and short training beside each other: what each task scores alone and merged, and what a merge costs."""

from collections.abc import Callable
from functools import partial

from lora_lab.findings import METRIC
from lora_lab.frontier import alone_in, merges_of, undominated
from lora_lab.records import LONG, TRAININGS
from lora_lab.results.league import setting
from lora_lab.results.markdown import markdown
from lora_lab.results.paper_tables import UNITS
from lora_lab.standings import Standing
from lora_lab.sweeps.league import FINAL, LEAGUE
from lora_lab.tasks import TASKS

BY_NEEDS = ("nothing", "statistics", "images")


def frontier_tables() -> dict[str, Callable[[], str]]:
    """The tables of the frontier in docs/RESULTS.md, by the name in their marks."""
    return {"frontier": frontier_table, "cost of a merge": partial(cost_table, LONG)}


def side_by_side() -> str:
    """Each task alone and in the best merge of all, on all of val, for the README."""
    best = _best(merges_of(LONG, FINAL))
    if best is None:
        return ""
    rows = [
        [task.title, UNITS[task.metric], alone.text(), merged.text()]
        for name, task in TASKS.items()
        if (alone := alone_in(LONG, FINAL).get(name)) and (merged := best.at(name, METRIC))
    ]
    return markdown(["task", "metric on val", "its adapter alone", "all six merged"], rows)


def frontier_table() -> str:
    """The score of each task alone, and in the best merge of all that needs no more than is said, for each training."""
    rows = []
    for training in TRAININGS:
        alone = alone_in(training, LEAGUE)
        shown = [alone[name].text() if name in alone else "–" for name in TASKS]
        rows.append([training, "*alone*", "", "", *shown])
        for needs in BY_NEEDS:
            best = _best(tuple(row for row in merges_of(training, LEAGUE) if row.needs == needs))
            if best:
                named = f"{best.title} ({setting(best)})" if setting(best) else best.title
                scores = [found.text() if (found := best.at(name, METRIC)) else "–" for name in TASKS]
                rows.append([training, named, needs, best.mean.text(), *scores])
    head = ["training", "merge of all six", "needs", "mean kept, %"]
    return markdown([*head, *(f"{task.title}: {UNITS[task.metric]}" for task in TASKS.values())], rows)


def cost_table(training: str) -> str:
    """The merges that none beats in as little time."""
    rows = [
        [f"{row.seconds:.2f}", row.title, setting(row), row.needs, row.mean.text(), row.worst.text()]
        for row in undominated(merges_of(training, LEAGUE))
    ]
    return markdown(["seconds", "merge of all six", "knobs", "needs", "mean kept, %", "worst kept, %"], rows)


def _best(rows: tuple[Standing, ...]) -> Standing | None:
    return rows[0] if rows else None
