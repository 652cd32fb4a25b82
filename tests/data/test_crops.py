"""Splits are read, framed and kept; faults are told."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lora_lab.data import crops as crops_module
from lora_lab.data import load_crops, read_split
from lora_lab.errors import DataError, NotFoundError
from lora_lab.faces import Detector
from lora_lab.tasks import TASKS


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, images: list[bytes], **columns: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": [{"bytes": data, "path": None} for data in images], **columns})
    pq.write_table(table, path)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "cache"))


def test_square_images_keep_their_middle_and_their_labels(tmp_path: Path):
    write(tmp_path / "galaxy" / "val.parquet", [png(Image.new("RGB", (30, 30), c)) for c in ("red", "lime")], label=[3, 1])
    crops = load_crops(TASKS["galaxy"], tmp_path, "val", 56)
    assert crops.centre(56).shape == (2, 56, 56, 3)
    assert crops.pixels.shape[1] == 72
    assert crops.targets.tolist() == [3, 1]
    assert crops.detection_rate is None
    assert crops.centre(56)[0, 28, 28].tolist() == [255, 0, 0]


def test_the_tasks_own_folder_will_do_and_the_second_time_is_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "galaxy" / "val.parquet", [png(Image.new("RGB", (30, 30)))], label=[0])
    first = load_crops(TASKS["galaxy"], tmp_path / "galaxy", "val", 56)
    monkeypatch.setattr(crops_module, "open_photo", None)
    again = load_crops(TASKS["galaxy"], tmp_path, "val", 56)
    np.testing.assert_array_equal(first.pixels, again.pixels)


def test_points_lie_in_the_frame_of_the_detectors_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fixed = Detector("fixed", lambda pixels: [[20, 10, 40, 50, 0.9]], side=1.5, below=0.0)
    monkeypatch.setattr(crops_module, "default_detector", lambda: fixed)
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
    monkeypatch.setattr(crops_module, "default_detector", lambda: Detector("blind", lambda pixels: [], 1.5, 0.0))
    write(tmp_path / "emotion" / "val.parquet", [png(Image.new("RGB", (48, 48), "gray"))] * 2, label=[0, 6])
    crops = load_crops(TASKS["emotion"], tmp_path, "val", 56)
    assert crops.detection_rate == 0.0
    assert len(crops) == 2


def test_part_keeps_images_and_targets_together(tmp_path: Path):
    images = [png(Image.new("RGB", (20, 20), (40 * i, 0, 0))) for i in range(4)]
    write(tmp_path / "galaxy" / "val.parquet", images, label=[0, 1, 2, 3])
    part = load_crops(TASKS["galaxy"], tmp_path, "val", 56).part(np.array([1, 3]))
    assert part.targets.tolist() == [1, 3]
    assert part.pixels[:, 36, 36, 0].tolist() == [40, 120]


def test_faults_are_told(tmp_path: Path):
    write(tmp_path / "galaxy" / "train.parquet", [png(Image.new("RGB", (8, 8))), b"broken"], label=[0, 1])
    with pytest.raises(NotFoundError, match=r"no split 'val'.*it holds train"):
        load_crops(TASKS["galaxy"], tmp_path, "val", 56)
    with pytest.raises(DataError, match="1 of 2 images cannot be read; the first: image 1"):
        load_crops(TASKS["galaxy"], tmp_path, "train", 56)
    (tmp_path / "galaxy" / "val.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match="is no parquet file"):
        read_split(tmp_path / "galaxy", "val")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "galaxy" / "test.parquet")
    with pytest.raises(DataError, match="no column 'image'; it has label"):
        read_split(tmp_path / "galaxy", "test")
