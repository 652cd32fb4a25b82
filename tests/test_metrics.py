"""Metrics against scikit-learn, and intervals against a bootstrap written out."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, recall_score, root_mean_squared_error

from lora_lab.metrics import better, draw_counts, score, values
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
