"""Everything that computes does so on the device that is named, and says there what it says on the CPU.

Where there is no GPU a pretended device stands for it, which lets no tensor on it meet one on the CPU. That answers agree on a
real GPU is tested where there is one.
"""

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch
from conftest import PORTRAIT
from made import write_squares
from pretend_device import PRETENDED, pretending
from torch.testing import assert_close

from lora_lab import devices, exports, ui
from lora_lab.changes import changes
from lora_lab.composition import WAYS, Lesson, Plan, compose, members_for, open_new_task, scores_of
from lora_lab.data import load_crops, open_dataset
from lora_lab.describing import describe
from lora_lab.devices import find_device
from lora_lab.errors import LoraLabError
from lora_lab.evaluation import Images
from lora_lab.inference import MergedModel
from lora_lab.lab import Lab
from lora_lab.merging import MERGE_METHODS, MergeRecipe, Sight, lorahub
from lora_lab.photos import Photo
from lora_lab.records import RecordFile
from lora_lab.repairs import REPAIRS, surgery
from lora_lab.sights import sight_from_data
from lora_lab.suggestions import SUGGESTERS, Question
from lora_lab.sweeps import Sweep
from lora_lab.tasks import TASKS
from lora_lab.training import Run, TrainConfig, finish, joint_config

PAIR = ("galaxy", "land_cover")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


