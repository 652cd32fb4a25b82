"""`lora-lab train` as people use it: their own folder, killed, resumed, timed, shared by processes; peft loads the outcome."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import ViTConfig, ViTModel
from typer.testing import CliRunner, Result

from lora_lab.adapters import load_adapter
from lora_lab.backbones import Backbone
from lora_lab.cards import read_card
from lora_lab.cli import app
from lora_lab.lab import Lab
from lora_lab.lora import deltas_of

COLOURS = {"blue": 2, "green": 1, "red": 0}
NO_EXTRAS = ("--mixed_precision=no", "--dynamo_backend=no")
SHORT = ("--backbone", "tiny", "--rank", 4, "--set", "batch=16", "--set", "checks=4", "--set", "patience=9")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A class a sub-folder: 40 pictures of noise for each of three colours."""
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 12)):
        for colour, channel in COLOURS.items():
            place = tmp_path / "paints" / split / colour
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 150, (32, 32, 3), dtype=np.uint8)
                pixels[..., channel] += 60
                Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "paints"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "250"})


def losses(log: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(log)).Reload()
    return [(event.step, event.value) for event in events.Scalars("train/loss")]


def started(arguments: list[object], *launcher: str) -> subprocess.Popen:
    command = [sys.executable, *launcher, "-m", "lora_lab.cli", *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)


def test_a_killed_run_on_ones_own_folder_goes_on_to_equal_losses(folder: Path, tmp_path: Path, tiny: Backbone):
    common = ["train", "paints", "--data", folder, *SHORT, "--images", 4800]
    whole = run(*common, "--log", tmp_path / "whole", "--out", tmp_path / "one")
    assert whole.exit_code == 0, whole.output

    cut = [*common, "--log", tmp_path / "cut", "--out", tmp_path / "two"]
    checkpoints = tmp_path / "cache" / "runs"
    with started(cut) as process:
        deadline = time.monotonic() + 60
        while not list(checkpoints.glob("*.pt")):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "two").exists()
    resumed = run(*cut)
    assert "going on from image" in resumed.output
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) >= 15
    assert list(checkpoints.glob("*.pt")) == []

    one, two = (tmp_path / name / "tiny" / "paints" / "r4" for name in ("one", "two"))
    assert read_card(one).scores == read_card(two).scores
    adapter = load_adapter(two, tiny)
    assert adapter.head.task.labels == ("blue", "green", "red")
    assert adapter.card.data == "own data: paints"
    assert adapter.card.scores["val"]["macro_f1"].value > 90
    model = PeftModel.from_pretrained(tiny.to(torch.float32).module, str(two))
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(pixels).pooler_output
    torch.testing.assert_close(tiny.encode(pixels, deltas_of(adapter.factors)).pooled, expected, atol=1e-5, rtol=1e-5)


def test_an_adapter_of_ones_own_answers_and_merges(folder: Path, tmp_path: Path):
    assert run("train", "paints", "--data", folder, *SHORT, "--images", 480, "--out", tmp_path / "out").exit_code == 0
    lab = Lab("tiny", tmp_path / "out")
    assert lab.uniform().title == "paints:r4=1"
    photo = folder / "val" / "red" / "0.png"
    answer = json.loads(run("predict", photo, "--backbone", "tiny", "--adapters-root", tmp_path / "out", "--json").stdout)
    assert set(answer["photo"]["predictions"]["paints"]["probabilities"]) == set(COLOURS)
    assert "paints" in run("adapters", "--backbone", "tiny", "--adapters-root", tmp_path / "out").output


def test_a_dry_run_says_how_long_and_writes_nothing(folder: Path, tmp_path: Path):
    arguments = ["train", "paints", "--data", folder, *SHORT, "--images", 4800, "--out", tmp_path / "out", "--dry-run"]
    plan = json.loads(run(*arguments, "--json").stdout)
    assert plan["steps"] == 300
    assert plan["images"] == {"paints": {"train": 120, "val": 36}}
    assert plan["total_seconds"] == pytest.approx(sum(plan["seconds"].values()))
    assert plan["seconds"]["steps"] == pytest.approx(4800 / plan["images_per_second"], rel=0.05)
    assert plan["config"]["batch"] == 16
    assert "about" in run(*arguments).output
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "cache").glob("runs/*")) == []


def test_faults_are_told_all_at_once_and_can_be_left_out(folder: Path, tmp_path: Path):
    (folder / "train" / "red" / "0.png").write_bytes(b"no image")
    (folder / "val" / "blue" / "0.png").write_bytes((folder / "train" / "blue" / "0.png").read_bytes())
    arguments = ["train", "paints", "--data", folder, *SHORT, "--images", 320, "--out", tmp_path / "out"]
    told = run(*arguments)
    assert told.exit_code == 2
    assert "1 unreadable image in train" in told.output
    assert "1 image of train in val as well" in told.output
    assert "--skip-faulty" in told.output
    assert not (tmp_path / "out").exists()
    assert run(*arguments, "--skip-faulty").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--head-only", "--full"], "not both"),
        (["--set", "batch"], "--set takes name=value"),
        (["--set", "batch=much", "--set", "speed=9"], "batch: Input should be a valid integer"),
        (["--set", "speed=9"], "speed: Extra inputs are not permitted; there are task"),
        (["--format", "jpegs"], "no format named 'jpegs'"),
        (["--start-from", "r99"], "no adapter in"),
    ],
)
def test_mistakes_are_one_line(arguments: list, told: str, folder: Path, tmp_path: Path):
    result = run("train", "paints", "--data", folder, *SHORT, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert told in result.output
    assert len(result.output.splitlines()) == 1


def test_a_seed_is_noted_on_the_card_that_is_there(folder: Path, tmp_path: Path):
    common = ["train", "paints", "--data", folder, *SHORT, "--images", 320, "--out", tmp_path / "out"]
    assert run(*common).exit_code == 0
    for seed in (2, 1, 2):
        assert "noted the score" in run(*common, "--seed", seed, "--note-seed").output
    card = read_card(tmp_path / "out" / "tiny" / "paints" / "r4")
    assert [(one.seed, one.images) for one in card.seeds] == [(1, 320), (2, 320)]
    assert card.seed == 0


def test_any_vit_in_a_folder_will_do(folder: Path, tmp_path: Path):
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=16
    )
    ViTModel(config).save_pretrained(tmp_path / "vit")
    settings = ("--backbone", tmp_path / "vit", "--rank", 2, "--set", "batch=8", "--images", 64, "--out", tmp_path / "out")
    result = run("train", "paints", "--data", folder, *settings, "--json")
    assert result.exit_code == 0, result.output
    [card] = json.loads(result.stdout)
    assert card["backbone"] == str(tmp_path / "vit")
    assert card["image_size"] == 32


def test_two_processes_train_to_the_losses_of_one(folder: Path, tmp_path: Path):
    common = ["train", "paints", "--data", folder, *SHORT, "--images", 640]
    assert run(*common, "--log", tmp_path / "one", "--out", tmp_path / "a").exit_code == 0
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1", *NO_EXTRAS)
    with started([*common, "--log", tmp_path / "two", "--out", tmp_path / "b"], *launcher) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [step for step, _ in one] == [step for step, _ in two]
    np.testing.assert_allclose([loss for _, loss in one], [loss for _, loss in two], rtol=0.05)
    assert (tmp_path / "b" / "tiny" / "paints" / "r4" / "adapter_model.safetensors").exists()
