"""How honest the answers are, as tables made from the record of `benchmarks/honesty.py`."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lora_lab.bundled import bundled
from lora_lab.results.markdown import markdown
from lora_lab.tasks import TASKS

RECORD = bundled("assets", "benchmarks", "honesty.json")
DOMAIN_TITLES = {"face": "faces", "galaxy": "galaxies", "land_cover": "land from above"}
QUARTERS = {"lowest": "lowest quarter", "second": "second", "third": "third", "highest": "highest quarter"}


def tables(path: Path = RECORD) -> dict[str, Callable[[], str]]:
    """The tables in docs/RESULTS.md, by the name in their marks."""
    record = json.loads(path.read_text(encoding="utf-8"))
    return {
        "kinds of pictures": partial(domains_table, record["gate"]),
        "calibrated merges": partial(slopes_table, record["calibration"]["classes"]),
        "bounds on age": partial(bounds_table, record["calibration"]["bounds"]),
        "who fares worse": partial(groups_table, record["groups"]),
    }


def domains_table(gate: Mapping[str, Any]) -> str:
    """Markdown: a row for each domain; how well it is told from the others and from strangers."""
    head = ["domain", "images", "let through, %", "AUROC", "AUROC, matched", "let through, matched, %"]
    head += ["AUROC to strangers", f"of {gate['strangers']} strangers let through"]
    rows = []
    for one in gate["domains"]:
        interval = f"{one['strangers_low']:.1f}–{one['strangers_high']:.1f} %"
        rows.append(
            [
                DOMAIN_TITLES[one["domain"]],
                f"{one['n']} + {one['others']}",
                f"{one['passed']:.1f}",
                f"{one['auroc']:.4f}",
                f"{one['auroc_matched']:.4f}",
                f"{one['passed_matched']:.1f}",
                f"{one['auroc_strangers']:.4f}",
                f"{one['strangers_through']} ({interval})",
            ]
        )
    return markdown(head, rows)


def slopes_table(classes: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: slope and debiased error of each saved merge, with the adapter's temperature and with its own."""
    head = ["merge", "task", "images", "slope before", "slope after", "error before, %", "error after, %"]
    rows = [
        [
            f"saved:{one['merge']}",
            TASKS[one["task"]].title,
            str(one["n"]),
            _with_interval(one["slope_before"], 2),
            _with_interval(one["slope_after"], 2),
            f"{one['error_before']:.1f}",
            f"{one['error_after']:.1f}",
        ]
        for one in classes
    ]
    return markdown(head, rows)


def bounds_table(bounds: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: in how many test images the true age lies within the bounds, by whose these are."""
    rows = []
    for one in bounds:
        model = f"saved:{one['model']}" if one["model"] else "the adapter alone"
        whose = "its own" if one["bounds_of"] == "merge" or not one["model"] else "the adapter's"
        rows.append(
            [model, whose, f"{one['low']:+.1f} to {one['high']:+.1f}", str(one["n"]), _with_interval(one["covered"], 1)]
        )
    return markdown(["model", "bounds", "years", "test images", "truth within, %"], rows)


def groups_table(groups: Mapping[str, Any]) -> str:
    """Markdown: a row for each group of val images; the mean error of the age, its sign, and how many emotions are wrong."""
    found = {(row["task"], row["by"], row["group"]): row for row in groups["rows"]}
    places = dict.fromkeys((row["by"], row["group"]) for row in groups["rows"])
    rows = []
    for by, group in places:
        age, emotion = (found.get((name, by, group)) for name in ("age_regression", "emotion"))
        rows.append(
            [
                "all images" if by == "all" else f"{_BY[by]}: {_GROUP.get(by, '{}').format(QUARTERS.get(group, group))}",
                _with_interval(age["error"], 1) if age else "–",
                _with_interval(age["bias"], 1, sign="+") if age else "–",
                str(age["n"]) if age else "–",
                _with_interval([100 * value for value in emotion["error"]], 1) if emotion else "–",
                str(emotion["n"]) if emotion else "–",
            ]
        )
    head = [
        "images",
        "age: mean error, years",
        "age: mean of what it says too much, years",
        "images",
        "emotion: wrong, %",
        "images",
    ]
    return markdown(head, rows)


_BY = {"age": "true age", "sharpness": "sharpness", "brightness": "brightness", "size": "face"}
_GROUP = {"size": "{} pixels wide"}


def _with_interval(values: Sequence[float], digits: int, sign: str = "") -> str:
    value, low, high = (f"{one:{sign}.{digits}f}" for one in values)
    joined = f"{low} to {high}" if "-" in low + high or sign else f"{low}–{high}"
    return f"{value} ({joined})"
