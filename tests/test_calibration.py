"""How sure a head may be: on made answers whose truth is known."""

import numpy as np
import pytest
import torch

from lora_lab.calibration import (
    bounds,
    calibrate,
    calibration_error,
    calibration_slope,
    cross_fitted,
    debiased_error,
    fit_temperature,
    gate,
)
from lora_lab.tasks import TASKS, make_head


def sharp_answers(n: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits of seven classes that are `sharpness` times as sure as they are right, and the truth drawn from the right ones."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (n, 7))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = (chances.cumsum(1) < rng.random((n, 1))).sum(1)
    return sharpness * logits, targets


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.5])
def test_the_temperature_takes_back_what_is_too_sure(sharpness: float):
    logits, targets = sharp_answers(6000, sharpness)
    assert fit_temperature(logits, targets) == pytest.approx(sharpness, rel=0.06)
    card = calibrate(TASKS["emotion"], logits, targets)
    assert card is not None
    assert card.ece is not None
    assert card.ece[1] < 2
    assert (card.ece[0] > 5) == (sharpness != 1.0)


def test_the_calibration_error_by_hand():
    # Ten answers sure to 0.8 of which six are right: 20 points apart.
    logits = np.log(np.tile([0.8, 0.2], (10, 1)))
    assert calibration_error(logits, np.array([0] * 6 + [1] * 4)) == pytest.approx(20)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_the_slope_says_how_much_too_sure(sharpness: float):
    logits, targets = sharp_answers(6000, sharpness)
    counts = np.ones((1, len(targets)), np.float32)
    assert calibration_slope(logits, targets, counts)[0] == pytest.approx(1 / sharpness, rel=0.1)
    fitted = cross_fitted(logits, targets)
    assert calibration_slope(fitted, targets, counts)[0] == pytest.approx(1, rel=0.1)
    assert debiased_error(fitted, targets) < 2
    assert (debiased_error(logits, targets) > 10) == (sharpness != 1.0)


def test_a_slope_needs_a_wrong_answer():
    logits, targets = np.tile([3.0, 0.0], (10, 1)) + np.arange(20).reshape(10, 2) / 50, np.array([0] * 9 + [1])
    counts = np.ones((2, 10), np.float32)
    counts[1, 9] = 0
    found = calibration_slope(logits, targets, counts)
    assert np.isfinite(found[0])
    assert np.isnan(found[1])


def test_the_debiased_error_takes_off_what_few_images_add():
    # Right as often as claimed: what is left of the plain error is chance, and the debiased one takes most of it off.
    logits, targets = sharp_answers(300, 1.0)
    assert debiased_error(logits, targets) < 0.7 * calibration_error(logits, targets)


def test_the_bounds_hold_nine_of_ten_new_numbers():
    rng = np.random.default_rng(1)
    low, high = bounds(rng.gamma(2, 3, 2000) - 4)
    new = rng.gamma(2, 3, 50_000) - 4
    assert np.mean((new >= low) & (new <= high)) == pytest.approx(0.9, abs=0.02)
    assert np.mean(new < low) == pytest.approx(np.mean(new > high), abs=0.02)
    task = TASKS["age_regression"]
    truth = rng.uniform(1, 90, 1000)
    answers = (truth + rng.normal(2, 5, 1000) - task.offset) / task.scale
    card = calibrate(task, answers[:, None], truth)
    assert card is not None
    assert card.coverage == pytest.approx(90, abs=2.5)
    assert card.low == pytest.approx(-2 - 1.645 * 5, abs=0.8)
    assert card.high == pytest.approx(-2 + 1.645 * 5, abs=0.8)


def test_points_have_no_calibration():
    assert calibrate(TASKS["landmarks"], np.zeros((3, 136)), np.zeros((3, 68, 2))) is None


def test_the_gate_lets_most_of_its_own_through():
    found = gate(np.linspace(0, 1, 1001))
    assert found.threshold == pytest.approx(0.05)
    assert found.passed == pytest.approx(95, abs=0.2)


def test_a_head_answers_as_sure_as_it_may():
    head = make_head(TASKS["galaxy"], 8)
    output = torch.tensor([0.0, 2.0, 1.0, -1.0])
    before = head.decode(output)
    head.temperature = 2.0
    after = head.decode(output)
    assert after.answer == before.answer
    assert after.probabilities == pytest.approx(dict(zip(head.task.labels, (output / 2).softmax(0).tolist(), strict=True)))
    age = make_head(TASKS["age_regression"], 8)
    assert age.decode(torch.tensor([0.0])).low is None
    age.interval = (-9.0, 12.0)
    answer = age.decode(torch.tensor([0.0]))
    assert (answer.low, answer.value, answer.high) == (26, 35, 47)
