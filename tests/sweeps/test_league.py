"""A small league on the tiny backbone goes through all stages: who is chosen by what, and that nothing is measured twice."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import random_adapter
from made import write_squares

from lora_lab import merger
from lora_lab.adapters import save_adapter
from lora_lab.backbones import Backbone
from lora_lab.cards import HEAD_ONLY, adapter_folder
from lora_lab.catalog import Catalog
from lora_lab.errors import DataError, LoraLabError, NotFoundError
from lora_lab.evaluation import Images
from lora_lab.lab import Lab
from lora_lab.lora import deltas_of
from lora_lab.merging import Knob, Merge, Merged, MergeMethod, Selection, exact
from lora_lab.metrics import ALL, MEAN_RETENTION, MERGE_SECONDS, RETENTION, WORST_RETENTION
from lora_lab.records import RecordFile
from lora_lab.sweeps import Sweep
from lora_lab.sweeps.league import FINAL, LEAGUE, LOW, STAGES, TRIALS, Entry, League, league_of, rival, seer, settings
from lora_lab.sweeps.spelling import read_spelled, spell_method

PAIR = ("galaxy", "land_cover")
BY = Knob("by", "By", default=1.0, low=0.0, high=2.0, meaning="what the sum is multiplied by", tried=(1.0, 0.4, 0.1))


def scaled(selection: Selection) -> Merge:
    return lambda setting: Merged(
        {target: setting.knobs["by"] * delta for target, delta in exact.merge(selection, setting).items()}
    )


def watched(selection: Selection) -> Merge:
    assert selection.sight is not None, "its images have to come from the league"
    assert {name: len(pixels) for name, pixels in selection.sight.pixels.items()} == dict.fromkeys(PAIR, 20)
    return lambda setting: Merged(deltas_of(selection.factors[1]))


def apart(selection: Selection) -> Merge:
    own = tuple(deltas_of(factors) for factors in selection.factors)
    return lambda setting: Merged({}, own=own)


def unwilling(selection: Selection) -> Merge:
    raise LoraLabError("it takes no such adapters")


def method(name: str, prepare: Callable[[Selection], Merge], **more: Any) -> MergeMethod:
    return MergeMethod(
        **{"family": "sum", **more}, name=name, title=name, paper="ours", summary="For the test.", prepare=prepare
    )


METHODS = Catalog(
    "merge method",
    (
        (one.name, one)
        for one in (
            exact.METHOD,
            method("scaled", scaled, knobs=(BY,), laws=frozenset(("scale",))),
            method("watched", watched, needs="images", family="activations"),
            method("apart", apart, needs="task id", family="bound"),
            method("unwilling", unwilling),
        )
    ),
)


@dataclass
class Played:
    """A league that was played twice: the titles of the models that were measured, by stage, each time."""

    league: League
    first: dict[str, list[str]]
    second: dict[str, list[str]]

    def records(self, file: str) -> pd.DataFrame:
        return RecordFile(self.league.folder / file).read()


def play(lab: Lab, league: League, data: Path) -> dict[str, list[str]]:
    measured = {}
    for stage in STAGES.values():
        images, file = Images(data, stage.split, stage.limit), RecordFile(league.folder / stage.file)
        sweep = Sweep(lab, images, file, "float32", seer(lab, data), LOW)
        cells = sweep.cells(stage.recipes(league), stage.joint)
        measured[stage.name] = [step.cell.title for step in sweep.run(cells)]
    return measured


@pytest.fixture(scope="module")
def played(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("league")
    for seed, name in enumerate(PAIR):
        write_squares(folder / "data" / name, train=20, val=32, test=16)
        for rank, variant in ((0, HEAD_ONLY), (16, "r16"), (16, "joint_r16")):
            adapter = random_adapter(tiny, name, rank, 10 * seed + rank)
            if variant.startswith("joint"):
                adapter = replace(adapter, card=adapter.card.model_copy(update={"joint": PAIR}))
            save_adapter(adapter, adapter_folder(tiny.name, name, variant, folder / "adapters"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_LAB_CACHE", str(folder / "cache"))
        patch.setattr(merger, "MERGE_METHODS", METHODS)
        lab = Lab("tiny", folder / "adapters")
        league = replace(league_of(lab, [frozenset(PAIR)], folder / "records"), repairs=("linear",))
        yield Played(league, play(lab, league, folder / "data"), play(lab, league, folder / "data"))


def test_every_setting_of_every_method_is_tried(played: Played):
    trials = played.records(TRIALS)
    found = trials[(trials.subject == "merge") & (trials.task == ALL) & (trials.metric == MEAN_RETENTION)]
    spelled = [(method, adapters.count("=1.0")) for method, adapters in zip(found.method, found.adapters, strict=True)]
    # The default and the last knob are tried at weights 1/K as well.
    by = [(f"scaled(by={value})", count) for count, values in ((2, (1.0, 0.4, 0.1)), (0, (1.0, 0.1))) for value in values]
    assert sorted(spelled) == sorted([("exact", 2), ("exact", 0), ("watched", 2), ("apart", 2), *by])


def test_a_second_run_measures_nothing(played: Played):
    assert sum(map(len, played.first.values())) > 10
    assert set().union(*played.second.values()) == set()


def test_a_method_that_refuses_is_left_out_and_the_rest_goes_on(played: Played):
    assert not played.records(TRIALS).method.str.startswith("unwilling").any()
    assert "unwilling" not in played.league.chosen()


def test_the_best_setting_of_the_trials_plays(played: Played):
    trials = played.records(TRIALS)
    kept = trials[(trials.metric == MEAN_RETENTION) & (trials.subject == "merge")].set_index(["method", "adapters"]).value
    best = max((place for place in kept.index if place[0].startswith("scaled")), key=lambda place: kept[place])
    recipe = played.league.all(played.league.chosen()["scaled"])
    assert (spell_method(recipe), recipe.spelled) == best
    league = played.records(LEAGUE)
    of_scaled = league[league.method.fillna("").str.match(r"scaled\(") & ~league.method.fillna("").str.contains(r"\+")]
    assert set(of_scaled.recipe) == {recipe.key}


def test_a_bound_keeps_all_and_is_never_chosen(played: Played):
    league = played.records(LEAGUE)
    of_bound = league[(league.method == "apart") & league.metric.isin((RETENTION, MEAN_RETENTION, WORST_RETENTION))]
    assert len(of_bound) == 4
    assert of_bound.value.to_numpy() == pytest.approx(100)
    assert "apart" not in {entry.method for entry in played.league.best()}
    assert not played.records(FINAL).method.fillna("").str.contains("apart").any()


def test_repairs_and_what_is_no_merge_are_there(played: Played):
    league = played.records(LEAGUE)
    assert {"exact+linear", "watched+linear"} <= set(league.method.dropna())
    summed = league[(league.task == ALL) & (league.metric == MEAN_RETENTION)]
    assert {"head_only", "joint_r16"} <= set(summed.recipe)
    assert set(summed[summed.recipe == "joint_r16"].subject) == {"joint"}
    seconds = league[league.metric == MERGE_SECONDS]
    assert set(seconds.subject) == {"merge"}
    assert (seconds.value > 0).all()


def test_mean_and_worst_follow_from_the_tasks(played: Played):
    league = played.records(LEAGUE)
    for _, rows in league[league.subject == "merge"].groupby("recipe"):
        kept = rows[rows.metric == RETENTION].value.clip(upper=100)
        of_all = rows[rows.task == ALL].set_index("metric").value
        assert of_all[MEAN_RETENTION] == pytest.approx(kept.mean(), rel=1e-5)
        assert of_all[WORST_RETENTION] == pytest.approx(kept.min(), rel=1e-5)


def test_only_the_winners_on_val_are_measured_on_test(played: Played):
    final = played.records(FINAL)
    merges = final[(final.subject == "merge") & (final.metric == MEAN_RETENTION)]
    val = merges[merges.split == "val"].set_index("recipe")
    repaired = val.method.str.contains("+", regex=False)
    winners = {val[side].value.idxmax() for side in (repaired, ~repaired)}
    assert set(merges[merges.split == "test"].recipe) == winners
    assert len(val) == 6
    assert set(final[final.split == "test"].n) == {16}


def test_before_the_trials_nobody_can_be_chosen(played: Played, tmp_path: Path):
    with pytest.raises(NotFoundError, match="run the stage knobs first"):
        STAGES["methods"].recipes(replace(played.league, folder=tmp_path))


def test_too_many_combinations_are_tried_one_knob_at_a_time():
    knobs = tuple(replace(BY, name=name) for name in ("one", "two", "three"))
    tried = settings(method("many", scaled, knobs=knobs, laws=frozenset(("scale",))))
    default = (("one", 1.0), ("two", 1.0), ("three", 1.0))
    assert [entry.weighting for entry in tried] == ["exact"] * 4 + ["uniform"] * 2
    assert tried[0].knobs == tried[4].knobs == default
    for entry in (*tried[1:4], tried[5]):
        assert sum(value != 1.0 for _, value in entry.knobs) == 1


def test_a_recipe_is_read_back_from_its_two_columns(played: Played):
    entry = Entry("scaled", (("by", 0.1),), "uniform", "linear")
    recipe = played.league.all(entry)
    assert spell_method(recipe) == "scaled(by=0.1)+linear"
    assert read_spelled(spell_method(recipe), recipe.spelled, "tiny").key == recipe.key
    with pytest.raises(DataError, match="names no merge"):
        read_spelled("scaled(by)", recipe.spelled, "tiny")


def test_other_adapters_play_at_the_settings_chosen_by_the_first(played: Played):
    other = rival(played.league, "trained")
    assert other.chosen() == played.league.chosen()
    assert other.folder == played.league.folder / "trained"
    assert STAGES["methods"].recipes(other) == [other.all(entry) for entry in other.chosen().values()]
    with pytest.raises(NotFoundError, match="run the stage knobs first"):
        rival(replace(played.league, folder=played.league.folder / "none"), "trained").chosen()


def test_the_repairs_of_one_merge_make_it_once(played: Played, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    made = []
    counted = Catalog(
        "merge method", [("exact", replace(exact.METHOD, prepare=lambda s: made.append(s) or exact.METHOD.prepare(s)))]
    )
    monkeypatch.setattr(merger, "MERGE_METHODS", counted)
    data = played.league.folder.parent / "data"
    lab = Lab("tiny", data.parent / "adapters")
    recipes = [played.league.all(Entry("exact", repair=repair)) for repair in ("linear", "surgery")]
    sweep = Sweep(lab, Images(data, "val", 16), RecordFile(tmp_path / "repairs.parquet"), "float32", seer(lab, data))
    for _ in sweep.run([cell for cell in sweep.cells(recipes) if cell.recipe in recipes]):
        pass
    assert len([selection for selection in made if len(selection.names) == 2]) == 1
    frame = RecordFile(tmp_path / "repairs.parquet").read()
    assert set(frame.method[frame.metric == MERGE_SECONDS]) == {"exact+linear", "exact+surgery"}
    assert frame.value[frame.metric == MERGE_SECONDS].min() > 0
