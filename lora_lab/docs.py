"""The generated parts of the documents, from cards and records: `python -m lora_lab.docs` writes them."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from lora_lab.backbones import DEFAULT
from lora_lab.bundled import bundled
from lora_lab.cards import AdapterCard, ScoreEntry, list_cards
from lora_lab.data.formats import FORMATS, format_table
from lora_lab.findings import Findings
from lora_lab.records import RecordFile
from lora_lab.results import composition, honesty
from lora_lab.results.frontier import frontier_tables, side_by_side
from lora_lab.results.league import first_screen, league_figures, league_tables
from lora_lab.results.methods import (
    cut_table,
    knobs_of_methods_table,
    laws_table,
    merge_speed_table,
    methods_table,
    repairs_table,
    slider_table,
)
from lora_lab.results.paper_tables import result_figures, result_tables, six_kept_table
from lora_lab.standings import read_standings
from lora_lab.sweeps.league import FINAL
from lora_lab.tasks import TASKS

ROOT = bundled()
README, DATA, RESULTS, MERGING, RELIABILITY = (
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("DATA", "RESULTS", "MERGING", "RELIABILITY")),
)
BENCHMARKS = ROOT / "assets" / "benchmarks"
SPEED, COLOUR = BENCHMARKS / "training_speed.json", BENCHMARKS / "emotion_colour.json"
COURSES = BENCHMARKS / "courses.json"
CUT_RANKS = BENCHMARKS / "cut_ranks.json"
DEVICE = BENCHMARKS / "device_check.json"
MEMORY, FUZZ = BENCHMARKS / "memory.json", BENCHMARKS / "fuzz.json"
MERGE_SPEED, SLIDER = BENCHMARKS / "merge_speed.json", BENCHMARKS / "slider.json"
METRIC_TITLES = {
    "macro_f1": "macro F1, %",
    "accuracy": "accuracy, %",
    "rmse": "RMSE, years",
    "mae": "MAE, years",
    "nme": "NME, %",
}
VARIANTS = {
    "head_only": "head only",
    "r16": "r16",
    "r16_short": "r16, short",
    "r64": "r64",
    "joint_r16": "joint r16",
    "joint_r96": "joint r96",
    "full": "full",
}


def score_table(cards: list[AdapterCard], split: str) -> str:
    """Markdown: a row for each task and metric, a column for each variant, on one split with 95 % intervals."""
    by_place = {(card.task, card.variant): card for card in cards}
    lines = [f"| task | metric | {' | '.join(VARIANTS.values())} |", f"|{'---|' * (2 + len(VARIANTS))}"]
    for task in TASKS.values():
        for metric in task.metrics:
            cells = [_cell(by_place.get((task.name, variant)), split, metric) for variant in VARIANTS]
            better = "↑" if task.kind == "classes" else "↓"
            lines.append(f"| {task.title} | {METRIC_TITLES[metric]} {better} | {' | '.join(cells)} |")
    return "\n".join(lines)


def effort_table(cards: list[AdapterCard]) -> str:
    """Markdown: how many images each adapter was shown in training, in thousands, and what its run went on from."""
    by_place = {(card.task, card.variant): card for card in cards}
    lines = [f"| task | {' | '.join(VARIANTS.values())} |", f"|{'---|' * (1 + len(VARIANTS))}"]
    for task in TASKS.values():
        found = [by_place.get((task.name, variant)) for variant in VARIANTS]
        lines.append(f"| {task.title} | {' | '.join(_effort(card) for card in found)} |")
    return "\n".join(lines)


def course_table(record: Mapping) -> str:
    """Markdown: the checks on val during each run: the best, which was kept, and the mean of the last three."""
    head = [f"{variant}: {what}" for variant in record for what in ("best", "last three")]
    lines = [f"| task | metric on val | {' | '.join(head)} |", f"|{'---|' * (2 + len(head))}"]
    for task in TASKS.values():
        cells = []
        for runs in record.values():
            checks = [value for _images, value in runs[task.name]["val"]]
            best = max(checks) if task.higher_is_better else min(checks)
            cells += [f"{best:.1f}", f"{np.mean(checks[-3:]):.1f}"]
        lines.append(f"| {task.title} | {METRIC_TITLES[task.metric]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def seed_table(cards: list[AdapterCard]) -> str:
    """Markdown: the spread over seeds, of runs that differ in nothing else."""
    lines = ["| adapter | metric on val | image steps | seeds | values | mean | standard deviation |", f"|{'---|' * 7}"]
    for card in cards:
        if card.seeds:
            values = [run.value for run in card.seeds]
            steps = ", ".join(str(n) for n in sorted({run.images for run in card.seeds}))
            seeds, shown = ", ".join(str(run.seed) for run in card.seeds), ", ".join(f"{value:.2f}" for value in values)
            lines.append(
                f"| {TASKS[card.task].title} {card.variant} | {METRIC_TITLES[TASKS[card.task].metric]} | {steps} | {seeds} "
                f"| {shown} | {np.mean(values):.2f} | {np.std(values, ddof=1):.2f} |"
            )
    return "\n".join(lines)


def calibration_table(cards: list[AdapterCard]) -> str:
    """Markdown: how sure each adapter of rank 16 is, before and after it was calibrated on val."""
    lines = ["| task | temperature | calibration error before | after | 90 % bounds, years | covered |", f"|{'---|' * 6}"]
    for card in cards:
        fit = card.calibration
        if card.variant == "r16" and fit:
            error = [f"{value:.1f} %" for value in fit.ece] if fit.ece else ["", ""]
            bounds = f"{fit.low:+.1f} to {fit.high:+.1f}" if fit.low is not None and fit.high is not None else ""
            covered = f"{fit.coverage:.1f} %" if fit.coverage is not None else ""
            warmth = f"{fit.temperature:.2f}" if fit.temperature else ""
            lines.append(f"| {TASKS[card.task].title} | {warmth} | {error[0]} | {error[1]} | {bounds} | {covered} |")
    return "\n".join(lines)


def speed_table(record: Mapping) -> str:
    """Markdown: training speed beside peft's, from a record of `benchmarks/training_speed.py`."""
    lines = ["| way | images/s | a step of 32, ms | peak memory, MiB | times as fast |", f"|{'---|' * 5}"]
    slowest = record["ways"][0]["images_per_second"]
    for way in record["ways"]:
        speed = way["images_per_second"]
        lines.append(f"| {way['title']} | {speed:.1f} | {way['step_ms']:.0f} | {way['memory']} | {speed / slowest:.2f} |")
    return "\n".join(lines)


