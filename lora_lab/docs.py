"""The table of scores in the README, generated from the adapters' cards: `python -m lora_lab.docs` writes it."""

import sys
from pathlib import Path

from lora_lab.adapters import AdapterCard, list_cards
from lora_lab.backbones import DEFAULT
from lora_lab.tasks import TASKS

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- scores: written by `make tables` -->", "<!-- end of scores -->"
METRIC_TITLES = {
    "macro_f1": "macro F1, %",
    "accuracy": "accuracy, %",
    "rmse": "RMSE, years",
    "mae": "MAE, years",
    "nme": "NME, %",
}


def score_table(cards: list[AdapterCard]) -> str:
    """Markdown: a row for each task and metric, r16 beside the head alone, on val and test with 95 % intervals."""
    by_place = {(card.task, card.rank): card for card in cards}
    lines = [
        "| task | metric | r16, val | head only, val | r16, test | head only, test |",
        "|---|---|---|---|---|---|",
    ]
    for task in TASKS.values():
        for metric in task.metrics:
            cells = [_cell(by_place.get((task.name, rank)), split, metric) for split in ("val", "test") for rank in (16, 0)]
            better = "↑" if task.kind == "classes" else "↓"
            lines.append(f"| {task.title} | {METRIC_TITLES[metric]} {better} | {' | '.join(cells)} |")
    return "\n".join(lines)


def with_table(text: str, table: str) -> str:
    """The text with the table between its marks."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _cell(card: AdapterCard | None, split: str, metric: str) -> str:
    score = card.scores.get(split, {}).get(metric) if card else None
    return f"{score.value:.1f} ({score.low:.1f}–{score.high:.1f})" if score else "–"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8"), score_table(list_cards(DEFAULT))), encoding="utf-8")
    sys.stdout.write(f"wrote the table of scores in {README.name}\n")