@pytest.fixture(params=[pytest.param("pretended"), pytest.param("cuda", marks=gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A device that is not the CPU."""
    if request.param == "cuda":
        yield torch.device("cuda")
        return
    count = devices._count
    monkeypatch.setattr(devices, "KINDS", (*devices.KINDS, PRETENDED.type))
    monkeypatch.setattr(devices, "_count", lambda kind: 1 if kind == PRETENDED.type else count(kind))
    with pretending() as one:
        yield one


@pytest.fixture
def labs(adapters_root: Path, device: torch.device) -> tuple[Lab, Lab]:
    """One on the CPU, and one on the other device."""
    return Lab("tiny", adapters_root, device="cpu"), Lab("tiny", adapters_root, device=device)


@pytest.fixture
def data(tmp_path: Path, own_cache: Path) -> Path:
    write_squares(tmp_path / "galaxy", train=40, val=24, test=8)
    write_squares(tmp_path / "land_cover", train=40, val=24)
    return tmp_path


def two(method: str = "exact", **more: object) -> MergeRecipe:
    return MergeRecipe.parse("galaxy=1,land_cover=0.5", "tiny").model_copy(update={"method": method, **more})


def seen_by(lab: Lab, data: Path) -> Sight:
    return sight_from_data(lab.serving, lab.heads(two()), Images(data, "train", 16))


def on_cpu(model: MergedModel) -> dict[str, torch.Tensor]:
    return {target: delta.cpu() for target, delta in model.deltas.items()}


def test_a_photo_gets_the_answers_that_it_gets_on_the_cpu(labs: tuple[Lab, Lab]):
    photo, recipe = Photo.read(PORTRAIT), labs[0].uniform()
    here, there = (lab.predict(photo, recipe) for lab in labs)
    moved = recipe.model_copy(
        update={"adapters": (recipe.adapters[0].model_copy(update={"weight": 0.9}), *recipe.adapters[1:])}
    )
    for one, other in ((here, there), *[tuple(lab.predict(photo, moved) for lab in labs)]):
        for face, same in zip(one.prediction.faces, other.prediction.faces, strict=True):
            assert face.predictions["age_regression"].value == pytest.approx(same.predictions["age_regression"].value, abs=1e-3)
            assert np.allclose(
                face.predictions["landmarks"].points or (), same.predictions["landmarks"].points or (), atol=1e-3
            )
        both = one.prediction.photo.predictions["galaxy"], other.prediction.photo.predictions["galaxy"]
        assert both[0].probabilities == pytest.approx(both[1].probabilities, abs=1e-3)
    lab = labs[1]
    assert there.features.pooled.device.type == lab.device.type
    faces, _ = changes(lab.locate(photo), there.prediction, there.features, lab.base(photo)[1])
    assert faces[0].patches.device.type == "cpu"
    assert lab.judged(photo) == []


@pytest.mark.parametrize("method", list(MERGE_METHODS))
def test_every_method_gives_the_same_deltas(labs: tuple[Lab, Lab], data: Path, method: str):
    knobs = {"steps": 3.0} if "steps" in {knob.name for knob in MERGE_METHODS[method].knobs} else {}
    needs = MERGE_METHODS[method].needs in ("images", "labels")
    if MERGE_METHODS[method].needs == "statistics":
        with pytest.raises(LoraLabError, match="statistics"):
            labs[1].merge(two(method))
        return
    here, there = (lab.merge(two(method, knobs=knobs), seen_by(lab, data) if needs else None) for lab in labs)
    assert {delta.device.type for delta in there.deltas.values()} == {labs[1].device.type}
    assert_close(on_cpu(there), on_cpu(here), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("repair", list(REPAIRS))
def test_every_repair_mends_there_as_here(labs: tuple[Lab, Lab], data: Path, repair: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(surgery, "STEPS", 10)
    outputs = []
    for lab in labs:
        sight = seen_by(lab, data)
        model = lab.merge(two("iteris", repair=repair), sight)
        with torch.no_grad():
            features = lab.serving.encode(sight.pixels["galaxy"][:4], model.deltas)
            outputs.append(model.outputs("galaxy", features).cpu())
        kept = lab.save_merge(two("iteris", repair=repair), sight, "kept", "some")
        with torch.no_grad():
            again = lab.merge(kept).outputs("galaxy", features).cpu()
        assert_close(again, outputs[-1], rtol=0.05, atol=0.05)
    assert_close(outputs[1], outputs[0], rtol=0.0, atol=1e-3)


def test_a_sweep_measures_the_same(labs: tuple[Lab, Lab], data: Path, tmp_path: Path):
    found = []
    for place, lab in enumerate(labs):
        sweep = Sweep(lab, Images(data, "val"), RecordFile(tmp_path / f"{place}.parquet"), "float32")
        for _ in sweep.run(sweep.cells([two(), two("emr")])):
            pass
        assert sweep.probe() > 0
        frame = sweep.file.read()
        found.append(frame[frame.metric != "merge_seconds"].set_index(["recipe", "task", "metric", "label"]).value.sort_index())
    assert np.allclose(found[0], found[1], atol=0.2)


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(task="galaxy", backbone="tiny", rank=4, images=64, batch=16, checks=2),
        TrainConfig(task="galaxy", backbone="tiny", tuning="full", rank=0, images=32, batch=16, checks=1),
        TrainConfig(task="galaxy", backbone="tiny", tuning="head_only", rank=0, images=32, batch=16, checks=1),
        TrainConfig(task="galaxy+land_cover", backbone="tiny", rank=4, images=64, batch=16, checks=1, to_merge=True),
        joint_config((TASKS["galaxy"], TASKS["land_cover"]), "tiny", 4).model_copy(update={"images": 32, "batch": 16}),
    ],
    ids=["lora", "full", "head_only", "to_merge", "joint"],
)
def test_training_ends_with_the_same_adapter(labs: tuple[Lab, Lab], data: Path, config: TrainConfig):
    sources = [(TASKS[name], open_dataset(data / name)) for name in config.tasks]
    ended = []
    for lab in labs:
        run = Run(config, sources, lab.backbone)
        losses = [step.loss for step in run.steps()]
        assert lab.device == PRETENDED or run.load_checkpoint()  # a pretended tensor cannot be read back
        run.forget_checkpoint()
        ended.append((losses, finish(run)))
        assert {tensor.device.type for tensor in run.tensors.values()} == {lab.device.type}
    assert np.allclose(ended[0][0], ended[1][0], atol=1e-2)
    for here, there in zip(ended[0][1], ended[1][1], strict=True):
        assert there.card.scores["val"].keys() == here.card.scores["val"].keys()
        assert all(pair.a.device.type == "cpu" for pair in there.factors.values())


@pytest.mark.parametrize("way", list(WAYS))
def test_few_images_teach_the_same(labs: tuple[Lab, Lab], data: Path, way: str):
    new = open_new_task("galaxy", data, labs[0].backbone.image_size, 2, 0)
    found = []
    for lab in labs:
        factors = {name: lab.adapter(name, 16).factors for name in ("emotion", "land_cover")}
        trained = WAYS[way].train(Lesson(lab.backbone, factors, new.task, new.crops, steps=3))
        found.append(scores_of(trained, new.held_out)["accuracy"].value)
    assert found[1] == pytest.approx(found[0], abs=10)


def test_a_composition_is_kept_and_suggestions_are_made(labs: tuple[Lab, Lab], data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lorahub, "TRIALS", replace(lorahub.TRIALS, default=6))
    lab = labs[1]
    new = open_new_task("galaxy", data, lab.backbone.image_size, 2, 0)
    done = compose(lab, members_for(lab, new.task), new, Plan(steps=2))
    assert done.head.output.weight.device.type == lab.device.type
    sight = seen_by(lab, data)
    for way in ("photos", "labels"):
        seen = sight if way == "labels" else replace(sight, labels={})
        assert SUGGESTERS[way].suggest(Question(lab, two(), sight=seen)).recipe.adapters


def test_what_is_written_is_what_the_cpu_writes(labs: tuple[Lab, Lab], tmp_path: Path, own_cache: Path):
    for place, lab in enumerate(labs):
        exports.export_adapter(lab, two("ties"), tmp_path / f"adapter{place}", rank=8)
        exports.export_full(lab, two(), tmp_path / f"full{place}")
    for name in ("adapter{}/adapter_model.safetensors", "full{}/model.safetensors"):
        assert (tmp_path / name.format(1)).read_bytes() == (tmp_path / name.format(0)).read_bytes()


def test_a_card_is_filled_there(labs: tuple[Lab, Lab], data: Path):
    filled = []
    for lab in labs:
        train, val = (load_crops(TASKS["galaxy"], data, split, lab.backbone.image_size) for split in ("train", "val"))
        filled.append(describe(lab.adapter("galaxy", 16), lab.backbone, train, val))
    here, there = filled
    assert there.card.scores == here.card.scores
    assert there.statistics is not None
    assert here.statistics is not None
    assert_close(dict(there.statistics.grams), dict(here.statistics.grams), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gpu", "no device 'gpu': take auto, cpu, cuda, mps"),
        ("cuda:first", "no device 'cuda:first'"),
        ("cpu:3", "no device cpu:3: there are 1"),
        ("", "no device ''"),
        pytest.param(
            "cuda", "no cuda device is here", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here")
        ),
        pytest.param(
            "mps",
            "no mps device is here",
            marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is one here"),
        ),
    ],
)
def test_a_device_that_is_not_here_is_told_in_one_line(name: str, told: str):
    with pytest.raises(LoraLabError, match=r"^[^\n]+$") as raised:
        Lab("tiny", device=name)
    assert told in str(raised.value)


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "_count", lambda kind: {"cpu": 1, "cuda": 2, "mps": 1}[kind])
    assert find_device() == torch.device("cuda")
    assert find_device("cuda:1") == torch.device("cuda:1")
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"  # type: ignore[attr-defined]
    monkeypatch.setattr(devices, "_count", lambda kind: {"cpu": 1, "cuda": 0, "mps": 1}[kind])
    assert find_device("AUTO") == torch.device("mps")
    monkeypatch.setattr(devices, "_count", lambda kind: {"cpu": 1, "cuda": 0, "mps": 0}[kind])
    assert find_device() == torch.device("cpu")


# Gradio leaves an event loop behind in every page that is not launched; it is collected here, not in the next test.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_handlers_ask_for_a_gpu_where_it_is_lent(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def gpu_for(handler):
        return lambda *given: asked.append(given) or handler(*given)

    with gr.Blocks() as page:
        box = gr.Textbox()
        box.change(str.upper, box, box)
        box.submit(None, js="() => null")
    plain = [handler.fn for handler in page.fns.values()]
    monkeypatch.setattr(ui, "find_spec", lambda name: None)
    assert [handler.fn for handler in ui.lent_gpu(page).fns.values()] == plain
    monkeypatch.setattr(ui, "find_spec", lambda name: object())
    monkeypatch.setitem(__import__("sys").modules, "spaces", SimpleNamespace(GPU=gpu_for))
    first, second = (handler.fn for handler in ui.lent_gpu(page).fns.values())
    assert first is not None
    assert first("a") == "A"
    assert asked == [("a",)]
    assert second is None
    del page
    gc.collect()
