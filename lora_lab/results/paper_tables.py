"""The tables of docs/RESULTS.md, from records alone: ours beside those of the paper."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from lora_lab.bundled import bundled
from lora_lab.derived import predictors
from lora_lab.findings import EXACT, GAIN_KEPT, MEASURES, METRIC, RETENTION, UNIFORM, Findings, Interval, Merge
from lora_lab.forecast import Forecast, ForecastFits, HeldOut
from lora_lab.heatmaps import pairs_svg, sets_svg
from lora_lab.interference import MEASURES as OF_WEIGHTS
from lora_lab.metrics import DETECTION, GAIN
from lora_lab.paper import THEIRS, Paper
from lora_lab.results.claims import claims_table
from lora_lab.results.markdown import markdown
from lora_lab.tasks import TASKS

SWEEP = bundled("assets", "benchmarks", "sweep.json")
RANKS = (16, 64)
METHODS = {EXACT: "exact sum", UNIFORM: "uniform"}
UNITS = {"macro_f1": "macro F1, % ↑", "rmse": "RMSE, years ↓", "nme": "NME, % ↓"}
PAPER_UNITS = {"macro_f1": "macro F1, % ↑", "rmse": "RMSE, scaled ↓", "nme": "NME, % ↓"}
TABLES = {
    "II": "age_class",
    "III": "emotion",
    "IV": "land_cover",
    "V": "landmarks",
    "VI": "age_regression",
    "VII": "galaxy",
}
"""The task that each of the paper's tables of pairs measures; land cover where it has fire risk."""


def result_tables(findings: Findings) -> dict[str, Callable[[], str]]:
    """The tables of docs/RESULTS.md, by the name in their marks."""
    paper = Paper()
    pairs = {f"Table {number}": partial(pairs_table, findings, paper, name) for number, name in TABLES.items()}
    return {
        "what was measured": partial(measured_table, findings),
        "precision": lambda: precision_table(json.loads(SWEEP.read_text(encoding="utf-8"))),
        "claims": partial(claims_table, findings, paper),
        "Table I": partial(singles_table, findings, paper),
        **pairs,
        "Table VIII": partial(triples_table, findings, paper),
        "sets by size": partial(sizes_table, findings),
        "all six": partial(six_table, findings),
        "recall of each class": partial(recall_table, findings),
        "faces found": partial(detection_table, findings),
        "weights alone": partial(weights_table, findings),
        "forecast": partial(forecast_table, findings),
    }


def result_figures(findings: Findings) -> dict[str, str]:
    """The pictures of docs/RESULTS.md, SVG by file name."""
    paper, kept, all_six = Paper(), MEASURES[RETENTION], [m for size in (4, 5, 6) for m in findings.sets(16, EXACT, size)]
    return {
        "pairs.svg": pairs_svg(findings, 16, EXACT, kept),
        "pairs-of-the-paper.svg": pairs_svg(paper, 16, EXACT, kept),
        "larger-sets.svg": sets_svg(findings, all_six, kept),
    }


def measured_table(findings: Findings) -> str:
    """How many images and merges the records hold."""
    records = findings.records[findings.records.label.isna()]
    rows = []
    for name in findings.names:
        own = records[(records.task == name) & (records.metric == TASKS[name].metric)]
        rows.append([_title(name), TASKS[name].folder, str(own.n.iloc[0]), str(len(own))])
    commits, precisions = (", ".join(sorted(set(records[column]))) for column in ("commit", "precision"))
    note = f"\n\nSplit: {records.split.iloc[0]}. Forwards in {precisions}. Made by the state {commits} of the code."
    return markdown(["task", "images of", "images", "models measured"], rows) + note


def precision_table(record: Mapping) -> str:
    """What bfloat16 changes in the first metric of some merges, and what a sweep costs beside its forwards."""
    rows = []
    for name, task in TASKS.items():
        found = [row for row in record["precision"] if row["task"] == name]
        apart = [abs(row["bfloat16"] - row["float32"]) for row in found]
        share = max(gap / row["half_interval"] for gap, row in zip(apart, found, strict=True))
        shown = [str(len(found)), f"{sum(apart) / len(apart):.2f}", f"{max(apart):.2f}", f"{100 * share:.0f}"]
        rows.append([_title(name), UNITS[task.metric], *shown])
    head = ["task", "metric", "merges", "mean difference to float32", "largest", "largest, in % of half its interval"]
    cost = record["overhead"]
    note = (
        f"\n\nA sweep costs its forwards and {cost['overhead_percent']:.1f} % more ({cost['images']} images in "
        f"{cost['sweep']:.1f} s, forwards alone {cost['forwards']:.1f} s; `python benchmarks/sweep.py DATA`)."
    )
    return markdown(head, rows) + note