def colour_table(record: Mapping) -> str:
    """Markdown: the emotion adapter on copies of val in other colours, from a record of `benchmarks/emotion_colour.py`."""
    copies = record["copies"]
    lines = [f"| val, {record['n']} images | {' | '.join(copies)} |", f"|{'---|' * (1 + len(copies))}"]
    for metric in TASKS["emotion"].metrics:
        lines.append(f"| {METRIC_TITLES[metric]} | {' | '.join(f'{one[metric]:.1f}' for one in copies.values())} |")
    return "\n".join(lines)


def memory_table(record: Mapping) -> str:
    """Markdown: what memory a server takes after so many mixed calls."""
    lines = ["| calls | memory then, GB |", "|---|---|", *(f"| {n} | {gb:.2f} |" for n, gb in record["resident_gb"].items())]
    told = (
        f"{record['calls']} calls about {record['pictures']} pictures, some of them near the limit ({record['refused']} calls "
        f"refused), each a merge of its own: {record['highest_gb']:.2f} GB at the highest (`python benchmarks/memory.py`)."
    )
    return "\n".join([told, "", *lines])


def fuzz_table(record: Mapping) -> str:
    """Markdown: how many made inputs each fuzz test has tried in its long run."""
    lines = ["| inputs | tried | in, s |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {n} | {one['inputs']:,} | {one['seconds']} |" for n, one in record.items())])


def device_table(record: Mapping) -> str:
    """A sentence: how far a GPU's outputs lie from those of its CPU."""
    apart = max(record["largest_difference"].values())
    return (
        f"On an H200 no output of a head in float32 differed from that of its CPU by more than {apart:.1e}, alone and merged."
    )


