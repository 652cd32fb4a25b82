"""A recipe in the two columns of a record that name it: how it merges, and what.

`ties(density=0.2,scale=1.0)+linear` is the method ties with these knobs and the repair linear after it.
"""

import re

from pydantic import ValidationError

from lora_lab.errors import DataError
from lora_lab.merging import MergeRecipe

_SPELLED = re.compile(r"(?P<method>[^(+]+)(?:\((?P<knobs>[^)]*)\))?(?:\+(?P<repair>.+))?")


def spell_method(recipe: MergeRecipe) -> str:
    """Method, knobs and repair; a plain method is its name."""
    knobs = ",".join(f"{name}={value!r}" for name, value in recipe.knobs.items())
    return recipe.method + (f"({knobs})" if knobs else "") + (f"+{recipe.repair}" if recipe.repair else "")


def read_spelled(method: str, adapters: str, backbone: str) -> MergeRecipe:
    """The recipe of a record's two columns, at seed 0. Raises `DataError`."""
    found = _SPELLED.fullmatch(method)
    try:
        assert found, method
        knobs = dict(part.split("=") for part in (found["knobs"] or "").split(",") if part)
        change = {"method": found["method"], "knobs": knobs, "repair": found["repair"]}
        return MergeRecipe.model_validate({**MergeRecipe.parse(adapters, backbone).model_dump(), **change})
    except (AssertionError, ValueError, ValidationError) as error:
        raise DataError(f"{method!r} names no merge; write e.g. ties(density=0.2)+linear") from error
