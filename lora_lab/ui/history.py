"""What stood on the page before and after, for the buttons that undo and redo: a step is a gesture, not each value of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

MOST = 50


class Steps(NamedTuple):
    """All values of the page after each gesture: `past` ends with those of now, `ahead` begins with those that redo brings."""

    past: tuple[list[Any], ...] = ()
    ahead: tuple[list[Any], ...] = ()


def settled(steps: Steps, now: Sequence[Any]) -> Steps:
    """The steps with a gesture that has ended at these values; what was undone before it is gone."""
    if steps.past and steps.past[-1] == list(now):
        return steps
    return Steps((*steps.past, list(now))[-MOST:])


def undone(steps: Steps, now: Sequence[Any]) -> Steps:
    """One step back from these values, where there is one.

    Who presses twice before the page shows the first step sends the values of before it; these are no gesture.
    """
    if steps.ahead[:1] != (list(now),):
        steps = settled(steps, now)
    if len(steps.past) < 2:
        return steps
    return Steps(steps.past[:-1], (steps.past[-1], *steps.ahead))


def redone(steps: Steps, now: Sequence[Any]) -> Steps:
    """One step forward, where these values are those that the last undo brought, or those before a redo just now."""
    if steps.past[-2:-1] != (list(now),):
        steps = settled(steps, now)
    return Steps((*steps.past, steps.ahead[0]), steps.ahead[1:]) if steps.ahead else steps


def begun(now: Sequence[Any]) -> Steps:
    """Nothing to go back to before these values."""
    return Steps((list(now),))
