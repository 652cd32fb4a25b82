"""Learned composition: a task that no adapter knows, from a few labelled images and the adapters that there are."""

from lora_lab.composition.composing import LEARNED, Plan, compose, composed, members_for, scores_of
from lora_lab.composition.few_shot import NewTask, drawn_rows, few_shot, open_new_task
from lora_lab.composition.lesson import Lesson, Trained
from lora_lab.composition.saved import Composition, CompositionCard, WayResult, load_composition, save_composition
from lora_lab.composition.ways import WAYS, Way
from lora_lab.composition.zipped import task_of_zip

__all__ = [
    "LEARNED",
    "WAYS",
    "Composition",
    "CompositionCard",
    "Lesson",
    "NewTask",
    "Plan",
    "Trained",
    "Way",
    "WayResult",
    "compose",
    "composed",
    "drawn_rows",
    "few_shot",
    "load_composition",
    "members_for",
    "open_new_task",
    "save_composition",
    "scores_of",
    "task_of_zip",
]
