"""Splits are read, framed and kept; faults are told."""

import hashlib
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import make_eurosat
from PIL import Image

from lora_lab import framing
from lora_lab.data import crops as crops_module
from lora_lab.data import has_split, load_crops, open_dataset, read_split
from lora_lab.data.crops import face_sizes
from lora_lab.errors import DataError, NotFoundError
from lora_lab.faces import Detector
from lora_lab.tasks import TASKS

pytestmark = pytest.mark.usefixtures("own_cache")


def found_by(monkeypatch: pytest.MonkeyPatch, detector: Detector) -> None:
    """Let another detector find the faces."""
    for module in (crops_module, framing):
        monkeypatch.setattr(module, "default_detector", lambda: detector)


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, images: list[bytes], **columns: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": [{"bytes": data, "path": None} for data in images], **columns})
    pq.write_table(table, path)


def galaxies(*numbers: int) -> list[str]:
    return [TASKS["galaxy"].labels[number] for number in numbers]


def test_square_images_keep_their_middle_and_their_labels(tmp_path: Path):
    write(
        tmp_path / "galaxy" / "val.parquet", [png(Image.new("RGB", (30, 30), c)) for c in ("red", "lime")], label=galaxies(3, 1)
    )
    crops = load_crops(TASKS["galaxy"], tmp_path, "val", 56)
    assert crops.centre(56).shape == (2, 56, 56, 3)
    assert crops.pixels.shape[1] == 72
    assert crops.targets.tolist() == [3, 1]
    assert crops.detection_rate is None
    assert crops.centre(56)[0, 28, 28].tolist() == [255, 0, 0]


def test_the_tasks_own_folder_will_do_and_the_second_time_is_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "galaxy" / "val.parquet", [png(Image.new("RGB", (30, 30)))], label=galaxies(0))
    first = load_crops(TASKS["galaxy"], tmp_path / "galaxy", "val", 56)
    monkeypatch.setattr(framing, "open_photo", None)
    again = load_crops(TASKS["galaxy"], tmp_path, "val", 56)
    np.testing.assert_array_equal(first.pixels, again.pixels)


def test_points_lie_in_the_frame_of_the_detectors_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fixed = Detector("fixed", lambda pixels: [[20, 10, 40, 50, 0.9]], side=1.5, below=0.0)
    found_by(monkeypatch, fixed)
    points = np.tile([40.0, 30.0], 68)  # the frame is 60 wide with its centre at (40, 30)
    points[:2] = 70, 0
    write(
        tmp_path / "landmarks" / "val.parquet", [png(Image.new("RGB", (90, 90)))], points=[points.tolist()], eye_distance=[15.0]
    )
    crops = load_crops(TASKS["landmarks"], tmp_path, "val", 56)
    assert crops.detection_rate == 1.0
    np.testing.assert_allclose(crops.targets[0, 0], [0.5, -0.5], atol=1e-6)
    np.testing.assert_allclose(crops.targets[0, 1:], 0, atol=1e-6)
    assert crops.normaliser is not None
    np.testing.assert_allclose(crops.normaliser, [0.25])


def test_a_face_that_is_not_found_counts_and_is_scored_on_the_centre_square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found_by(monkeypatch, Detector("blind", lambda pixels: [], 1.5, 0.0))
    write(tmp_path / "emotion" / "val.parquet", [png(Image.new("RGB", (48, 48), "gray"))] * 2, label=["angry", "surprise"])
    crops = load_crops(TASKS["emotion"], tmp_path, "val", 56)
    assert crops.detection_rate == 0.0
    assert len(crops) == 2


def test_part_keeps_images_and_targets_together(tmp_path: Path):
    images = [png(Image.new("RGB", (20, 20), (40 * i, 0, 0))) for i in range(4)]
    write(tmp_path / "galaxy" / "val.parquet", images, label=galaxies(0, 1, 2, 3))
    part = load_crops(TASKS["galaxy"], tmp_path, "val", 56).part(np.array([1, 3]))
    assert part.targets.tolist() == [1, 3]
    assert part.pixels[:, 36, 36, 0].tolist() == [40, 120]


def test_faults_are_told(tmp_path: Path):
    write(tmp_path / "galaxy" / "test.parquet", [png(Image.new("RGB", (8, 8))), b"broken"], label=galaxies(0, 1))
    with pytest.raises(NotFoundError, match=r"no split 'val'.*it holds test"):
        load_crops(TASKS["galaxy"], tmp_path, "val", 56)
    with pytest.raises(DataError, match="1 of 2 images cannot be read; the first: row 1"):
        load_crops(TASKS["galaxy"], tmp_path, "test", 56)
    (tmp_path / "galaxy" / "val.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match="is no parquet file"):
        read_split(tmp_path / "galaxy", "val")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "galaxy" / "test.parquet")
    with pytest.raises(DataError, match="no column 'image'; it has label"):
        read_split(tmp_path / "galaxy", "test")