def forecast_table(findings: Findings) -> str:
    """How the forecast did on the recipes that no fit has seen."""
    forecast = Forecast(findings, ForecastFits.read())
    rows = [[_title(name), *_forecast_row(forecast.test(name))] for name in findings.names]
    rows.append(
        ["All, in percent of the score", *_forecast_row([one for name in findings.names for one in forecast.test(name, True)])]
    )
    head = ["task", "recipes", "within the 90 % bounds, %", "forecast's mean error", "nearest record's mean error"]
    return markdown(head, rows)


def _forecast_row(tested: Sequence[HeldOut]) -> list[str]:
    inside = 100 * sum(one.inside for one in tested) / len(tested)
    errors = [sum(getattr(one, name) for one in tested) / len(tested) for name in ("error", "nearest_error")]
    return [str(len(tested)), f"{inside:.0f}", *(f"{error:.2f}" for error in errors)]


def singles_table(findings: Findings, paper: Paper) -> str:
    """Table I: each adapter alone and its head alone, and by how much the adapter is better."""
    rows = []
    for name in findings.names:
        task, theirs = TASKS[name], THEIRS.get(name, name)
        ours = [findings.score(name, Merge((name,), rank), METRIC) for rank in RANKS]
        head = findings.at("head_only", name, task.metric)
        gains = [findings.at(Merge((name,), rank).recipe(findings.backbone).key, name, GAIN) for rank in RANKS]
        papers = [paper.score(theirs, Merge((theirs,), rank), METRIC) for rank in RANKS]
        printed = [_plain(one, 2) for one in papers] + [f"{paper.head_only(theirs):.2f}"]
        rows.append([_title(name), UNITS[task.metric], *map(_shown, (*ours, head, *gains)), *printed])
    head_row = ["task", "metric", "r16", "r64", "head only", "gain of r16", "gain of r64"]
    return markdown([*head_row, "paper: r16", "paper: r64", "paper: head"], rows)


def pairs_table(findings: Findings, paper: Paper, name: str) -> str:
    """One of Tables II to VII: a task with each partner, and what it retains."""
    rows = []
    for partner in findings.names:
        if partner == name:
            continue
        theirs, other = THEIRS.get(name, name), THEIRS.get(partner, partner)
        row = [_title(partner)]
        for rank in RANKS:
            merge = Merge((name, partner), rank)
            row += [_shown(findings.score(name, merge, METRIC)), _shown(findings.score(name, merge, RETENTION))]
        for rank in RANKS:
            merge = Merge((theirs, other), rank)
            row += [_plain(paper.score(theirs, merge, METRIC), 2), _plain(paper.score(theirs, merge, RETENTION), 1)]
        rows.append(row)
    unit = UNITS[TASKS[name].metric]
    head = ["with", f"r16: {unit}", "kept, %", f"r64: {unit}", "kept, %"]
    return markdown([*head, f"paper r16: {PAPER_UNITS[TASKS[name].metric]}", "kept, %", "paper r64", "kept, %"], rows)


def triples_table(findings: Findings, paper: Paper) -> str:
    """Table VIII: land cover (the paper: fire risk) and galaxy with a third."""
    rows = []
    for third in ("age_class", "emotion", "age_regression", "landmarks"):
        for name in ("land_cover", "galaxy", third):
            row = [f"land cover + galaxy + {_title(third).lower()}", _title(name), UNITS[TASKS[name].metric]]
            for rank in RANKS:
                merge = Merge(("land_cover", "galaxy", third), rank)
                row += [_shown(findings.score(name, merge, METRIC)), _shown(findings.score(name, merge, RETENTION))]
            for rank in RANKS:
                theirs = THEIRS.get(name, name)
                merge = Merge(("fire_risk", "galaxy", third), rank)
                row += [_plain(paper.score(theirs, merge, METRIC), 2), _plain(paper.score(theirs, merge, RETENTION), 1)]
            rows.append(row)
    head = ["merge", "task", "metric", "r16", "kept, %", "r64", "kept, %"]
    return markdown([*head, "paper r16", "kept, %", "paper r64", "kept, %"], rows)


