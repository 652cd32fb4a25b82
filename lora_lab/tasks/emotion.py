"""Which of seven expressions a face shows.

Data: FER2013 faces, grey, 48 × 48 pixels, with the majority label of ten FER+ taggers (Barsoum et al. 2016, arXiv
1608.01041); 12,130 train, 2,208 val and 2,417 test images, train capped at 2,400 a class. The official split has
near-duplicates on both sides, so this is another. Disgust and fear are rare.
Example: a face that 8 of 10 taggers call happy has the label 3.
"""

from lora_lab.tasks.base import Task

TASK = Task(
    name="emotion",
    title="Emotion",
    kind="classes",
    labels=("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
    metrics=("macro_f1", "accuracy"),
    framing="face",
    stored="padded_face",
    folder="emotion",
    column="label",
    source="FER2013 faces with FER+ majority labels (Barsoum et al. 2016)",
    licence="FER+ votes MIT; images gathered from the web, research use",
    version="1",
    image_steps=58_000,
)
