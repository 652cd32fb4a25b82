"""The records that come with LoRA Lab: complete, each once, and of the adapters that come with it."""

import numpy as np
import pandas as pd
import pytest

from lora_lab.adapters import fingerprint, load_adapter
from lora_lab.derived import WEIGHTS, read_weights
from lora_lab.findings import METRIC, RETENTION, Findings, Merge
from lora_lab.forecast import FORECAST, RANK, Forecast, ForecastFits, fit_task
from lora_lab.interference import COLUMNS, weight_interference
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.metrics import ALL
from lora_lab.records import RECORDS, TRAININGS, RecordFile
from lora_lab.sweeps import PLANS, Scope, random_recipes
from lora_lab.tasks import TASKS

NAMES = tuple(TASKS)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    return RecordFile().read()


@pytest.fixture(scope="module")
def findings(records: pd.DataFrame) -> Findings:
    return Findings(records, "dinov2-small")


def test_every_merge_of_the_plan_is_there_once(records: pd.DataFrame):
    stages = PLANS["published"](Scope("dinov2-small", NAMES), lambda: records)
    planned = {recipe.key: recipe for stage in stages for recipe in stage}
    assert set(planned) <= set(records.recipe)
    assert not records.duplicated(["recipe", "split", "seed", "precision", "task", "metric", "label"]).any()
    for key, rows in records[records.metric.isin(["macro_f1", "rmse", "nme"])].groupby("recipe"):
        expected = {a.name for a in planned[str(key)].adapters} if key in planned else set(rows.task)
        assert set(rows.task) == expected


def test_images_are_the_same_in_every_record(records: pd.DataFrame):
    for column, count in {"split": 1, "seed": 1, "precision": 1}.items():
        assert records[column].nunique() == count
    assert records[records.task != ALL].groupby("task").n.nunique().max() == 1
    assert records.n.max() == 500


def test_records_are_of_these_adapters(records: pd.DataFrame, lab: Lab):
    merged = records[records.adapters != ""]
    found: dict[tuple, str] = {}
    for adapters, origin in dict(zip(merged.adapters, merged.fingerprint, strict=True)).items():
        recipe = MergeRecipe.parse(adapters, "dinov2-small")
        members = tuple((a.name, a.rank) for a in recipe.adapters)
        if members not in found:
            found[members] = lab.fingerprint(recipe)
        assert origin == found[members], adapters


def test_records_of_short_training_are_of_the_adapters_that_stay_beside(lab: Lab):
    frame = RecordFile(TRAININGS["short"] / RECORDS.name).read()
    alone = frame[(frame.subject == "adapter") & frame.adapters.str.contains(f":r{RANK}=")]
    for name in NAMES:
        kept = load_adapter(lab.folder(name, f"r{RANK}_short"), lab.backbone)
        assert set(alone[alone.task == name].fingerprint) == {fingerprint([kept])}
        assert fingerprint([kept]) != lab.fingerprint(lab.recipe([RecipeAdapter(name=name, rank=RANK)]))


def test_intervals_and_origins(records: pd.DataFrame):
    assert (records.low <= records.high).all()
    inside = (records.low <= records.value) & (records.value <= records.high)
    assert inside.mean() > 0.995
    assert records.commit.str.fullmatch(r"[0-9a-f]{12}\+?").all()
    assert RECORDS.stat().st_size < 2_000_000


def test_adapters_alone_score_what_their_cards_say(findings: Findings, lab: Lab):
    for card in lab.cards():
        if card.mergeable:
            found = findings.score(card.name, Merge((card.name,), card.rank), METRIC)
            assert found is not None
            score = card.scores["val"][TASKS[card.name].metric]
            # 500 images of those that the card's score is of.
            assert score.low - (found.high or 0) < 0 < score.high - (found.low or 0)


def test_retention_follows_from_the_scores(findings: Findings):
    for task in NAMES:
        merge = Merge(NAMES)
        alone, merged, kept = (
            findings.score(task, *of) for of in ((Merge((task,)), METRIC), (merge, METRIC), (merge, RETENTION))
        )
        assert alone is not None
        assert merged is not None
        assert kept is not None
        ratio = merged.value / alone.value if TASKS[task].higher_is_better else alone.value / merged.value
        assert kept.value == pytest.approx(100 * ratio, rel=1e-4)


def test_what_the_weights_say_is_of_these_adapters(lab: Lab):
    names = ("emotion", "land_cover")
    target = "encoder.layer.3.attention.k_proj"
    factors = {name: {t: pair for t, pair in lab.adapter(name, 64).factors.items() if t == target} for name in names}
    fresh = weight_interference(factors).set_index(COLUMNS[:4]).value
    assert len(fresh) == 12, "one module of a pair, six measures, both ways"
    kept = read_weights()
    kept = kept[kept["rank"] == 64].set_index(COLUMNS[:4]).value
    assert kept.reindex(fresh.index).to_numpy() == pytest.approx(fresh.to_numpy(), abs=2e-5)
    assert WEIGHTS.stat().st_size < 200_000


def test_the_forecast_is_fitted_on_these_records(findings: Findings):
    kept = ForecastFits.read()
    seen = [recipe.key for recipe in random_recipes(Scope("dinov2-small", NAMES))[:30]]
    fresh = fit_task(findings, "galaxy", kept.held_out, seen)
    fits = kept.model_copy(update={"fits": {"galaxy": fresh}})
    here, there = (Forecast(findings, one).predict("galaxy", np.full(6, 0.4)) for one in (fits, kept))
    assert here.value == pytest.approx(there.value, rel=0.02)
    assert FORECAST.exists()
    assert RANK == 16
