"""The league's tables from made-up records, and the mean retention's interval against a bootstrap written out."""

from pathlib import Path

import numpy as np
import pytest
from made_league import write_league
from sklearn.metrics import f1_score

from lora_lab.metrics import MEAN_RETENTION, WORST_RETENTION, draw, retention, together
from lora_lab.results.league import first_screen, league_figures, league_tables
from lora_lab.standings import read_standings
from lora_lab.sweeps.league import FINAL
from lora_lab.tasks import TASKS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_league(tmp_path)
    return tmp_path


def lines(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_each_table_holds_its_recipes_and_every_bound(folder: Path):
    tables = league_tables("tiny", folder, folder)
    plain = lines(tables["league plain"]())
    assert [line[0] for line in plain] == [
        "*One LoRA trained on all tasks, rank 96* (bound)",
        "Exact sum",
        "*Heads alone, no adapter* (bound)",
    ]
    assert plain[1][1:6] == ["nothing", "50.0 (48.0–51.0)", "40.0 (38.0–41.0)", "Emotion", "0.25"]
    repaired = lines(tables["league repaired"]())
    assert repaired[1][:3] == ["Exact sum + Linear repair", "images", "87.0 (85.0–88.0)"]
    trained = lines(tables["league trained"]())
    assert [line[2] for line in trained] == ["98.0 (96.0–99.0)", "94.0 (92.0–95.0)", "20.0 (18.0–21.0)"]
    assert [line[0] for line in lines(tables["bounds"]())] == [
        "One LoRA trained on all tasks, rank 96",
        "Heads alone, no adapter",
    ]


def test_pairs_sets_and_tasks(folder: Path):
    tables = league_tables("tiny", folder, folder)
    assert lines(tables["league pairs"]()) == [["Exact sum", "2", "67.5", "54.0 (emotion)", "emotion + land cover"]]
    sets = {(line[0], line[1]): line[2:] for line in lines(tables["league all pairs and triples"]())}
    assert sets["r16", "pairs"][:3] == ["Exact sum", "2", "67.5"]
    assert sets["r64", "all"][2] == "60.0"
    by_task = lines(tables["league by task"]())
    column = 3 + list(TASKS).index("emotion")
    assert [(line[1], line[column]) for line in by_task if line[2] == "kept, %"] == [
        ("plain", "40.0 (38.0–41.0)"),
        ("repaired", "83.0 (81.0–84.0)"),
        ("trained", "93.0 (91.0–94.0)"),
    ]


def test_the_final_and_the_trials(folder: Path):
    tables = league_tables("tiny", folder, folder)
    best, second = lines(tables["league final"]())
    assert best[:2] == ["Exact sum + Linear repair", "repaired"]
    assert best[3] == "86.0 (84.0–87.0)"
    assert best[6:] == ["83.0 (81.0–84.0)", "81.0 (79.0–82.0)", "Emotion"]
    assert second[6:] == ["–", "–", "–"]
    assert lines(tables["knobs tried"]()) == [["Exact sum", "1", "as it is: 51.0"]]


def test_the_figure_and_the_sentence(folder: Path):
    svg = league_figures("tiny", folder)["league.svg"]
    assert svg.startswith("<svg")
    assert "Exact sum + Linear repair" in svg
    assert "land_cover:r16=1.0" in svg
    rows = [row for row in read_standings("tiny", folder) if row.table != "trained"]
    final = read_standings("tiny", folder, FINAL)
    assert first_screen(rows, final, read_standings("tiny", folder, FINAL, "test")) == (
        "**3 adapters in one ViT, one forward a crop**: merged, they keep 86.0 (84.0–87.0) % of what each scores alone in the "
        "mean, and the worst of them, emotion, 82.0 (80.0–83.0) % (val; on test 83.0 (81.0–84.0) % and 81.0 (79.0–82.0) %). "
        "Made by: exact sum + linear repair. `lora-lab league --merge six` shows it among all methods."
    )


def test_without_records_there_are_empty_tables(tmp_path: Path):
    for table in league_tables("tiny", tmp_path, tmp_path).values():
        assert lines(table()) == []
    assert first_screen([]) == ""


def test_the_mean_retentions_interval_is_that_of_a_bootstrap():
    rng, n = np.random.default_rng(0), 120
    names, images = ("galaxy", "galaxy", "land_cover"), ("one", "one", "other")
    targets = {"one": rng.integers(0, 4, n), "other": rng.integers(0, 10, n)}
    answers = []
    for name, place in zip(names, images, strict=True):
        classes = len(TASKS[name].labels)
        alone, merged = (rng.normal(size=(n, classes)) + k * np.eye(classes)[targets[place]] for k in (3.0, 1.5))
        answers.append((name, place, alone, merged))
    drawn = [[draw(TASKS[name], out, targets[place], None) for out in outs] for name, place, *outs in answers]
    kept = [
        (place, retention(TASKS[name], merged, alone))
        for (name, place, *_), (alone, merged) in zip(answers, drawn, strict=True)
    ]
    found = {score.metric: score for score in together(kept)}

    def written_out(rows: dict[str, np.ndarray]) -> list[float]:
        shares = []
        for _, place, alone, merged in answers:
            at = rows[place]
            scores = [f1_score(targets[place][at], out[at].argmax(1), average="macro") for out in (merged, alone)]
            shares.append(min(100.0, 100 * scores[0] / scores[1]))
        return shares

    everything = written_out(dict.fromkeys(targets, np.arange(n)))
    assert found[MEAN_RETENTION].value == pytest.approx(np.mean(everything), rel=1e-4)
    assert found[WORST_RETENTION].value == pytest.approx(min(everything), rel=1e-4)
    again = [written_out({place: rng.integers(0, n, n) for place in targets}) for _ in range(500)]
    for metric, values in ((MEAN_RETENTION, np.mean(again, 1)), (WORST_RETENTION, np.min(again, 1))):
        low, high = np.percentile(values, (2.5, 97.5))
        assert found[metric].low == pytest.approx(low, abs=1.5)
        assert found[metric].high == pytest.approx(high, abs=1.5)


def test_wins_are_capped_and_a_task_without_retention_leaves_no_mean():
    better, worse = np.array([130.0, 120, 140]), np.array([60.0, 50, 70])
    mean, worst = together([("one", better), ("other", worse)])
    assert (mean.value, worst.value) == (80.0, 60.0)
    assert together([("one", better), ("other", np.array([np.nan, 50, 70]))]) == []