def test_the_key_of_a_parquet_split_stays_what_it_was(tmp_path: Path, own_cache: Path):
    path = tmp_path / "galaxy" / "val.parquet"
    write(path, [png(Image.new("RGB", (8, 8)))] * 2, label=galaxies(0, 1))
    load_crops(TASKS["galaxy"], tmp_path, "val", 56)
    origin = (1, str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns, "square", 56)
    key = hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:16]
    assert {file.name for file in (own_cache / "crops").iterdir()} == {f"galaxy-val-{key}.npy", f"galaxy-val-{key}.json"}


def test_classes_go_by_name_whatever_their_order_and_spelling(tmp_path: Path):
    images = [png(Image.new("RGB", (20, 20), (40 * i, 0, 0))) for i in range(3)]
    write(tmp_path / "val.parquet", images, label=["Edge_on_or-unclear spiral", "SPIRAL", "merger"])
    assert load_crops(TASKS["galaxy"], tmp_path, "val", 56).targets.tolist() == [0, 3, 2]
    write(tmp_path / "test.parquet", images, label=["merger", "comet", "nebula"])
    with pytest.raises(DataError, match=r"2 labels that galaxy does not know \('comet', 'nebula'; known: edge on"):
        load_crops(TASKS["galaxy"], tmp_path, "test", 56)


def test_eurosats_folders_are_the_land_cover_task(tmp_path: Path):
    make_eurosat(tmp_path)
    crops = load_crops(TASKS["land_cover"], tmp_path, "val", 56)
    assert sorted(crops.targets.tolist()) == [0, 1, 2, 6, 8, 9]


def test_ages_go_into_groups_and_labels_that_are_missing_are_told(tmp_path: Path):
    images = [png(Image.new("RGB", (20, 20), (40 * i, 0, 0))) for i in range(3)]
    write(tmp_path / "val.parquet", images, age=[3, 17, 90])
    assert load_crops(TASKS["age_class"], tmp_path, "val", 56).targets.tolist() == [0, 2, 5]
    assert load_crops(TASKS["age_regression"], tmp_path, "val", 56).targets.tolist() == [3, 17, 90]
    write(tmp_path / "test.parquet", images, age=[3, None, -1])
    with pytest.raises(DataError, match=r"1 missing label; 1 label that age_class does not know \('-1'"):
        load_crops(TASKS["age_class"], tmp_path, "test", 56)


def test_how_the_data_lies_wins_over_what_the_task_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found_by(monkeypatch, Detector("blind", lambda pixels: [], 1.5, 0.0))
    write(tmp_path / "val.parquet", [png(Image.new("RGB", (48, 48), "gray"))], label=["sad"])
    data = open_dataset(tmp_path)
    assert load_crops(TASKS["emotion"], data, "val", 56).detection_rate == 0.0
    framed = load_crops(TASKS["emotion"], replace(data, stored="square"), "val", 56)
    assert framed.detection_rate is None
    assert framed.targets.tolist() == [5]


def test_a_face_is_as_large_as_its_outer_eye_corners_are_apart_or_as_its_box():
    points = np.zeros((1, 68, 2))
    points[0, 36], points[0, 45] = (10, 10), (13, 14)
    assert face_sizes(points).tolist() == [5.0]
    points = np.zeros((1, 98, 2))
    points[0, 60], points[0, 72] = (10, 10), (22, 15)
    assert face_sizes(points).tolist() == [13.0]
    assert face_sizes(np.array([[[0.0, 0.0], [8.0, 2.0], [4.0, 1.0]]])).tolist() == [4.0]


def test_a_split_is_there_if_the_folder_of_the_tasks_name_has_it(tmp_path: Path):
    write(tmp_path / "galaxy" / "test.parquet", [png(Image.new("RGB", (8, 8)))], label=galaxies(0))
    assert has_split(TASKS["galaxy"], tmp_path, "test")
    assert has_split(TASKS["galaxy"], tmp_path / "galaxy", "test")
    assert not has_split(TASKS["galaxy"], tmp_path, "val")
    assert not has_split(TASKS["emotion"], tmp_path / "galaxy", "test")
    assert has_split(TASKS["emotion"], open_dataset(tmp_path / "galaxy"), "test")
