"""Labels that are numbers or other words become a task's classes by a table that is named, and never by their order."""

from pathlib import Path

import pytest
from layouts import encoded, put, put_table

from lora_lab.data import Reading, find_dataset, find_faults, load_crops, open_own, task_dataset
from lora_lab.data.schemes import SCHEMES, label_table
from lora_lab.errors import DataError, LoraLabError
from lora_lab.tasks import TASKS

pytestmark = pytest.mark.usefixtures("own_cache")
EMOTION = TASKS["emotion"]


def put_classes(folder: Path, names: list[str], count: int = 3) -> None:
    for place, name in enumerate(names):
        for number in range(count):
            put(folder / name / f"{number}.png", encoded((place * 30, number * 40, 7)))


def words(folder: Path, labels: str | None, task: str = "emotion") -> dict[str, str]:
    data = task_dataset(TASKS[task], folder, Reading(labels=labels))
    splits = [data.read(name) for name in data.splits]
    return {name.split("/")[0]: label for s in splits for name, label in zip(s.names, s.columns["label"], strict=True)}


@pytest.mark.parametrize(
    ("labels", "meant"),
    [
        ("fer2013", dict(zip("0123456", ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"), strict=True))),
        ("expw", {"4": "sad", "6": "neutral"}),
        ("raf-db", dict(zip("1234567", ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"), strict=True))),
        ("ferplus", {"0": "neutral", "1": "happy", "4": "angry", "6": "fear"}),
        ("AffectNet", {"0": "neutral", "1": "happy", "6": "angry"}),
        ("CK+", {"0": "neutral", "1": "angry", "3": "disgust", "7": "surprise"}),
        ("0=sad, 1=Anger", {"0": "sad", "1": "angry"}),
        ("in-order", {"0": "angry", "4": "neutral"}),
    ],
)
def test_numbers_are_read_by_the_table_that_is_named(tmp_path: Path, labels: str, meant: dict[str, str]):
    put_classes(tmp_path, list(meant))
    assert words(tmp_path, labels) == meant


@pytest.mark.parametrize("names", [list("0123456"), list("1234567"), ["0", "3", "9"], ["00", "01"], ["4.0", "5.0"]])
def test_numbers_are_refused_without_one(tmp_path: Path, names: list[str]):
    put_classes(tmp_path, names)
    with pytest.raises(DataError, match="numbers, which name no emotion; say what they mean with --labels") as caught:
        words(tmp_path, None)
    assert len(str(caught.value)) <= 300


def test_a_column_of_numbers_is_refused_and_named_ones_are_read_by_their_names(tmp_path: Path):
    put_table(tmp_path / "train.parquet", 14, label=[i % 7 for i in range(14)])
    with pytest.raises(DataError, match=r"0, 1, 2, 3 and 3 more: numbers.*fer2013, expw, ferplus"):
        task_dataset(EMOTION, tmp_path)
    data = task_dataset(EMOTION, tmp_path, Reading(labels="fer2013"))
    assert data.read("train").columns["label"][:1] != [0]
    assert {"sad", "neutral"} <= {v for name in data.splits for v in data.read(name).columns["label"]}
    with pytest.raises(DataError, match=r"numbers, which name no galaxy.*galaxy10"):
        task_dataset(TASKS["galaxy"], tmp_path)
    # Few, with gaps, or as fractions: they are numbers all the same.
    put_table(tmp_path / "train.parquet", 3, label=[0.0, 4.0, 90.0])
    with pytest.raises(DataError, match="numbers, which name no emotion"):
        task_dataset(EMOTION, tmp_path)


def test_targets_follow_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_table(tmp_path / "val.parquet", 7, label=list(range(7)))
    data = task_dataset(TASKS["land_cover"], tmp_path, Reading(labels="eurosat"))
    assert load_crops(TASKS["land_cover"], data, "val", 56).targets.tolist() == list(range(7))


def test_other_words_are_read_by_a_declared_table_and_told(tmp_path: Path):
    put_classes(tmp_path, ["Anger", "happiness", "SADNESS", "neutral"])
    assert words(tmp_path, None) == {"Anger": "angry", "happiness": "happy", "SADNESS": "sad", "neutral": "neutral"}
    data = task_dataset(EMOTION, tmp_path)
    assert data.mapped == {"source": "synonyms", "labels": {"Anger": "angry", "SADNESS": "sad", "happiness": "happy"}}
    assert data.notes == (
        "labels were read as classes of emotion by synonyms: Anger → angry, SADNESS → sad, happiness → happy",
    )
    assert task_dataset(EMOTION, tmp_path).labels == EMOTION.labels


def test_galaxy10_becomes_our_four_and_what_has_none_is_left_out_and_counted(tmp_path: Path):
    put_classes(tmp_path, [str(number) for number in range(10)])
    found = words(tmp_path, "galaxy10", "galaxy")
    assert found == {
        **{"1": "merger", "2": "elliptical", "3": "elliptical", "4": "elliptical"},
        **{"5": "spiral", "6": "spiral", "7": "spiral"},
        **{"8": "edge on or unclear spiral", "9": "edge on or unclear spiral"},
    }
    data = task_dataset(TASKS["galaxy"], tmp_path, Reading(labels="galaxy10"))
    assert data.notes[-1] == "images that galaxy has no class for were left out: 3 0"


def test_unknown_names_are_refused_all_at_once(tmp_path: Path):
    put_classes(tmp_path, ["angry", "contempt", "happy", "bored"], 4)
    faults = find_faults(EMOTION, task_dataset(EMOTION, tmp_path))
    assert "('bored', 'contempt'; known: angry" in faults.lines[0]
    data = task_dataset(EMOTION, tmp_path, Reading(labels="contempt=, bored=neutral"))
    assert not find_faults(EMOTION, data).lines
    assert find_faults(EMOTION, data).notes == (
        f"{tmp_path.name} has no image of disgust, fear, sad and 1 more, so emotion does not learn it",
    )


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("0=glad,1=grumpy", "--labels names glad, grumpy, which emotion has not; it has angry"),
        ("0=angry,0=sad", "--labels says two things of 0"),
        ("0=angry,sad", "sad, which are no pairs: write label=class"),
        ("fer2012", "no label set 'fer2012': take fer2013, expw"),
        ("galaxy10", "--labels galaxy10 is a label set of galaxy; for emotion: fer2013"),
    ],
)
def test_tables_that_say_nothing_are_one_line(labels: str, told: str):
    with pytest.raises(LoraLabError, match=told) as caught:
        label_table(EMOTION, labels)
    assert "\n" not in str(caught.value)


def test_a_file_may_hold_the_pairs(tmp_path: Path):
    asked = str(put(tmp_path / "map.json", '{"0": "sad", "1": null}'))
    table = label_table(EMOTION, asked)
    assert (table("0"), table("1"), table("angry"), table("2")) == ("sad", None, "angry", "2")
    assert label_table(EMOTION, str(put(tmp_path / "map.txt", "0=sad\n1=joy\n")))("1") == "happy"
    with pytest.raises(DataError, match="holds no JSON object"):
        label_table(EMOTION, str(put(tmp_path / "map.json", "[1]")))


def test_every_scheme_gives_classes_of_its_task_or_leaves_out():
    for name, scheme in SCHEMES.items():
        for task in map(TASKS.__getitem__, scheme.tasks):
            table = label_table(task, name)
            assert all(table(number) is None or table(number) in task.labels for number in scheme.names), name


def test_classes_of_ones_own_can_be_renamed_and_joined(tmp_path: Path):
    put_classes(tmp_path, ["0", "1", "2"])
    data = open_own(tmp_path, Reading(labels="0=rose,1=tulip,2=tulip"))
    assert data.labels == ("rose", "tulip")
    assert {v for name in data.splits for v in data.read(name).columns["label"]} == {"rose", "tulip"}
    assert open_own(tmp_path).labels == ("0", "1", "2")


def test_data_of_another_task_is_not_taken_for_this_one(tmp_path: Path):
    put_classes(tmp_path, ["angry", "happy"])
    assert find_dataset(EMOTION, tmp_path) is not None
    assert find_dataset(TASKS["galaxy"], tmp_path) is None
    assert find_dataset(TASKS["age_class"], tmp_path) is None
    assert find_dataset(TASKS["landmarks"], tmp_path) is None
