"""Whatever values an error quotes, it is a line that can be printed, and its advice survives."""

import pytest

from lora_lab.errors import LONGEST, DataError, LoraLabError, shortened


@pytest.mark.parametrize("value", ["x" * 100_000, "a\nb\0c\ud800d\u202ee", "\x1b[31mred", "<img src=x>" * 99, ""])
def test_a_line_is_printable_and_bounded_and_ends_as_it_was_written(value: str):
    line = str(DataError(f"{value} is no photo; try another"))
    assert line.endswith("is no photo; try another")
    assert len(line) <= LONGEST
    assert line.isprintable()
    assert line.encode("utf-8")


def test_a_short_line_stays_as_it_is():
    assert str(LoraLabError("no adapter named 'é'; known: émotion × 2 – 3")) == "no adapter named 'é'; known: émotion × 2 – 3"
    assert shortened("x" * LONGEST) == "x" * LONGEST


def test_several_faults_are_a_line_each():
    assert str(LoraLabError("the data has faults:", "one\ntwo", "y" * 400)).splitlines() == [
        "the data has faults:",
        "  one\\ntwo",
        f"  {shortened('y' * 400)}",
    ]
