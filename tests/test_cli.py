"""The command, as a person meets it: what it prints, and what it says when something is wrong."""

import json
from pathlib import Path

import pytest
from conftest import PORTRAIT
from made import write_squares
from typer.testing import CliRunner, Result

from lora_lab.cli import app
from lora_lab.merging import MergeRecipe
from lora_lab.records import Record, RecordFile
from lora_lab.tasks import TASKS

COMMANDS = ("app", "predict", "merge", "train", "evaluate", "sweep", "adapters", "tasks")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def on_tiny(adapters_root: Path) -> list[object]:
    return ["--backbone", "tiny", "--adapters-root", adapters_root]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output
    if command != "app":
        assert "--json" in result.output


def test_predict_prints_faces_photo_recipe_and_times(on_tiny: list[object]):
    result = run("predict", PORTRAIT, "--json", *on_tiny)
    answer = json.loads(result.stdout)
    assert set(answer) == {"faces", "photo", "recipe", "milliseconds"}
    assert set(answer["milliseconds"]) == {"detect", "merge", "forward", "heads"}
    assert len(answer["faces"]) == 1
    face = answer["faces"][0]
    assert len(face["box"]) == 4
    assert set(face["predictions"]) == {"age_class", "age_regression", "emotion", "landmarks"}
    assert set(answer["photo"]["predictions"]) == {"galaxy", "land_cover"}
    assert MergeRecipe.model_validate(answer["recipe"]).adapters[0].weight == pytest.approx(1 / 6)


def test_predict_names_the_method(on_tiny: list[object]):
    assert "method: Exact sum" in run("predict", PORTRAIT, *on_tiny).stdout


def test_predict_takes_a_recipe_or_adapters_to_the_same_answer(on_tiny: list[object], tmp_path: Path):
    path = tmp_path / "recipe.json"
    path.write_text(MergeRecipe.parse("age_class=1,landmarks:r4=0.5", "tiny").model_dump_json())
    one = json.loads(run("predict", PORTRAIT, "--json", "--recipe", path, *on_tiny).stdout)
    two = json.loads(run("predict", PORTRAIT, "--json", "--adapters", "age_class=1,landmarks:r4=0.5", *on_tiny).stdout)
    assert one["faces"] == two["faces"]
    assert set(one["faces"][0]["predictions"]) == {"age_class", "landmarks"}
    assert one["photo"]["predictions"] == {}


def test_predict_for_people(on_tiny: list[object]):
    result = run("predict", PORTRAIT, "--adapters", "emotion=1", *on_tiny)
    assert "merge: emotion:r16=1" in result.output
    assert "face 1" in result.output
    assert "forward" in result.output


def test_merge_writes_an_adapter_and_its_recipe(on_tiny: list[object], tmp_path: Path):
    result = run("merge", tmp_path / "out", "--adapters", "age_class=1,landmarks:r4=0.5", "--json", *on_tiny)
    assert json.loads(result.stdout)["rank"] == 20
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "recipe.json"} <= names


def test_train_evaluate_and_publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "cache"))
    data, out = tmp_path / "galaxy", tmp_path / "out"
    write_squares(data, train=64, val=24, test=24)
    common = ["--backbone", "tiny"]
    trained = run("train", "galaxy", "--data", data, "--rank", 4, "--images", 320, "--out", out, "--json", *common)
    assert [card["rank"] for card in json.loads(trained.stdout)] == [4]
    head = run("train", "galaxy", "--data", data, "--head-only", "--images", 640, "--out", out, *common)
    assert "macro_f1 on val" in head.output
    assert list((tmp_path / "cache" / "runs").iterdir()) == []

    common += ["--adapters-root", out]
    listed = json.loads(run("adapters", "--json", *common).stdout)
    assert [(card["name"], card["rank"]) for card in listed] == [("galaxy", 0), ("galaxy", 4)]
    single = ["evaluate", "--data", tmp_path, "--split", "test", "--json", "--variant", "r4"]
    alone = [Record(**r) for r in json.loads(run(*single, *common).stdout)]
    assert {(r.subject, r.task, r.split, r.n) for r in alone} == {("adapter", "galaxy", "test", 24)}
    assert [r.metric for r in alone] == ["macro_f1", "accuracy", *["recall"] * 4]
    merge = ["evaluate", "--data", data, "--split", "test", "--adapters", "galaxy:r4=1", "--json"]
    merged = [Record(**r) for r in json.loads(run(*merge, *common).stdout)]
    assert [(r.subject, r.value) for r in merged] == [("merge", r.value) for r in alone]
    assert merged[0].recipe == alone[0].recipe == MergeRecipe.parse("galaxy:r4=1", "tiny").key

    published = run("evaluate", "--data", data, "--split", "test", "--publish", "--json", *common)
    heads = [r for r in (Record(**r) for r in json.loads(published.stdout)) if r.subject == "head_only"]
    assert "described galaxy r4" in run("evaluate", "--data", data, "--publish", *common).output
    assert "there is head_only, r4" in run("evaluate", "--data", data, "--variant", "r5", *common).output
    cards = {card["rank"]: card for card in json.loads(run("adapters", "--json", *common).stdout)}
    assert cards[4]["scores"]["test"]["macro_f1"]["value"] == pytest.approx(alone[0].value, abs=1e-3)
    assert cards[0]["scores"]["test"]["macro_f1"]["value"] == pytest.approx(heads[0].value, abs=1e-3)
    assert set(cards[4]["scores"]) == {"val", "test"}
    limited = json.loads(run("evaluate", "--data", data, "--limit", 10, "--json", *common).stdout)
    assert {r["n"] for r in limited} == {10}
    with caplog.at_level("WARNING"):
        assert run("evaluate", "--data", tmp_path / "out", *common).exit_code == 2
    assert "no val images of galaxy" in caplog.text


