"""The tables of learned composition from a record written by hand."""

import pytest

from lora_lab.results.composition import CLAIMS, Claim, Difference, claims_table, difference, scores_table, weights_table


def cell(task: str, shots: int | None, seed: int, way: str, value: float) -> dict:
    return {"task": task, "shots": shots, "seed": seed, "way": way, "value": value}


WEIGHTS = {"emotion": 0.7, "landmarks": 0.3}
RECORD = {
    "cells": [
        cell("galaxy", 5, 0, "head_only", 40.0),
        cell("galaxy", 5, 1, "head_only", 44.0),
        cell("galaxy", 5, 0, "uniform", 42.0),
        cell("galaxy", 5, 1, "uniform", 50.0),
        cell("galaxy", 1, 0, "uniform", 30.0),
        cell("galaxy", None, 0, "learned", 80.0) | {"weights": WEIGHTS},
        cell("land_cover", 5, 0, "head_only", 60.0),
    ]
}


def test_a_row_has_the_mean_and_the_spread_over_seeds():
    rows = scores_table(RECORD).splitlines()[2:]
    assert rows == [
        "| Galaxy | 1 | – | 30.0 | – | – | – | 1 |",
        "| Galaxy | 5 | 42.0 ± 2.8 | 46.0 ± 5.7 | – | – | – | 2 |",
        "| Galaxy | all | – | – | 80.0 | – | – | 1 |",
        "| Land cover | 5 | 60.0 | – | – | – | – | 1 |",
    ]


def test_a_difference_is_paired_by_task_shots_and_seed():
    found = difference(RECORD, "uniform", "head_only", (1, 5, 20))
    assert found is not None
    # 2 and 6: their mean is 4, their standard error 2, and t₀.₉₇₅ of one degree of freedom 12.706.
    assert (found.value, found.n) == (4.0, 2)
    assert (found.low, found.high) == pytest.approx((4 - 25.412, 4 + 25.412), abs=1e-3)
    assert difference(RECORD, "learned", "full", (1, 5, 20)) is None


@pytest.mark.parametrize(
    ("bounds", "better", "nearly"),
    [
        ((1.0, 9.0), "holds here", "holds here"),
        ((-9.0, -4.0), "does not hold here", "does not hold here"),
        ((-1.0, 2.0), "open", "holds here"),
        ((-5.0, -1.0), "does not hold here", "open"),
    ],
)
def test_the_rule_of_verdicts(bounds: tuple[float, float], better: str, nearly: str):
    found = Difference(sum(bounds) / 2, *bounds, n=5)
    assert Claim("", "learned", "lora").verdict(found) == better
    assert Claim("", "learned", "lora", line=-3.0).verdict(found) == nearly


def test_what_was_not_measured_has_no_verdict():
    rows = claims_table(RECORD).splitlines()[2:]
    assert len(rows) == len(CLAIMS)
    by_claim = {row.split(" | ")[0].removeprefix("| "): row for row in rows}
    assert by_claim["few shots: uniform composition beats the head alone"].endswith("open |")
    assert by_claim["few shots: learned composition beats LoRA from scratch"].endswith("not measured |")


def test_weights_are_in_percent():
    assert weights_table(RECORD).splitlines()[2:] == ["| Galaxy | all | 70 | 30 | 1 |"]