def sizes_table(findings: Findings) -> str:
    """How much all sets of a size keep at rank 16: the mean over their tasks, capped at 100, and the worst task."""
    rows = []
    for method, title in METHODS.items():
        for size in range(2, len(findings.names) + 1):
            kept = {
                (merge.names, task): found.value
                for merge in findings.sets(16, method, size)
                for task in merge.names
                if (found := findings.score(task, merge, RETENTION))
            }
            means = {
                names: sum(min(100.0, value) for (of, _), value in kept.items() if of == names) / size
                for names in dict.fromkeys(names for names, _ in kept)
            }
            best = max(means, key=lambda names: means[names])
            (_, worst), low = min(kept.items(), key=lambda item: item[1])
            names, lost = " + ".join(_title(name).lower() for name in best), f"{low:.1f} ({_title(worst).lower()})"
            average = sum(means.values()) / len(means)
            rows.append([title, str(size), str(len(means)), f"{average:.1f}", f"{means[best]:.1f}", names, lost])
    return markdown(
        ["method", "adapters", "sets", "mean kept, %", "best set keeps, %", "best set", "worst task keeps, %"], rows
    )


def six_table(findings: Findings) -> str:
    """All six adapters in one merge."""
    rows = []
    for name in findings.names:
        row = [_title(name), UNITS[TASKS[name].metric], _shown(findings.score(name, Merge((name,)), METRIC))]
        for rank, method in ((16, EXACT), (16, UNIFORM), (64, EXACT), (64, UNIFORM)):
            merge = Merge(findings.names, rank, method)
            row += [_shown(findings.score(name, merge, METRIC)), _shown(findings.score(name, merge, RETENTION))]
            row += [_shown(findings.score(name, merge, GAIN_KEPT))] if rank == 16 else []
        rows.append(row)
    head = ["task", "metric", "r16 alone"]
    for title in ("r16 exact", "r16 uniform"):
        head += [title, "kept, %", "gain kept, %"]
    return markdown([*head, "r64 exact", "kept, %", "r64 uniform", "kept, %"], rows)


def six_kept_table(findings: Findings) -> str:
    """What each task keeps of its score in the merge of all six at rank 16, for the README."""
    rows = []
    for method, title in METHODS.items():
        kept = [findings.score(name, Merge(findings.names, 16, method), RETENTION) for name in findings.names]
        rows.append([title, *map(_shown, kept)])
    return markdown(["kept, %", *map(_title, findings.names)], rows)


def weights_table(findings: Findings) -> str:
    """How well each measure of the weights foretells the measured interference of the directed pairs."""
    rows = []
    for name, measure in OF_WEIGHTS.items():
        found = [predictors(findings, rank)[name] for rank in RANKS]
        shown = [f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f})" for one in found]
        rows.append([measure.title, "yes" if measure.directed else "no", *shown, measure.meaning.replace("|", "\\|")])
    return markdown(["measure", "has a direction", "ρ at r16", "ρ at r64", "what it is"], rows)


def detection_table(findings: Findings) -> str:
    """In how many of the images a face was found, where one was sought."""
    found = {name: findings.at("head_only", name, DETECTION) for name in findings.names}
    return markdown(["task", "faces found, %"], [[_title(name), str(one)] for name, one in found.items() if one])


def recall_table(findings: Findings) -> str:
    """Recall of each class, alone and in the merge of all six."""
    rows = []
    for name in findings.names:
        for label in TASKS[name].labels:
            merges = (Merge((name,)), Merge(findings.names), Merge(findings.names, 16, UNIFORM))
            keys = [merge.recipe(findings.backbone).key for merge in merges]
            found = [findings.at(key, name, "recall", label) for key in keys]
            if any(found):
                rows.append([_title(name), label, *map(_shown, found)])
    return markdown(["task", "class", "r16 alone", "six, exact", "six, uniform"], rows)


def _title(name: str) -> str:
    return TASKS[name].title


def _shown(found: Interval | None) -> str:
    return found.text() if found else "–"


def _plain(found: Interval | None, digits: int) -> str:
    return f"{found.value:.{digits}f}" if found else "–"
