"""What the sliders showed before, for the button that takes a step back."""

from collections.abc import Sequence

MOST = 50

Past = list[str]
"""Recipes as JSON, the latest last."""


def remembered(past: Sequence[str], recipe: str) -> Past:
    """The past with one more recipe, unless it is the latest already."""
    return list(past) if past and past[-1] == recipe else [*past, recipe][-MOST:]


def back(past: Sequence[str], now: str) -> tuple[Past, str | None]:
    """The past without what is shown now, and the recipe before it; none where there is none."""
    rest = list(past)
    while rest and rest[-1] == now:
        rest.pop()
    return rest, rest[-1] if rest else None
