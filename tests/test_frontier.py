"""The frontier: which merges none beats in as little time, and what is said of long and short training."""

import pandas as pd
import pytest

from lora_lab.findings import EXACT, METRIC, RETENTION, UNIFORM, Findings, Interval, Merge
from lora_lab.frontier import alone_in, merges_of, reached, undominated
from lora_lab.heatmaps import method_title
from lora_lab.merging import MergeRecipe
from lora_lab.metrics import ALL, MEAN_RETENTION, MERGE_SECONDS, WORST_RETENTION
from lora_lab.records import TRAININGS, RecordFile
from lora_lab.results.frontier import frontier_table, side_by_side
from lora_lab.standings import Standing
from lora_lab.sweeps.league import LEAGUE
from lora_lab.tasks import TASKS

REGMEAN = "regmean(off_diagonals=0.5)"


def standing(title: str, seconds: float | None, mean: float) -> Standing:
    figures = {(ALL, MEAN_RETENTION): Interval(mean), (ALL, WORST_RETENTION): Interval(mean)}
    if seconds is not None:
        figures[ALL, MERGE_SECONDS] = Interval(seconds)
    return Standing(title, None, title, title, "plain", ("emotion",), 16, "nothing", False, figures, 9)


def test_the_undominated_are_the_quickest_and_each_that_keeps_more():
    rows = [standing(*of) for of in (("a", 1.0, 50.0), ("b", 2.0, 45.0), ("c", 3.0, 80.0), ("d", 1.0, 60.0), ("e", None, 99.0))]
    assert [row.title for row in undominated(rows)] == ["d", "c"]


def test_each_training_has_its_own_scores():
    for name, task in TASKS.items():
        better = 1 if task.higher_is_better else -1
        long, short = (alone_in(training)[name] for training in TRAININGS)
        assert better * (long.value - short.value) > 0, "that is what longer training is for"
        frame = RecordFile(TRAININGS["short"] / LEAGUE).read()
        rows = frame[(frame.subject == "adapter") & (frame.task == name) & (frame.metric == task.metric)]
        assert short.value in set(rows.value)
    found = reached("emotion")
    assert {one.training for one in found} == set(TRAININGS)
    assert all(one.alone == alone_in(one.training)["emotion"] for one in found)
    best = merges_of("long")[0]
    assert max(row.mean.value for row in merges_of("long")) == best.mean.value
    assert best.method == "saved:six"


def test_the_tables_say_it():
    alone, merged = alone_in("long")["landmarks"], merges_of("long")[0].at("landmarks", METRIC)
    assert merged
    table = frontier_table()
    assert f"| {alone.text()} |" in table
    assert f"| {merged.text()} |" in table
    assert len(side_by_side().splitlines()) == 2 + len(TASKS)


def test_methods_by_which_every_pair_was_measured():
    names, rows = ("emotion", "galaxy", "land_cover"), []
    for method in (EXACT, UNIFORM, REGMEAN, "ties"):
        for pair in (("emotion", "galaxy"), ("emotion", "land_cover"), ("galaxy", "land_cover"))[
            : 2 if method == "ties" else 3
        ]:
            recipe = Merge(pair, 16, method).recipe("tiny")
            for task in pair:
                for metric in (RETENTION, TASKS[task].metric):
                    spelled = EXACT if method == UNIFORM else method
                    rows.append(("merge", recipe.key, spelled, recipe.spelled, task, "val", metric, None, 50.0, 40.0, 60.0))
    rows += [("adapter", "x", EXACT, f"{name}:r16=1.0", name, "val", TASKS[name].metric, None, 1.0, 1.0, 1.0) for name in names]
    columns = ["subject", "recipe", "method", "adapters", "task", "split", "metric", "label", "value", "low", "high"]
    found = Findings(pd.DataFrame(rows, columns=columns), "tiny")
    assert found.methods(16) == [EXACT, UNIFORM, REGMEAN]
    assert found.methods(64) == []
    kept = found.score("emotion", Merge(("emotion", "galaxy"), 16, REGMEAN), RETENTION)
    assert kept == Interval(50.0, 40.0, 60.0)


def test_a_spelled_method_is_a_recipe_and_has_a_title():
    recipe = Merge(("emotion", "galaxy"), 16, REGMEAN).recipe("tiny")
    wanted = MergeRecipe.parse("emotion=1,galaxy=1", "tiny").model_copy(
        update={"method": "regmean", "knobs": {"off_diagonals": 0.5}}
    )
    assert recipe == wanted
    assert Merge(("emotion",), 16, REGMEAN).recipe("tiny").method == EXACT, "one adapter is itself by any method"
    assert method_title(EXACT) == "Exact sum, weights 1"
    assert method_title(REGMEAN) == "RegMean (off-diagonals 0.5)"
    assert method_title("tsv_m") == "TSV-M"


@pytest.mark.parametrize("training", TRAININGS)
def test_the_best_of_a_training_is_above_every_plain_sum(training: str):
    rows = merges_of(training)
    assert rows[0].mean.value > max(row.mean.value for row in rows if row.method in (EXACT, UNIFORM))
