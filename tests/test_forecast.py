"""The forecast on a landscape of our own, and on the merges that the published one has not seen."""

import numpy as np
import pandas as pd
import pytest

from lora_lab.errors import DataError
from lora_lab.findings import Findings
from lora_lab.forecast import Forecast, ForecastFits, HeldOut, fit_all, points_of, weights_of
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.records import RecordFile
from lora_lab.sweeps import Scope, random_recipes

NAMES = ("age_class", "landmarks", "galaxy")
SCOPE = Scope("dinov2-small", NAMES)


def landscape(task: str, weights: np.ndarray) -> float:
    """A score that falls smoothly with the others' weights, an error that grows with them."""
    own, others = weights[NAMES.index(task)], weights.sum() - weights[NAMES.index(task)]
    return 5 + 3 * others + 2 * (1 - own) ** 2 if task == "landmarks" else 80 - 15 * others - 10 * (1 - own) ** 2


def records() -> pd.DataFrame:
    grid = [SCOPE.recipe(NAMES, 16, [x, y, z]) for x in (0.0, 0.75, 1.5) for y in (0.0, 0.75, 1.5) for z in (0.0, 1.0)]
    rows = []
    for recipe in [*(SCOPE.recipe([name], 16, [1.0]) for name in NAMES), *grid, *random_recipes(SCOPE)]:
        for task, metric in {"age_class": "macro_f1", "landmarks": "nme", "galaxy": "macro_f1"}.items():
            if task in {a.name for a in recipe.adapters}:
                value = landscape(task, weights_of(recipe, NAMES))
                origin = {
                    "subject": "adapter" if len(recipe.adapters) == 1 else "merge",
                    "recipe": recipe.key,
                    "method": "exact",
                }
                figure = {"task": task, "metric": metric, "label": None, "value": value, "low": value - 1, "high": value + 1}
                rows.append({**origin, "adapters": recipe.spelled, "split": "val", **figure})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def forecast() -> Forecast:
    findings = Findings(records(), "dinov2-small")
    return Forecast(findings, fit_all(findings, random_recipes(SCOPE)))


def recipe(text: str) -> MergeRecipe:
    return MergeRecipe.parse(text, "dinov2-small")


def test_a_smooth_landscape_is_learned(forecast: Forecast):
    found = forecast.predict("age_class", np.array([1.0, 0.4, 0.3]))
    assert found.value == pytest.approx(landscape("age_class", np.array([1.0, 0.4, 0.3])), abs=2)
    assert found.holds(found.value)
    for task in NAMES:
        tested = forecast.test(task)
        assert len(tested) > 5
        assert np.mean([one.error for one in tested]) < 0.5 * np.mean([one.nearest_error for one in tested])


def test_what_was_measured_is_told_as_measured_however_it_is_written(forecast: Forecast):
    for text in ("age_class=1", "landmarks=0,age_class=1", "galaxy=0.0,age_class=1.0,landmarks=0"):
        found = forecast.expect(recipe(text))["age_class"]
        assert found.basis == "measured"
        assert found.score is not None
        assert found.score.value == pytest.approx(80)
    assert forecast.expect(recipe("age_class=1,landmarks=0.31"))["age_class"].basis == "forecast"


def test_nothing_is_said_where_nothing_was_fitted(forecast: Forecast):
    outside = (
        "age_class=1.6,landmarks=1",
        "age_class=1,landmarks=-0.1",
        "age_class=1,landmarks:r64=1",
        "age_class=1,emotion=1",
    )
    for text in outside:
        found = forecast.expect(recipe(text))["age_class"]
        assert (found.basis, found.score) == ("not known", None)
    other = MergeRecipe(backbone="dinov2-small", adapters=(RecipeAdapter(name="age_class", weight=0.9),), method="ties")
    assert forecast.expect(other)["age_class"].basis == "not known"


def test_held_out_recipes_are_not_fitted(forecast: Forecast):
    half = {recipe.key for recipe in random_recipes(SCOPE)[30:]}
    assert set(forecast.fits.held_out) == half
    points = points_of(forecast.findings, "age_class", NAMES)
    assert half & set(points.keys)
    assert not half & set(points.without(forecast.fits.held_out).keys)


def test_fits_are_read_back_and_a_missing_file_is_told(forecast: Forecast, tmp_path):
    forecast.fits.write(tmp_path / "forecast.json")
    assert ForecastFits.read(tmp_path / "forecast.json") == forecast.fits
    with pytest.raises(DataError, match="holds no forecast"):
        ForecastFits.read(tmp_path / "none.json")


def test_the_published_forecast_holds_on_recipes_that_it_has_not_seen():
    findings = Findings(RecordFile().read(), "dinov2-small")
    published = Forecast(findings, ForecastFits.read())
    assert set(published.fits.held_out) == {r.key for r in random_recipes(Scope("dinov2-small", findings.names))[30:]}
    tested: list[HeldOut] = [one for task in findings.names for one in published.test(task, in_percent=True)]
    assert len(tested) > 90
    assert 80 <= 100 * np.mean([one.inside for one in tested]) <= 97
    assert np.mean([one.error for one in tested]) < np.mean([one.nearest_error for one in tested])
