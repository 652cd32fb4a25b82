"""Where 68 points of a face lie: jaw, brows, nose, eyes and mouth, in the order of 300-W.

Data: AFW and part of Helen with the 300-W annotation (Sagonas et al. 2016); 1,076 train, 131 val and 200 test images of
at most 256 pixels. Pre-training only: 4,232 YouTube Faces frames whose points look machine-made.
NME is the mean distance over the distance of the outer eye corners, in percent, from a detector's box.
Example: a crop whose 37th point, the outer corner of one eye, lies at (75.3, 101.9) pixels.
"""

from lora_lab.tasks.base import Task

TASK = Task(
    name="landmarks",
    title="Landmarks",
    kind="points",
    points=68,
    unit="px",
    metrics=("nme",),
    framing="face",
    stored="face",
    folder="landmarks",
    column="points",
    pretrain_split="extra_train_pseudo",
    source="AFW and Helen with 300-W points (Sagonas et al. 2016); pre-trained on YouTube Faces frames",
    licence="non-commercial research",
    version="1",
    image_steps=72_000,
    pretrain_steps=18_000,
)
