"""Who disturbs whom, from findings: matrices of pairs and of larger sets, as SVG and as tables."""

from typing import TYPE_CHECKING

from lora_lab.backbones import DEFAULT
from lora_lab.findings import DIFFERENCE, EXACT, GAIN_KEPT, METRIC, RETENTION, UNIFORM, Interval, Measure, Merge, Source
from lora_lab.matrix import Cell, matrix_svg
from lora_lab.merging import MERGE_METHODS
from lora_lab.paper import OURS, TITLES
from lora_lab.sweeps import WEIGHTINGS
from lora_lab.sweeps.spelling import read_spelled
from lora_lab.tasks import TASKS

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["task", "adapters", "rank", "method", "measure", "value", "low", "high"]
CAP = 100.0


def title_of(name: str) -> str:
    """A task's name for people, the paper's own among them."""
    return TASKS[name].title if name in TASKS else TITLES.get(name, name)


def method_title(method: str) -> str:
    """A method as it is spelled in records, for people: its title, and the knobs that are not as they are by default."""
    if method in WEIGHTINGS:
        return f"{MERGE_METHODS[method].title}, weights {'1/K' if method == UNIFORM else '1'}"
    recipe = read_spelled(method, "any=1", DEFAULT)
    found = MERGE_METHODS[recipe.method]
    moved = [
        f"{knob.title.lower()} {recipe.knobs[knob.name]:g}"
        for knob in found.knobs
        if recipe.knobs.get(knob.name, knob.default) != knob.default
    ]
    return f"{found.title} ({', '.join(moved)})" if moved else found.title


def pairs_svg(source: Source, rank: int, method: str, measure: Measure, loads: bool = True) -> str:
    """How each task fares with each partner; a cell names its merge where it `loads` one."""
    rows = [
        [
            _cell(source, task, Merge(tuple(dict.fromkeys((task, partner))), rank, method), measure, loads)
            for partner in source.names
        ]
        for task in source.names
    ]
    titles = [title_of(name) for name in source.names]
    short = [title.split(" (")[0] for title in titles]
    return matrix_svg(f"{measure.title}: a task (row) with a partner (column), {source.title}", titles, short, rows)


def sets_svg(source: Source, merges: list[Merge], measure: Measure, loads: bool = True) -> str:
    """How each task fares in larger sets, the sets that keep most first; retention in the mean is capped at 100."""
    scored = sorted(((_kept(source, merge), merge) for merge in merges), key=lambda pair: -sum(pair[0]) / len(pair[0]))
    rows, labels = [], []
    for kept, merge in scored:
        row = [_cell(source, task, merge, measure, loads) if task in merge.names else None for task in source.names]
        average, worst = sum(kept) / len(kept), min(kept)
        merge_text = _spelled(merge) if loads else ""
        ends = [("mean", average), ("worst", worst)]
        rows.append(row + [Cell(f"{value:.0f}", value, f"{what} retention {value:.1f} %", merge_text) for what, value in ends])
        labels.append(" + ".join(_lower_title(name) for name in merge.names))
    columns = [title_of(name) for name in source.names] + ["mean retained", "worst retained"]
    return matrix_svg(f"{measure.title} in larger sets, the best first", labels, columns, rows)


def table(source: Source, merges: list[Merge], measure: Measure) -> "pd.DataFrame":
    """The same figures as a table, a row for each task of each merge."""
    import pandas as pd

    rows = []
    for merge in merges:
        for task in merge.names:
            found = source.score(task, merge, measure.name)
            if found:
                rows.append([task, "+".join(merge.names), merge.rank, merge.method, measure.name, *found])
    return pd.DataFrame(rows, columns=COLUMNS)


def pair_merges(source: Source, rank: int, method: str) -> list[Merge]:
    """Every adapter alone and every pair."""
    names = source.names
    return [Merge(tuple(dict.fromkeys((one, two))), rank, method) for i, one in enumerate(names) for two in names[i:]]


def _cell(source: Source, task: str, merge: Merge, measure: Measure, loads: bool) -> Cell:
    spelled = _spelled(merge) if loads else ""
    found = source.score(task, merge, measure.name)
    lone = len(merge.names) == 1
    kept = source.score(task, merge, GAIN_KEPT if measure.name == GAIN_KEPT else RETENTION)
    share = CAP if lone and source.score(task, merge, METRIC) else kept.value if kept else None
    others = " and ".join(title_of(name) for name in merge.names if name != task)
    what = f"{title_of(task)} {'alone' if lone else 'with ' + others}"
    if found is None:
        if lone and share is not None:
            return Cell("alone", None, f"{what}: what the others are compared with", spelled)
        return Cell("–", None, f"{what}: {_why_not(measure)}")
    return Cell(_short(found, measure), share, f"{what}, {measure.title.lower()}: {found}", spelled)


def _why_not(measure: Measure) -> str:
    if measure.name == GAIN_KEPT:
        return "not measured, or its adapter alone is not surely better than its head alone"
    return "not measured"


def _short(found: Interval, measure: Measure) -> str:
    return f"{found.value:+.1f}" if measure.name == DIFFERENCE else f"{found.value:.1f}"


def _kept(source: Source, merge: Merge) -> list[float]:
    found = [source.score(task, merge, RETENTION) for task in merge.names]
    return [min(CAP, one.value) for one in found if one]


def _spelled(merge: Merge) -> str:
    ours = Merge(tuple(OURS.get(name, name) for name in merge.names), merge.rank, merge.method)
    recipe = ours.recipe(DEFAULT)
    return recipe.spelled if recipe.method == EXACT else recipe.model_dump_json()


def _lower_title(name: str) -> str:
    return title_of(name).split(" (")[0].lower()
