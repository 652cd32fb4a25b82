"""Which of six age groups a face belongs to.

Data: UTKFace (Zhang, Song and Qi 2017), aligned colour crops of 200 × 200 pixels without near-duplicates; 11,162 train,
1,487 val and 1,635 test images, 17–30 and 31–45 capped. Ages are estimates checked by a person.
Example: a crop with age 26 has the class 17–30, which is 2.
"""

from lora_lab.tasks.base import Task

SOURCE = "UTKFace (Zhang et al. 2017), near-duplicates removed, 17–30 and 31–45 capped"
LICENCE = "non-commercial research"

TASK = Task(
    name="age_class",
    title="Age group",
    kind="classes",
    labels=("0–3", "4–16", "17–30", "31–45", "46–59", "60+"),
    bins=(0, 4, 17, 31, 46, 60),
    unit="years",
    metrics=("macro_f1", "accuracy"),
    framing="face",
    stored="framed",
    folder="age",
    column="age",
    source=SOURCE,
    licence=LICENCE,
    version="1",
    image_steps=50_000,
)
