"""`lora-lab league` and `lora-lab methods`: what they print, and what they say when something is missing."""

import json
from pathlib import Path

import pytest
import typer
from made_league import write_league
from typer.testing import CliRunner, Result

from lora_lab.cli.league import league, methods
from lora_lab.merge_times import MergeTime, merge_times
from lora_lab.merging import MERGE_METHODS, MergeRecipe
from lora_lab.repairs import REPAIRS

FIELDS = {
    *("method", "title", "table", "tasks", "rank", "mean_retention", "low", "high", "worst_retention", "worst_task"),
    *("seconds", "needs", "bound", "recipe", "spelled", "n"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_league(tmp_path)
    return tmp_path


def run(*arguments: object) -> Result:
    app = typer.Typer()
    for command in (league, methods):
        app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "250"})


def shown(folder: Path, *more: object) -> list[dict]:
    return json.loads(run("league", "--records", folder, "--backbone", "tiny", "--json", *more).stdout)


def test_the_league_as_json_best_first(folder: Path):
    rows = shown(folder, "--rank", 16)
    assert all(set(row) == FIELDS for row in rows)
    kept = [row["mean_retention"] for row in rows]
    assert kept == sorted(kept, reverse=True) == [98, 94, 87, 50, 20]
    assert [row["bound"] for row in rows] == [True, False, False, False, True]
    repaired = rows[2]
    assert (repaired["low"], repaired["high"], repaired["worst_retention"]) == (85, 88, 83)
    assert (repaired["method"], repaired["needs"], repaired["spelled"]) == ("exact", "images", "exact+linear")
    assert (repaired["n"], repaired["seconds"], repaired["worst_task"]) == (100, 0.25, "emotion")
    assert MergeRecipe.model_validate(repaired["recipe"]).repair == "linear"


def test_a_table_and_a_size(folder: Path):
    assert [row["table"] for row in shown(folder, "--table", "repaired") if not row["bound"]] == ["repaired"]
    assert [row["table"] for row in shown(folder, "--table", "trained") if not row["bound"]] == ["trained"]
    pairs = shown(folder, "--merge", "pairs")
    assert [row["tasks"] for row in pairs] == [["galaxy", "land_cover"], ["emotion", "land_cover"]]


def test_the_league_for_people(folder: Path):
    result = run("league", "--records", folder, "--backbone", "tiny")
    assert result.exit_code == 0
    assert "Exact sum + Linear repair" in result.output
    assert "87.0 (85.0–88.0)" in result.output
    assert "rank 96 (bound)" in result.output


def test_without_records_it_says_how_to_make_some(tmp_path: Path):
    result = run("league", "--records", tmp_path)
    assert "nothing is measured yet" in result.output
    refused = run("league", "--run", "--records", tmp_path)
    assert refused.exit_code == 2
    assert "name the folder of the data sets with --data" in refused.output


def test_methods_as_json():
    told = json.loads(run("methods", "--json").stdout)
    assert [one["name"] for one in told["methods"]] == list(MERGE_METHODS)
    for one in told["methods"]:
        method = MERGE_METHODS[one["name"]]
        assert (one["title"], one["family"], one["paper"], one["needs"]) == (
            method.title,
            method.family,
            method.paper,
            method.needs,
        )
        assert set(one["laws"]) == method.laws
        assert [knob["name"] for knob in one["knobs"]] == [knob.name for knob in method.knobs]
    assert [one["name"] for one in told["repairs"]] == list(REPAIRS)


def test_the_times_of_a_method_are_the_benchmarks(tmp_path: Path):
    record = tmp_path / "merge_speed.json"
    assert merge_times(record) == {}
    way = {"way": "della", "first_ms": {"min": 1.0, "median": 2000.5}, "move_ms": {"min": 1.0, "median": 7.5}}
    theirs = {"way": "peft_cat", "move_ms": {"min": 1.0, "median": 2.0}}
    record.write_text(json.dumps({"subjects": [{"ways": [theirs, way]}]}))
    assert merge_times(record) == {"della": MergeTime(2000.5, 7.5)}


def test_methods_tell_what_the_first_merge_costs():
    told = {one["name"]: one for one in json.loads(run("methods", "--json").stdout)["methods"]}
    for name, time in merge_times().items():
        assert (told[name]["first_ms"], told[name]["move_ms"]) == (time.first, time.move)
    # What looks at images is made once, which takes as long as it took in the league; no slider moves it.
    assert told["iteris"]["first_ms"] > 1000
    assert told["iteris"]["move_ms"] is None


def test_methods_for_people():
    result = run("methods")
    assert result.exit_code == 0
    for one in (*MERGE_METHODS.values(), *REPAIRS.values()):
        assert one.title.split()[0] in result.output
