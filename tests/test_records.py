from pathlib import Path

import pandas as pd
import pytest

from lora_lab.errors import DataError
from lora_lab.records import Record, RecordFile


def record(recipe: str, value: float) -> Record:
    return Record(
        subject="merge", recipe=recipe, task="emotion", split="val", metric="accuracy", value=value, low=value - 1,
        high=value + 1, n=500, seed=0, seconds=1.5,
    )  # fmt: skip


def test_records_are_a_table_that_pandas_opens(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "new" / "records.parquet")
    assert len(file.read()) == 0
    file.add([record("a", 50.0), record("a", 51.0)])
    file.add([record("b", 60.0)])
    table = pd.read_parquet(file.path)
    assert list(table.value) == [50.0, 51.0, 60.0]
    assert list(table.columns) == list(Record.model_fields)


def test_a_cell_measured_again_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "records.parquet")
    file.add([record("a", 50.0), record("a", 51.0)])
    file.add([record("b", 60.0)])
    file.add([record("a", 55.0)])
    assert sorted(file.read().value) == [55.0, 60.0]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RecordFile(tmp_path / "records.parquet")
    file.add([record("a", 50.0)])

    def torn(self: pd.DataFrame, path: Path, **options: object) -> None:
        path.write_bytes(b"PAR1 half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", torn)
        with pytest.raises(KeyboardInterrupt):
            file.add([record("b", 60.0)])
    assert list(file.read().value) == [50.0]
    assert [path.name for path in tmp_path.iterdir()] == ["records.parquet"]


def test_two_writers_at_once_are_refused(tmp_path: Path, own_cache: Path) -> None:
    file = RecordFile(tmp_path / "records.parquet")
    with file.locked(), pytest.raises(DataError, match="written by another sweep"), RecordFile(file.path).locked():
        pass


def test_a_file_of_something_else_is_told(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    path.write_text("no parquet")
    with pytest.raises(DataError, match="holds no records"):
        RecordFile(path).read()
