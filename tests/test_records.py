"""Records are appended whole and read back."""

from pathlib import Path

from lora_lab.records import Record, append_records, read_records


def test_records_are_appended_and_read_back(tmp_path: Path):
    record = Record(
        subject="merge", recipe="abc", task="galaxy", split="val", metric="recall", label="merger",
        value=61.5, low=40.25, high=80.0, n=19, seed=0, seconds=1.5, commit=None,
    )  # fmt: skip
    path = tmp_path / "deep" / "records.jsonl"
    append_records(path, [record])
    append_records(path, [record.model_copy(update={"value": 62.0})])
    assert [r.value for r in read_records(path)] == [61.5, 62.0]
    assert read_records(path)[0] == record
