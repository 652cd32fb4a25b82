"""The league of merge methods as tables and a picture, from its records alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from lora_lab.findings import GAIN_KEPT, RETENTION, Interval
from lora_lab.matrix import Cell, matrix_svg
from lora_lab.records import RECORDS, SHORT, TRAININGS, RecordFile
from lora_lab.results.markdown import markdown
from lora_lab.standings import TRAINED, Standing, Table, in_table, read_standings
from lora_lab.sweeps.league import FINAL, FINALISTS, HIGH, LEAGUE, LOW, TRIALS
from lora_lab.tasks import TASKS

RANKS = (LOW, HIGH)
HEAD = ["method", "needs", "mean kept, %", "worst kept, %", "worst task", "merge, s", "knobs"]


def league_tables(backbone: str, folder: Path = RECORDS.parent, begun: Path = TRAININGS[SHORT]) -> dict[str, Callable[[], str]]:
    """The league's tables in docs/RESULTS.md, by the name in their marks.

    `begun` holds the records of the adapters that those went on from which were trained to be merged.
    """
    rows, trials = read_standings(backbone, folder), read_standings(backbone, folder, TRIALS)
    final = {split: read_standings(backbone, folder, FINAL, split) for split in ("val", "test")}
    return {
        **{f"league {table}": partial(ranking, rows, table) for table in ("plain", "repaired")},
        "league trained": lambda: ranking(read_standings(backbone, begun), "trained"),
        "league pairs": partial(pairs_table, rows),
        "league all pairs and triples": partial(sets_table, rows),
        "league by task": partial(tasks_table, rows),
        "league final": partial(final_table, final),
        "knobs tried": partial(knobs_table, trials),
        "trained alone": partial(alone_table, begun),
        "bounds": partial(bounds_table, rows),
    }


def league_figures(backbone: str, folder: Path = RECORDS.parent) -> dict[str, str]:
    """The league's pictures, SVG by file name."""
    return {"league.svg": league_svg(all_adapters(read_standings(backbone, folder)))}


def all_adapters(rows: Sequence[Standing], table: Table | None = None) -> list[Standing]:
    """The merges of all adapters at the lower rank and the bounds, the best first."""
    return [row for row in in_table(list(rows), table) if row.bound or row.rank == LOW]


def ranking(rows: Sequence[Standing], table: Table) -> str:
    """A table of the league: all adapters in one merge, bounds among them in italics."""
    lines = []
    for row in all_adapters(rows, table):
        title = f"*{row.title}* (bound)" if row.bound else row.title
        seconds = "–" if row.seconds is None else f"{row.seconds:.2f}"
        shown = [row.mean.text(), row.worst.text(), TASKS[row.worst_task].title]
        lines.append([title, row.needs, *shown, seconds, setting(row)])
    return markdown(HEAD, lines)


def alone_table(folder: Path) -> str:
    """What adapters that were trained to be merged score alone, beside those trained alone, on the same images."""
    plain, trained = (_alone(folder / place / LEAGUE) for place in (".", TRAINED))
    lines = []
    for name, (after, interval) in trained.items():
        before, better = plain[name][0], 1 if TASKS[name].higher_is_better else -1
        shown = [f"{before:.1f}", interval, f"{better * (after - before):+.1f}"]
        lines.append([TASKS[name].title, TASKS[name].metric, *shown])
    return markdown(["task", "metric", "trained alone", "trained to be merged", "better by"], lines)


def _alone(path: Path) -> dict[str, tuple[float, str]]:
    """The first metric of each adapter of the lower rank alone on val, and its interval in words."""
    frame = RecordFile(path).read()
    rows = frame[(frame.subject == "adapter") & (frame.split == "val") & frame.label.isna()]
    rows = rows[rows.adapters.str.contains(f":r{LOW}=")]
    found = {}
    for name, task in TASKS.items():
        of = rows[(rows.task == name) & (rows.metric == task.metric)]
        if len(of):
            one = of.iloc[-1]
            found[name] = (float(one.value), Interval(float(one.value), float(one.low), float(one.high)).text())
    return found


def pairs_table(rows: Sequence[Standing]) -> str:
    """What every method keeps in the pairs that all of them merge at the lower rank."""
    merged = _by_method(row for row in rows if row.rank == LOW and len(row.tasks) == 2)
    shared = set.intersection(*({row.tasks for row in of} for of in merged.values())) if merged else set()
    return markdown(
        ["method", "pairs", "mean kept, %", "worst task keeps, %", "in the pair"],
        [[title, *_summary([row for row in of if row.tasks in shared])] for title, of in _best_first(merged, shared)],
    )


def sets_table(rows: Sequence[Standing]) -> str:
    """What the best methods keep in all pairs, in the paper's triples and with all adapters, at both ranks."""
    most = max((len(row.tasks) for row in rows), default=0)
    lines = []
    for rank in RANKS:
        for size, what in ((2, "pairs"), (3, "triples"), (most, "all")):
            there = _by_method(row for row in rows if row.rank == rank and len(row.tasks) == size and row.table == "plain")
            full = max((len(of) for of in there.values()), default=0)
            complete = {title: of for title, of in there.items() if len(of) == full and not of[0].bound}
            best = _best_first(complete, {row.tasks for of in complete.values() for row in of})
            lines += [[f"r{rank}", what, title, *_summary(of)] for title, of in best]
    return markdown(["rank", "sets", "method", "number", "mean kept, %", "worst task keeps, %", "in the set"], lines)


