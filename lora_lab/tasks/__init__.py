"""The tasks, in the order in which they are shown."""

from lora_lab.catalog import Catalog
from lora_lab.tasks import age_class, age_regression, emotion, galaxy, land_cover, landmarks
from lora_lab.tasks.base import Task
from lora_lab.tasks.heads import Head, load_head, make_head, save_head

__all__ = ["TASKS", "Head", "Task", "load_head", "make_head", "save_head"]

TASKS: Catalog[Task] = Catalog(
    "task",
    (
        (task.name, task)
        for task in (
            age_class.TASK,
            age_regression.TASK,
            emotion.TASK,
            landmarks.TASK,
            galaxy.TASK,
            land_cover.TASK,
        )
    ),
)
