"""A sweep on the tiny backbone: what it writes, and how it is stopped and taken up again."""

from collections.abc import Generator
from pathlib import Path

import pandas as pd
import pytest
from conftest import random_adapter
from made import write_squares

from lora_lab import metrics
from lora_lab.adapters import save_adapter
from lora_lab.backbones import Backbone
from lora_lab.cards import adapter_folder
from lora_lab.evaluation import Images
from lora_lab.lab import Lab
from lora_lab.records import RecordFile
from lora_lab.sweeps import PLANS, Scope, Sweep

PAIR = ("galaxy", "land_cover")


@pytest.fixture
def data(tmp_path: Path, own_cache: Path) -> Path:
    for name in PAIR:
        write_squares(tmp_path / "data" / name, val=40)
    return tmp_path / "data"


@pytest.fixture
def lab(tiny: Backbone, tmp_path: Path) -> Lab:
    for seed, name in enumerate(PAIR):
        for rank in (0, 16):
            folder = adapter_folder(tiny.name, name, f"r{rank}" if rank else "head_only", tmp_path / "adapters")
            save_adapter(random_adapter(tiny, name, rank, 10 * seed + rank), folder)
    return Lab("tiny", tmp_path / "adapters")


def sweep_of(lab: Lab, data: Path, name: str, limit: int | None = 30) -> Sweep:
    return Sweep(lab, Images(data, "val", limit), RecordFile(data.parent / f"{name}.parquet"), "float32")


def plan(lab: Lab, name: str = "weights") -> list:
    scope = Scope(lab.backbone.name, PAIR, methods=("exact", "uniform"), only=(frozenset(PAIR),))
    return [recipe for stage in PLANS[name](scope, pd.DataFrame) for recipe in stage]


def figures(sweep: Sweep) -> pd.DataFrame:
    frame = sweep.file.read().drop(columns="seconds").query("metric != 'merge_seconds'")
    return frame.sort_values(["recipe", "task", "metric", "label"]).reset_index(drop=True)


def test_records_are_of_every_model_and_beside_the_adapter_alone(lab: Lab, data: Path):
    sweep = sweep_of(lab, data, "records")
    cells = sweep.cells(plan(lab, "pairs"))
    assert [cell.title for cell in cells[:3]] == ["heads alone", "galaxy:r16=1", "land_cover:r16=1"]
    steps = list(sweep.run(cells))
    assert steps[-1].done == steps[-1].total == sum(sweep.image_count(cell) for cell in cells) == 5 * 30 * 2 - 2 * 30
    records = sweep.file.read()
    assert set(records.subject) == {"head_only", "adapter", "merge"}
    assert set(records.n) == {30}
    exact = plan(lab, "pairs")[0]
    assert exact.spelled == "galaxy:r16=1.0,land_cover:r16=1.0"
    merged = records[(records.recipe == exact.key) & (records.task == "galaxy")].set_index("metric")
    single = records[(records.subject == "adapter") & (records.task == "galaxy")].set_index("metric")
    crops = sweep.testbed.crops(lab.tasks()["galaxy"], lab.backbone.image_size)
    assert crops is not None
    outputs = sweep.testbed.outputs(lab.merge(exact))["galaxy"]
    found = metrics.score(lab.tasks()["galaxy"], outputs, crops.targets, None)[0]
    assert merged.value["macro_f1"] == pytest.approx(found.value)
    kept = 100 * merged.value["macro_f1"] / single.value["macro_f1"]
    assert merged.value["retention"] == pytest.approx(kept, rel=1e-5)
    assert merged.value["difference"] == pytest.approx(merged.value["macro_f1"] - single.value["macro_f1"], abs=1e-4)


def test_a_sweep_that_was_stopped_goes_on_without_repeating_a_cell(lab: Lab, data: Path, monkeypatch: pytest.MonkeyPatch):
    whole = sweep_of(lab, data, "whole")
    list(whole.run(whole.cells(plan(lab))))

    measured: list[str] = []
    first = sweep_of(lab, data, "parts")
    steps = first.run(first.cells(plan(lab)))
    measured += [next(steps).cell.key for _ in range(9)]
    assert isinstance(steps, Generator)
    steps.close()
    second = sweep_of(lab, data, "parts")
    with monkeypatch.context() as patch:
        # Stopped in the midst of a cell: it is measured, but not written.
        patch.setattr(RecordFile, "add", lambda self, records: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            next(second.run(second.cells(plan(lab))))
    third = sweep_of(lab, data, "parts")
    rest = third.cells(plan(lab))
    assert len(rest) == 28 - 9
    measured += [step.cell.key for step in third.run(rest)]
    assert len(measured) == len(set(measured)) == 28
    pd.testing.assert_frame_equal(figures(third), figures(whole))
    assert third.cells(plan(lab)) == []


def test_figures_of_other_adapters_are_measured_anew(lab: Lab, data: Path, tiny: Backbone):
    sweep = sweep_of(lab, data, "records")
    list(sweep.run(sweep.cells(plan(lab, "pairs"))))
    folder = adapter_folder(tiny.name, "galaxy", "r16", lab.adapters_root)
    save_adapter(random_adapter(tiny, "galaxy", 16, 77), folder)
    again = sweep_of(Lab("tiny", lab.adapters_root), data, "records")
    cells = again.cells(plan(lab, "pairs"))
    assert [cell.title for cell in cells] == [
        "galaxy:r16=1",
        "galaxy:r16=1 + land_cover:r16=1",
        "galaxy:r16=0.5 + land_cover:r16=0.5",
    ]
    list(again.run(cells))
    records = again.file.read()
    assert not records.duplicated(["recipe", "task", "metric", "label"]).any()
    assert again.cells(plan(lab, "pairs")) == []


def test_figures_on_fewer_images_are_measured_anew(lab: Lab, data: Path):
    few = sweep_of(lab, data, "records", limit=10)
    list(few.run(few.cells(plan(lab, "pairs"))))
    more = sweep_of(lab, data, "records")
    assert len(more.cells(plan(lab, "pairs"))) == 5
    list(more.run(more.cells(plan(lab, "pairs"))))
    assert set(more.file.read().n) == {30}


def test_bfloat16_is_near_float32_and_is_another_figure(lab: Lab, data: Path):
    full, half = (
        sweep_of(lab, data, "records"),
        Sweep(lab, Images(data, "val", 30), RecordFile(data.parent / "records.parquet")),
    )
    recipe = plan(lab, "pairs")[0]
    one, two = (sweep.testbed.outputs(lab.merge(recipe))["galaxy"] for sweep in (full, half))
    assert 0 < abs(one - two).max() < 0.1 * abs(one).max()
    list(full.run(full.cells([recipe])))
    assert len(half.cells([recipe])) == 4
    assert 0 < half.probe() < 1


def test_a_task_without_images_is_left_out_with_a_warning(lab: Lab, data: Path, caplog: pytest.LogCaptureFixture):
    (data / "land_cover" / "val.parquet").unlink()
    sweep = sweep_of(lab, data, "records")
    list(sweep.run(sweep.cells(plan(lab, "pairs"))))
    assert set(sweep.file.read().task) == {"galaxy"}
    assert caplog.text.count("no val images of land_cover") == 1
