"""The tables on honesty from a record written by hand, and what the published record promises."""

import json

import pytest

from lora_lab.calibration import COVERED
from lora_lab.results.honesty import RECORD, bounds_table, domains_table, groups_table, slopes_table
from lora_lab.saved_merges import CARD, SAVED, read_merge_card
from lora_lab.tasks import TASKS


def test_a_row_of_each_table():
    gate = {
        "strangers": 40,
        "domains": [
            {"domain": "face", "n": 300, "others": 200, "passed": 95.0, "auroc": 1.0, "auroc_matched": 0.999}
            | {"passed_matched": 90.04, "auroc_strangers": 0.9876, "strangers_through": 2}
            | {"strangers_low": 0.61, "strangers_high": 16.92}
        ],
    }
    assert domains_table(gate).splitlines()[2:] == [
        "| faces | 300 + 200 | 95.0 | 1.0000 | 0.9990 | 90.0 | 0.9876 | 2 (0.6–16.9 %) |"
    ]
    one = {"merge": "six", "task": "emotion", "n": 9, "slope_before": [0.8, 0.7, 0.9], "slope_after": [1.0, -0.1, 1.1]}
    assert slopes_table([one | {"error_before": 5.04, "error_after": 1.0}]).splitlines()[2:] == [
        "| saved:six | Emotion | 9 | 0.80 (0.70–0.90) | 1.00 (-0.10 to 1.10) | 5.0 | 1.0 |"
    ]
    bounds = {"model": "", "bounds_of": "adapter", "low": -9.0, "high": 10.0, "n": 50, "covered": [90.0, 80.0, 95.0]}
    merged = bounds | {"model": "six"}
    assert bounds_table([bounds, merged, merged | {"bounds_of": "merge"}]).splitlines()[2:] == [
        "| the adapter alone | its own | -9.0 to +10.0 | 50 | 90.0 (80.0–95.0) |",
        "| saved:six | the adapter's | -9.0 to +10.0 | 50 | 90.0 (80.0–95.0) |",
        "| saved:six | its own | -9.0 to +10.0 | 50 | 90.0 (80.0–95.0) |",
    ]


def test_a_group_that_one_task_has_not():
    age = {"task": "age_regression", "n": 7, "error": [5.0, 4.0, 6.0], "bias": [-1.0, -2.0, 0.5]}
    emotion = {"task": "emotion", "n": 8, "error": [0.2, 0.1, 0.3]}
    of_all = {"by": "all", "group": "all"}
    rows = [age | of_all, age | {"by": "age", "group": "60+"}, emotion | of_all, emotion | {"by": "size", "group": "28"}]
    assert groups_table({"rows": rows}).splitlines()[2:] == [
        "| all images | 5.0 (4.0–6.0) | -1.0 (-2.0 to +0.5) | 7 | 20.0 (10.0–30.0) | 8 |",
        "| true age: 60+ | 5.0 (4.0–6.0) | -1.0 (-2.0 to +0.5) | 7 | – | – |",
        "| face: 28 pixels wide | – | – | – | 20.0 (10.0–30.0) | 8 |",
    ]


def test_the_bounds_of_the_published_merges_hold_on_test():
    bounds = json.loads(RECORD.read_text(encoding="utf-8"))["calibration"]["bounds"]
    own = [one for one in bounds if not one["model"] or one["bounds_of"] == "merge"]
    assert {one["model"] for one in own} == {"", "six"}
    for one in own:
        assert one["covered"][0] == pytest.approx(100 * COVERED, abs=3)


def test_the_shipped_merges_have_a_calibration_of_their_own():
    for path in SAVED.glob(f"dinov2-small/*/{CARD}"):
        card = read_merge_card(path.parent)
        assert set(card.calibration) == {name for name, task in TASKS.items() if task.kind != "points"}
        for name, fit in card.calibration.items():
            assert (fit.temperature is None) == (TASKS[name].kind != "classes")
            assert (fit.low is None) == (TASKS[name].kind != "number")
