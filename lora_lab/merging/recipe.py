"""The recipe of a merge: all that is needed to make it again, as JSON that fits in a link."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from lora_lab.cache import small_text
from lora_lab.errors import DataError, fault_text, shortened
from lora_lab.names import AdapterName, BackboneName, KnobName, MethodName, RepairName
from lora_lab.records import Frozen

LOWEST, HIGHEST = -1.0, 2.0
MOST_ADAPTERS, MOST_LAYERS, MOST_KNOBS, HIGHEST_RANK = 64, 256, 32, 4096
LONGEST = 1 << 16
"""Characters of a recipe, in either form; what is longer is read no further."""

LARGEST_FACTOR = 100.0
"""How much more or less an adapter may count in one layer; far beyond that no merge has a finite answer."""

Number = Annotated[float, Field(allow_inf_nan=False)]
Factor = Annotated[Number, Field(ge=-LARGEST_FACTOR, le=LARGEST_FACTOR)]


class RecipeAdapter(Frozen):
    """One adapter of a merge: its name, its rank, and its weight in −1 to 2.

    `layers` holds a factor for each layer, from the first to the last, by which the weight is multiplied there; none means 1.
    """

    name: AdapterName
    rank: Annotated[int, Field(gt=0, le=HIGHEST_RANK)] = 16
    weight: Annotated[float, Field(ge=LOWEST, le=HIGHEST, allow_inf_nan=False)] = 1.0
    layers: Annotated[tuple[Factor, ...], Field(max_length=MOST_LAYERS)] = ()


class MergeRecipe(Frozen):
    """Which adapters, with which weights, by which method, with which knobs and seed; `repair` names what mends the features.

    An adapter at weight 0 changes nothing, but its head answers.
    """

    backbone: BackboneName = "dinov2-small"
    adapters: tuple[RecipeAdapter, ...] = Field(min_length=1, max_length=MOST_ADAPTERS)
    method: MethodName = "exact"
    knobs: dict[KnobName, Number] = Field(default_factory=dict, max_length=MOST_KNOBS)
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    repair: RepairName | None = None

    @model_validator(mode="after")
    def _one_adapter_a_task(self) -> "MergeRecipe":
        twice = sorted(name for name, count in Counter(adapter.name for adapter in self.adapters).items() if count > 1)
        if twice:
            raise ValueError(f"{', '.join(twice)} named twice; a task answers with one head, so choose one rank")
        return self

    @property
    def key(self) -> str:
        """A hash that is the same for the same recipe, in whatever order its adapters are named."""
        ordered = self.model_copy(update={"adapters": tuple(sorted(self.adapters, key=lambda a: a.name))})
        # What is not used is left out, so that a field that is added later leaves the keys of older recipes as they were.
        unused: dict[str, Any] = {} if self.repair else {"repair": True}
        if not any(a.layers for a in self.adapters):
            unused["adapters"] = {"__all__": {"layers"}}
        return hashlib.sha256(ordered.model_dump_json(exclude=unused).encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """A short line for people, such as "age_class:r16=1 + landmarks:r16=0.5"."""
        return " + ".join(f"{a.name}:r{a.rank}={a.weight:g}" for a in self.adapters)

    @property
    def spelled(self) -> str:
        """The adapters as `parse` reads them, weights in full."""
        return ",".join(f"{a.name}:r{a.rank}={a.weight!r}" for a in self.adapters)

    def changed(self, **changes: Any) -> "MergeRecipe":
        """It with other values, which are checked as those of a new one are. Raises `DataError`."""
        try:
            return MergeRecipe.model_validate(self.model_dump() | changes)
        except ValidationError as error:
            raise DataError(f"this is no recipe: {faults(error)}") from error

    @classmethod
    def read(cls, path: Path) -> "MergeRecipe":
        """A recipe from a JSON file. Raises `DataError`."""
        text = small_text(path, LONGEST)
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise DataError(f"{path} is no recipe: {faults(error)}") from error

    @classmethod
    def from_json(cls, text: str) -> "MergeRecipe":
        """A recipe from its JSON. Raises `DataError`."""
        _check_length(text)
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise DataError(f"this is no recipe: {faults(error)}") from error

    @classmethod
    def parse(cls, text: str, backbone: str) -> "MergeRecipe":
        """A recipe from "age_class=1,landmarks:r16=0.5"; rank 16 and weight 1 where none is named. Raises `DataError`."""
        _check_length(text)
        adapters = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, weight = part.partition("=")
            name, _, rank = name.partition(":")
            adapters.append({"name": name.strip(), "rank": rank.strip().removeprefix("r") or 16, "weight": weight or 1.0})
        try:
            return cls.model_validate({"backbone": backbone, "adapters": adapters})
        except ValidationError as error:
            raise DataError(
                f"{shortened(text, 60)!r} names no merge: {faults(error)}; write e.g. age_class=1,landmarks:r16=0.5"
            ) from error


def _check_length(text: str) -> None:
    if len(text) > LONGEST:
        raise DataError(
            f"a recipe of {len(text)} characters is too long: one has at most {LONGEST}, for {MOST_ADAPTERS} adapters"
        )


def faults(error: ValidationError) -> str:
    """The faults of a validation in one line, those beyond the third counted."""
    found = error.errors(include_url=False, include_input=False)
    # What is wrong inside a list leaves the list too short, which nobody has to be told.
    inside = {one["loc"][0] for one in found if len(one["loc"]) > 1}
    found = [one for one in found if one["type"] != "too_short" or one["loc"][0] not in inside]
    told = [fault_text(one) for one in found[:3]]
    return "; ".join([*told, f"and {len(found) - 3} more"] if len(found) > 3 else told)
