"""How many years old a face looks.

Data: as for the age groups, UTKFace crops with an age of 1–116 years.
Example: a crop with age 26 has the target 26.0.
"""

from lora_lab.tasks.age_class import LICENCE, SOURCE
from lora_lab.tasks.base import Task

TASK = Task(
    name="age_regression",
    title="Age in years",
    kind="number",
    unit="years",
    offset=35.0,
    scale=25.0,
    metrics=("rmse", "mae"),
    framing="face",
    stored="framed",
    folder="age",
    column="age",
    source=SOURCE,
    licence=LICENCE,
    version="1",
    image_steps=36_000,
)
