"""Which of four shapes a galaxy has.

Data: SDSS colour cut-outs of 256 × 256 pixels with Galaxy Zoo 1 votes (Lintott et al. 2008, 2011); 2,077 train, 290 val and
396 test images, near balanced but for mergers (106 in all). Credit: Sloan Digital Sky Survey.
Example: a disk with visible arms has the label 3, spiral.
"""

from lora_lab.tasks.base import Task

TASK = Task(
    name="galaxy",
    title="Galaxy",
    kind="classes",
    labels=("edge on or unclear spiral", "elliptical", "merger", "spiral"),
    metrics=("macro_f1", "accuracy"),
    framing="square",
    stored="square",
    folder="galaxy",
    column="label",
    source="SDSS images with Galaxy Zoo 1 votes (Lintott et al. 2008, 2011)",
    licence="CC-BY, credit the Sloan Digital Sky Survey",
    version="1",
    image_steps=16_000,
)