def tasks_table(rows: Sequence[Standing]) -> str:
    """What each task keeps with the best recipes of each table."""
    lines = []
    for table in ("plain", "repaired", "trained"):
        best = [row for row in all_adapters(rows, table) if not row.bound][:FINALISTS]
        for row in best:
            for measure, what in ((RETENTION, "kept, %"), (GAIN_KEPT, "gain kept, %")):
                lines.append([row.title, table, what, *(_shown(row.at(task, measure)) for task in TASKS)])
    return markdown(["method", "table", "measure", *(task.title for task in TASKS.values())], lines)


def final_table(final: Mapping[str, Sequence[Standing]]) -> str:
    """The best of each table on all images of val, and the winner, which val has chosen, on test."""
    tested = {row.key: row for row in final["test"]}
    lines = []
    for row in (row for row in final["val"] if not row.bound):
        found = tested.get(row.key)
        on_test = [found.mean.text(), found.worst.text(), TASKS[found.worst_task].title] if found else ["–"] * 3
        on_val = [row.mean.text(), row.worst.text(), TASKS[row.worst_task].title]
        lines.append([row.title, row.table, setting(row), *on_val, *on_test])
    head = ["mean kept, %", "worst kept, %", "worst task"]
    on_both = [f"{split}: {name}" for split in ("val", "test") for name in head]
    return markdown(["method", "table", "knobs", *on_both], lines)


def knobs_table(trials: Sequence[Standing]) -> str:
    """Every setting that was tried, and what it keeps in the mean; the best of each method is the one in the league."""
    lines = []
    for title, of in _by_method(trials, settings=False).items():
        kept = ", ".join(f"{setting(row) or 'as it is'}: {row.mean.value:.1f}" for row in of)
        lines.append([title, str(len(of)), kept])
    return markdown(["method", "settings", "mean kept, %, the best first"], lines)


def bounds_table(rows: Sequence[Standing]) -> str:
    """What is no merge: the least and the most that one may hope for."""
    bounds = [row for row in all_adapters(rows) if row.bound]
    lines = [[r.title, r.mean.text(), r.worst.text(), *(_shown(r.at(t, RETENTION)) for t in TASKS)] for r in bounds]
    return markdown(["bound", "mean kept, %", "worst kept, %", *(task.title for task in TASKS.values())], lines)


def league_svg(rows: Sequence[Standing]) -> str:
    """What each task keeps by each method with all adapters merged, the best method first."""
    names = [name for name in TASKS if any(name in row.tasks for row in rows)]
    columns = [*(TASKS[name].title for name in names), "mean retained", "worst retained"]
    cells = []
    for row in rows:
        merge = row.recipe.spelled if row.recipe else ""
        line = [_cell(row, TASKS[name].title, row.at(name, RETENTION), merge) for name in names]
        cells.append([*line, _cell(row, "mean", row.mean, merge), _cell(row, "worst", row.worst, merge)])
    labels = [f"{row.title} (bound)" if row.bound else row.title for row in rows]
    return matrix_svg("Retention in one merge of all adapters, %", labels, columns, cells)


def first_screen(rows: Sequence[Standing], final: Sequence[Standing] = (), tested: Sequence[Standing] = ()) -> str:
    """The league in a sentence for the README, with the command that shows it; nothing where nothing is measured.

    The best on all images of val, where such were measured, else on those of the league.
    """
    best = next((row for row in (*final, *all_adapters(rows)) if not row.bound), None)
    if best is None:
        return ""
    on_test = next((f"; on test {row.mean.text()} % and {row.worst.text()} %" for row in tested if row.key == best.key), "")
    return (
        f"**{len(best.tasks)} adapters in one ViT, one forward a crop**: merged, they keep {best.mean.text()} % of what each "
        f"scores alone in the mean, and the worst of them, {TASKS[best.worst_task].title.lower()}, {best.worst.text()} % "
        f"(val{on_test}). Made by: {best.title.lower()}. `lora-lab league --merge six` shows it among all methods."
    )


def setting(row: Standing) -> str:
    """Knobs, and weights where they are 1/K, in words."""
    if row.recipe is None:
        return ""
    knobs = [f"{name} {value:g}" for name, value in row.recipe.knobs.items()]
    shared = row.recipe.adapters[0].weight != 1 and row.method == row.recipe.method
    return ", ".join([*knobs, *(["weights 1/K"] if shared else [])])


def _by_method(rows: Iterable[Standing], settings: bool = True) -> dict[str, list[Standing]]:
    found: dict[str, list[Standing]] = {}
    for row in rows:
        if row.recipe:
            place = f"{row.title} ({setting(row)})" if settings and setting(row) else row.title
            found.setdefault(place, []).append(row)
    return found


def _best_first(merged: Mapping[str, list[Standing]], sets: set[tuple[str, ...]]) -> list[tuple[str, list[Standing]]]:
    def mean(of: Sequence[Standing]) -> float:
        kept = [row.mean.value for row in of if row.tasks in sets]
        return sum(kept) / len(kept) if kept else 0.0

    return sorted(merged.items(), key=lambda item: -mean(item[1]))


def _summary(rows: Sequence[Standing]) -> list[str]:
    if not rows:
        return ["0", "–", "–", "–"]
    worst = min(rows, key=lambda row: row.worst.value)
    mean = sum(row.mean.value for row in rows) / len(rows)
    names = " + ".join(TASKS[name].title.lower() for name in worst.tasks)
    lost = f"{worst.worst.value:.1f} ({TASKS[worst.worst_task].title.lower()})"
    return [str(len(rows)), f"{mean:.1f}", lost, names]


def _cell(row: Standing, what: str, found: Interval | None, merge: str) -> Cell:
    if found is None:
        return Cell("–", None, f"{what}: not measured")
    return Cell(f"{found.value:.1f}", found.value, f"{row.title}, {what}: {found} % kept", merge)


def _shown(found: Interval | None) -> str:
    return found.text() if found else "–"