def test_sweep_tells_its_plan_measures_and_goes_on(on_tiny: list[object], tmp_path: Path, own_cache: Path):
    for name in ("galaxy", "land_cover"):
        write_squares(tmp_path / "data" / name, val=24)
    file = tmp_path / "records.parquet"
    sweep = ["sweep", "pairs", "--data", tmp_path / "data", "--records", file, "--only", "galaxy+land_cover", *on_tiny]
    planned = json.loads(run(*sweep, "--dry-run", "--json").stdout)
    assert (planned["cells"], planned["images"], planned["records"]) == (4, 48 * 2 + 24 * 2, str(file))
    assert not file.exists()
    first = run(*sweep)
    assert "1 merges planned, 4 models to measure" in first.output
    assert "144 of 144 images" in first.output
    assert f"{file} holds" in first.output
    size = len(RecordFile(file).read())
    assert "0 models to measure" in run(*sweep).output
    assert len(RecordFile(file).read()) == size
    more = run(*sweep, "--methods", "exact,uniform", "--ranks", "16")
    assert "2 merges planned, 1 models to measure" in more.output


def test_tasks_are_listed():
    listed = json.loads(run("tasks", "--json").stdout)
    assert [task["name"] for task in listed] == list(TASKS)
    assert "fire" not in run("tasks").output.lower()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["predict", "missing.jpg"], "missing.jpg is not there"),
        (["predict", __file__], "no image that can be read"),
        (["predict", PORTRAIT, "--adapters", "ages=1"], "no adapter named 'ages'"),
        (["predict", PORTRAIT, "--adapters", "age_class=9"], "less than or equal to 2"),
        (["predict", PORTRAIT, "--recipe", "none.json"], "cannot be read"),
        (["predict", PORTRAIT, "--recipe", "r.json", "--adapters", "emotion=1"], "not both"),
        (["predict", PORTRAIT, "--device", "gpu"], "no device 'gpu'"),
        (["evaluate", "--data", "nowhere", "--device", "cuda:first"], "no device 'cuda:first'"),
        (["sweep", "pairs", "--data", "nowhere", "--device", "tpu"], "no device 'tpu'"),
        (["evaluate", "--data", "nowhere"], "no val images of any of these tasks in nowhere"),
        (["evaluate", "--data", "nowhere", "--adapters", "emotion=1", "--variant", "r16"], "are for adapters alone"),
        (["evaluate", "--data", "nowhere", "--limit", 5, "--publish"], "leave out --limit"),
        (["sweep", "pears", "--data", "nowhere"], "did you mean 'pairs'"),
        (["sweep", "pairs", "--data", "nowhere", "--ranks", "16,x"], "this is none: x"),
        (["sweep", "pairs", "--data", "nowhere", "--ranks", "5"], "no two adapters have rank 5"),
        (["sweep", "pairs", "--data", "nowhere", "--methods", "exakt"], "did you mean 'exact'"),
        (["sweep", "pairs", "--data", "nowhere", "--only", "emotions+galaxy"], "no adapter emotions"),
        (["sweep", "pairs", "--data", "nowhere", "--precision", "float16"], "did you mean 'bfloat16'"),
        (["sweep", "pairs", "--data", "nowhere"], "no val images of any of these tasks in nowhere"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments: list, told: str, on_tiny: list[object]):
    result = run(*arguments, *on_tiny)
    assert result.exit_code == 2
    assert told in result.output
    assert len([line for line in result.output.splitlines() if "left out" not in line]) == 1


def test_an_unknown_task_and_backbone_are_told(tmp_path: Path):
    assert "did you mean 'galaxy'" in run("train", "galaxi", "--data", tmp_path).output
    assert "no adapter for the backbone tin" in run("adapters", "--backbone", "tin").output
