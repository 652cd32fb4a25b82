"""Every command that reads data takes the same options for it, and understands the same odd data set by them."""

import shutil
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import colour, encoded
from typer.testing import CliRunner, Result

from lora_lab.cli import app
from lora_lab.cli.common import READING
from lora_lab.data import Reading, find_dataset
from lora_lab.peft_files import CONFIG, FACTORS
from lora_lab.tasks import TASKS

SAID = ("--image-column", "picture", "--label-column", "feeling", "--labels", "fer2013", "--skip-faulty")
READERS = {
    "train": ("train", "emotion", "--data", "DATA", "--out", "OUT", "--dry-run", "--images", "16", "--set", "batch=8"),
    "evaluate": ("evaluate", "--data", "DATA", "--adapters", "emotion=1,galaxy=0.5", "--adapters-root", "ROOT"),
    "sweep": ("sweep", "pairs", "--data", "DATA", "--only", "emotion+galaxy", "--adapters-root", "ROOT", "--records", "FILE"),
    "suggest": ("suggest", "--from", "labels", "--images", "DATA", "--adapters", "emotion=1", "--adapters-root", "ROOT"),
    "merge": (
        "merge",
        "OUT",
        "--images",
        "DATA",
        "--adapters",
        "emotion=1",
        "--method",
        "regmean_pp",
        "--adapters-root",
        "ROOT",
    ),
    "compose": ("compose", "emotion", "--data", "DATA", "--out", "OUT", "--steps", "2", "--adapters-root", "ROOT"),
    "add": ("add", "PEFT", "--name", "mine", "--images", "DATA"),
    "league": ("league", "--run", "--data", "DATA", "--records", "OUT", "--stage", "STAGE", "--adapters-root", "ROOT"),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Faces by FER2013's numbers in columns of other names; one picture of each split cannot be read."""
    folder = tmp_path / "emotion"
    folder.mkdir()
    for start, split in enumerate(("train", "val")):
        images = [encoded(colour(100 * start + i), (48, 48)) for i in range(28)] + [b"nothing"]
        table = {
            "picture": [{"bytes": image, "path": None} for image in images],
            "feeling": [i % 7 for i in range(29)],
            "noise": [0.5] * 29,
        }
        pq.write_table(pa.table(table), folder / f"{split}.parquet")
    return folder


def run(command: str, data: Path, root: Path, *more: str) -> Result:
    peft = data.parent / "peft"
    peft.mkdir(exist_ok=True)
    for name in (CONFIG, FACTORS):
        shutil.copy(root / "tiny" / "emotion" / "r16" / name, peft)
    places = {"PEFT": peft, "DATA": data, "ROOT": root, "OUT": data.parent / "out", "FILE": data.parent / "records.parquet"}
    given = [str(places.get(one, one)) for one in READERS[command]]
    return CliRunner().invoke(app, [*given, *more, "--backbone", "tiny"], env={"COLUMNS": "250"})


@pytest.mark.parametrize("command", [name for name in READERS if name != "league"])
def test_every_command_reads_odd_data_as_it_is_told(command: str, data: Path, adapters_root: Path, own_cache: Path):
    told = run(command, data, adapters_root, *SAID)
    assert told.exit_code == 0, told.output
    assert f"2 images of {'mine' if command == 'add' else 'emotion'} are left out:" in told.stderr
    assert "unreadable" in told.stderr
    assert "images of age" not in told.stderr
    if command == "add":
        CliRunner().invoke(app, ["forget", "mine", "--backbone", "tiny"])
    refused = run(command, data, adapters_root, *SAID[:-1])
    assert refused.exit_code == 2
    assert "row 28" in refused.stderr


@pytest.mark.parametrize("command", [name for name in READERS if name != "league"])
def test_a_column_that_is_not_there_is_told_by_every_command(command: str, data: Path, adapters_root: Path, own_cache: Path):
    told = run(command, data, adapters_root, "--image-column", "nothing")
    assert told.exit_code == 2, told.output
    assert "'nothing'" in told.stderr.splitlines()[-1]


def test_the_league_hands_on_how_its_data_is_read(data: Path, adapters_root: Path, monkeypatch: pytest.MonkeyPatch):
    handed = []
    monkeypatch.setattr(import_module("lora_lab.cli.league"), "_run", lambda lab, images, *rest: handed.append(images))
    assert run("league", data, adapters_root, *SAID).exit_code == 0
    assert handed[0].data == data
    assert handed[0].reading == Reading(None, "feeling", "picture", "fer2013")
    assert handed[0].reading.skip_faulty


@pytest.mark.parametrize("task", ["galaxy", "land_cover"])
def test_a_label_set_is_that_of_one_of_several_tasks(task: str, data: Path):
    for name, wanted in (("emotion", True), (task, False)):
        found = find_dataset(TASKS[name], data, Reading(column="feeling", image_column="picture", labels="fer2013"))
        assert (found is not None) is wanted


@pytest.mark.parametrize("command", READERS)
def test_the_options_are_those_of_train(command: str):
    told = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "250"})
    for option in ("--format", "--label-column", "--image-column", "--labels", "--skip-faulty"):
        assert option in told.output
    assert len(READING) == 5
