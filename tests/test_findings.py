"""Records looked up by recipe, and figures combined; claims held against a line."""

from math import sqrt

import pandas as pd
import pytest

from lora_lab.findings import EXACT, METRIC, RETENTION, UNIFORM, Findings, Interval, Merge, combine
from lora_lab.merging import MergeRecipe
from lora_lab.paper import Paper
from lora_lab.results.claims import Claim
from lora_lab.tasks import TASKS


def row(adapters: str, task: str, metric: str, value: float, **others: object) -> dict:
    recipe = MergeRecipe.parse(adapters, "tiny")
    subject = "adapter" if len(recipe.adapters) == 1 else "merge"
    origin = {
        "subject": subject,
        "recipe": recipe.key,
        "adapters": recipe.spelled,
        "split": "val",
        "label": None,
        "method": "exact",
    }
    return {**origin, "task": task, "metric": metric, "value": value, "low": value - 1, "high": value + 1, **others}


@pytest.fixture
def findings() -> Findings:
    rows = [row(f"{task}=1", task, TASKS[task].metric, 80.0) for task in ("landmarks", "emotion", "galaxy")]
    rows += [
        row("galaxy=1,emotion=1", "emotion", "macro_f1", 60.0),
        row("galaxy=1,emotion=1", "emotion", RETENTION, 75.0),
        row("galaxy=1,emotion=1", "emotion", "recall", 12.0, label="disgust"),
        row("emotion=0.5,galaxy=0.5", "emotion", "macro_f1", 65.0),
        row("emotion=1,galaxy=1", "emotion", "macro_f1", 1.0, split="test"),
    ]
    rows += [row(f"emotion={x},landmarks={y}", "emotion", RETENTION, x * 10 + y) for x in (0, 0.5, 1.0) for y in (0, 0.5, 1.0)]
    return Findings(pd.DataFrame(rows), "tiny")


def test_a_merge_is_found_in_whatever_order_it_is_named(findings: Findings):
    assert findings.names == ("emotion", "landmarks", "galaxy")
    for names in (("galaxy", "emotion"), ("emotion", "galaxy")):
        assert findings.score("emotion", Merge(names), METRIC) == Interval(60.0, 59.0, 61.0)
        assert findings.score("emotion", Merge(names, 16, UNIFORM), METRIC) == Interval(65.0, 64.0, 66.0)
    assert findings.score("emotion", Merge(("emotion", "galaxy")), RETENTION) == Interval(75.0, 74.0, 76.0)
    assert findings.score("emotion", Merge(("emotion", "galaxy"), 64), METRIC) is None
    key = Merge(("emotion", "galaxy")).recipe("tiny").key
    assert findings.at(key, "emotion", "recall", "disgust") == Interval(12.0, 11.0, 13.0)


def test_sets_and_grids(findings: Findings):
    assert [merge.names for merge in findings.sets(16, EXACT, 2)] == [("emotion", "galaxy")]
    assert findings.grids(16) == [("emotion", "landmarks")]
    grid = findings.grid(("landmarks", "emotion"), 16)
    assert len(grid) == 9
    assert all(grid.value == grid.y * 10 + grid.x)
    assert findings.grids(64) == []


def test_figures_on_the_same_images_count_as_dependent_and_others_as_independent():
    one, two = Interval(10.0, 7.0, 14.0), Interval(20.0, 16.0, 23.0)
    assert combine([("a", 0.5, one), ("a", 0.5, two)]) == pytest.approx((15.0, 15 - 3.5, 15 + 3.5))
    assert combine([("a", 0.5, one), ("b", 0.5, two)]) == pytest.approx((15.0, 15 - sqrt(1.5**2 + 4), 15 + sqrt(4 + 1.5**2)))
    assert combine([("a", 1.0, two), ("a", -1.0, one)]) == pytest.approx((10.0, 10 - (4 + 4), 10 + (3 + 3)))


def test_a_claim_holds_only_where_its_whole_interval_does():
    sure, torn = Interval(5.0, 1.0, 9.0), Interval(5.0, -1.0, 11.0)
    assert Claim("", "", sure, None).verdict == "holds here"
    assert Claim("", "", sure, None, above=False).verdict == "does not hold here"
    assert Claim("", "", sure, None, line=10.0).verdict == "does not hold here"
    assert Claim("", "", sure, None, line=10.0, above=False).verdict == "holds here"
    assert Claim("", "", torn, None).verdict == "open"


def test_the_papers_figures_and_what_follows_from_them():
    paper = Paper()
    assert {number: len(places) for number, places in paper.tables.items()} == {
        "I": 18, "II": 10, "III": 10, "IV": 10, "V": 10, "VI": 10, "VII": 10, "VIII": 24
    }  # fmt: skip
    pair = Merge(("age_class", "landmarks"))
    assert paper.score("age_class", pair, METRIC) == Interval(7.6)
    kept = paper.score("age_class", pair, RETENTION)
    assert kept is not None
    assert kept.value == pytest.approx(100 * 7.6 / 73.7)
    broken = paper.score("landmarks", Merge(("landmarks", "age_regression")), RETENTION)
    assert broken is not None
    assert broken.value == pytest.approx(100 * 8.483 / 18.716)
    assert paper.score("age_class", Merge(("age_class", "emotion")), METRIC) is None
    assert paper.score("age_class", Merge(pair.names, 16, UNIFORM), METRIC) is None


def test_text_of_an_interval():
    assert str(Interval(1.25, 0.5, 2.0)) == "1.2 (0.5–2.0)"
    assert Interval(-1.0, -2.0, 2.0).text(2) == "-1.00 (-2.00 to 2.00)"
    assert str(Interval(3.0)) == "3.0"
    assert Interval(1.0, 0.0, 2.0).holds(2.0)
    assert not Interval(1.0, 0.0, 2.0).holds(2.1)
    assert not Interval(1.0).holds(1.0)
