"""What a recipe says about a photo, with the time that each part took."""

from dataclasses import dataclass, field
from typing import Any

from lora_lab.backbones import Features
from lora_lab.merging import MergeRecipe
from lora_lab.records import Frozen, PhotoPrediction


class Milliseconds(Frozen):
    """How long each part of an answer took; detection is 0 for a photo that was seen lately."""

    detect: float
    merge: float
    forward: float
    heads: float


@dataclass(frozen=True)
class Answer:
    """What a recipe says about a photo."""

    prediction: PhotoPrediction
    recipe: MergeRecipe
    milliseconds: Milliseconds
    features: Features = field(compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """All of it, with only such fields as have a value."""
        return {
            **self.prediction.model_dump(exclude_none=True),
            "recipe": self.recipe.model_dump(),
            "milliseconds": self.milliseconds.model_dump(),
        }