def blocks() -> dict[tuple[Path, str], Callable[[], str]]:
    """What is generated, by document and the name in its marks."""
    cards = list_cards(DEFAULT)
    findings = Findings(RecordFile().read(), DEFAULT)
    return {
        (README, "scores on test"): lambda: score_table(cards, "test"),
        (README, "scores on val"): lambda: score_table(cards, "val"),
        (README, "image steps"): lambda: effort_table(cards),
        (README, "device"): lambda: device_table(json.loads(DEVICE.read_text(encoding="utf-8"))),
        (README, "courses"): lambda: course_table(json.loads(COURSES.read_text(encoding="utf-8"))),
        (README, "seeds"): lambda: seed_table(cards),
        (README, "calibration"): lambda: calibration_table(cards),
        (README, "emotion in colours"): lambda: colour_table(json.loads(COLOUR.read_text(encoding="utf-8"))),
        (README, "training speed"): lambda: speed_table(json.loads(SPEED.read_text(encoding="utf-8"))),
        (RELIABILITY, "memory"): lambda: memory_table(json.loads(MEMORY.read_text(encoding="utf-8"))),
        (RELIABILITY, "fuzz"): lambda: fuzz_table(json.loads(FUZZ.read_text(encoding="utf-8"))),
        (DATA, "formats"): lambda: format_table(FORMATS.values()),
        (README, "six kept"): lambda: six_kept_table(findings),
        (README, "side by side"): side_by_side,
        (README, "six in one"): lambda: first_screen(
            read_standings(DEFAULT), read_standings(DEFAULT, file=FINAL), read_standings(DEFAULT, file=FINAL, split="test")
        ),
        (MERGING, "methods"): methods_table,
        (MERGING, "knobs"): knobs_of_methods_table,
        (MERGING, "laws"): laws_table,
        (MERGING, "repairs"): repairs_table,
        (MERGING, "cut ranks"): lambda: cut_table(json.loads(CUT_RANKS.read_text(encoding="utf-8"))),
        (MERGING, "slider"): lambda: slider_table(json.loads(SLIDER.read_text(encoding="utf-8"))),
        (MERGING, "merge speed"): lambda: merge_speed_table(json.loads(MERGE_SPEED.read_text(encoding="utf-8"))),
        **{(RESULTS, name): table for name, table in result_tables(findings).items()},
        **{(RESULTS, name): table for name, table in league_tables(DEFAULT).items()},
        **{(RESULTS, name): table for name, table in frontier_tables().items()},
        **{(RESULTS, name): table for name, table in composition.tables().items()},
        **{(RESULTS, name): table for name, table in honesty.tables().items()},
    }


def pictures() -> dict[Path, str]:
    """SVG pictures of the documents, by path."""
    findings = Findings(RecordFile().read(), DEFAULT)
    drawn = {**result_figures(findings), **league_figures(DEFAULT)}
    return {RESULTS.parent / "figures" / name: svg + "\n" for name, svg in drawn.items()}


def with_block(text: str, name: str, content: str) -> str:
    """The text with the content between the marks of this name."""
    begin, end = f"<!-- {name}: written by `make tables` -->", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def _cell(card: AdapterCard | None, split: str, metric: str) -> str:
    score: ScoreEntry | None = card.scores.get(split, {}).get(metric) if card else None
    return f"{score.value:.1f} ({score.low:.1f}–{score.high:.1f})" if score else "–"


def _effort(card: AdapterCard | None) -> str:
    if card is None:
        return "–"
    start = card.training.get("start_from")
    return f"{card.images_seen / 1000:.0f}" + (f" from {start}" if start and start != card.variant else "")


if __name__ == "__main__":
    for (path, name), content in blocks().items():
        path.write_text(with_block(path.read_text(encoding="utf-8"), name, content()), encoding="utf-8")
    for path, svg in pictures().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(svg, encoding="utf-8")
    sys.stdout.write("wrote the generated tables and pictures\n")
