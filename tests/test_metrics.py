"""Metrics against scikit-learn, and intervals against a bootstrap written out."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, recall_score, root_mean_squared_error

from lora_lab.metrics import better, compare, detection_rate, draw, draw_counts, gain, score, values
from lora_lab.tasks import TASKS


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 300)
    outputs = rng.normal(size=(300, 4)) + 1.5 * np.eye(4)[targets]
    return outputs, targets


def test_classes(answers: tuple[np.ndarray, np.ndarray]):
    outputs, targets = answers
    scores = {(s.metric, s.label): s for s in score(TASKS["galaxy"], outputs, targets, None)}
    said = outputs.argmax(1)
    assert scores["macro_f1", None].value == pytest.approx(100 * f1_score(targets, said, average="macro"))
    assert scores["accuracy", None].value == pytest.approx(100 * accuracy_score(targets, said))
    recalls = recall_score(targets, said, average=None)  # pyright: ignore[reportArgumentType] (its stubs lack None)
    assert isinstance(recalls, np.ndarray)
    for label, recall in zip(TASKS["galaxy"].labels, recalls, strict=True):
        assert scores["recall", label].value == pytest.approx(100 * recall)


def test_numbers():
    rng = np.random.default_rng(0)
    task = TASKS["age_regression"]
    targets, outputs = rng.uniform(1, 90, 200), rng.normal(size=(200, 1))
    years = outputs[:, 0] * task.scale + task.offset
    found = values(task, outputs, targets, None)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(targets, years))
    assert found["mae"] == pytest.approx(mean_absolute_error(targets, years))


def test_points_by_hand():
    targets = np.zeros((2, 68, 2), np.float32)
    outputs = targets.copy()
    outputs[0, :, 0], outputs[1, :34, 1] = 0.03, 0.04  # mean distances 0.03 and 0.02
    found = values(TASKS["landmarks"], outputs.reshape(2, -1), targets, np.array([0.3, 0.5]))
    assert found["nme"] == pytest.approx((10 + 4) / 2)


def test_intervals_are_those_of_a_bootstrap(answers: tuple[np.ndarray, np.ndarray]):
    outputs, targets = answers
    found = next(s for s in score(TASKS["galaxy"], outputs, targets, None, seed=5) if s.metric == "macro_f1")
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(400):
        rows = rng.integers(0, 300, 300)
        drawn.append(100 * f1_score(targets[rows], outputs[rows].argmax(1), average="macro"))
    low, high = np.percentile(drawn, (2.5, 97.5))
    assert found.low == pytest.approx(low, abs=1.2)
    assert found.high == pytest.approx(high, abs=1.2)
    assert found.low < found.value < found.high


def test_the_same_images_are_drawn_for_all_that_is_compared():
    np.testing.assert_array_equal(draw_counts(50, 3), draw_counts(50, 3))
    assert (draw_counts(50, 3).sum(1) == 50).all()


def test_a_class_that_is_nowhere_has_no_part_in_the_mean():
    targets = np.array([0, 0, 1, 3])
    found = values(TASKS["galaxy"], np.eye(4)[targets], targets, None)
    assert found["macro_f1"] == 100


def test_better_follows_the_metrics_direction():
    assert better(TASKS["galaxy"], 71, 70)
    assert not better(TASKS["landmarks"], 7.1, 7.0)
    assert better(TASKS["landmarks"], 7.1, None)


def test_a_merge_is_compared_on_the_same_draws():
    rng = np.random.default_rng(1)
    task, n = TASKS["age_regression"], 120
    targets = rng.uniform(1, 90, n)
    near, merged, far = (((targets + rng.normal(0, sd, n)) - task.offset)[:, None] / task.scale for sd in (4, 8, 16))
    alone, now, head = (draw(task, outputs, targets, None) for outputs in (near, merged, far))
    found = {score.metric: score for score in compare(task, now, alone, head)}
    rmse = [np.sqrt(draw_counts(n, 0) @ ((x[:, 0] * task.scale + task.offset - targets) ** 2) / n) for x in (near, merged, far)]
    for name, drawn in {
        "difference": rmse[1] - rmse[0],
        "retention": 100 * rmse[0] / rmse[1],
        "gain_kept": 100 * (rmse[1] - rmse[2]) / (rmse[0] - rmse[2]),
    }.items():
        low, high = np.percentile(drawn, (2.5, 97.5))
        assert found[name].low == pytest.approx(low, rel=1e-4)
        assert found[name].high == pytest.approx(high, rel=1e-4)
        assert found[name].low < found[name].value < found[name].high
    assert gain(task, alone, head).value == pytest.approx(rmse[2].mean() - rmse[0].mean(), rel=0.02)


def test_an_adapter_beside_itself_keeps_all_and_pairs_have_no_noise(answers: tuple[np.ndarray, np.ndarray]):
    outputs, targets = answers
    task = TASKS["galaxy"]
    drawn = draw(task, outputs, targets, None)
    worse = draw(task, np.zeros_like(outputs), targets, None)
    found = {score.metric: score for score in compare(task, drawn, drawn, worse)}
    assert (found["retention"].low, found["retention"].value, found["retention"].high) == (100, 100, 100)
    assert found["difference"].value == 0
    assert found["gain_kept"].low == found["gain_kept"].high == 100


def test_a_share_of_no_gain_is_left_out(answers: tuple[np.ndarray, np.ndarray]):
    outputs, targets = answers
    task = TASKS["galaxy"]
    drawn = draw(task, outputs, targets, None)
    assert {score.metric for score in compare(task, drawn, drawn, drawn)} == {"difference", "retention"}


def test_the_detection_rate_counts_misses():
    found = detection_rate(np.array([True] * 90 + [False] * 10))
    assert found.value == 90
    assert 80 < found.low < 90 < found.high < 98


def test_a_share_of_nothing_is_no_number():
    task, targets = TASKS["galaxy"], np.array([0, 1])
    wrong, right = (draw(task, np.eye(10)[answers], targets, None) for answers in ([1, 0], [0, 1]))
    assert [score.metric for score in compare(task, right, wrong, wrong)] == ["difference"]
