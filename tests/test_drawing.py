"""What the heads found is drawn where it was found."""

import numpy as np
from PIL import Image

from lora_lab.drawing import CHANGED, MOST_OPAQUE, draw, draw_changes, preview
from lora_lab.records import FacePrediction, PhotoPrediction, Prediction, WholePrediction


def found(x: float, y: float) -> PhotoPrediction:
    points = Prediction(answer="1 point", points=((x, y),))
    face = FacePrediction(box=(20, 10, 60, 60), confidence=0.9, predictions={"landmarks": points})
    return PhotoPrediction(faces=(face,), photo=WholePrediction(predictions={}))


def test_boxes_and_points_lie_where_they_belong():
    photo = Image.new("RGB", (300, 150), "black")
    shown = preview(photo)
    assert shown.size == (900, 450)
    drawn = np.asarray(draw(shown, 3.0, found(40, 30), found(50, 40)))
    assert drawn[90, 120].tolist() == [255, 176, 0]  # merged, in the accent colour
    assert drawn[120, 150].tolist() == [220, 220, 220]  # alone, pale
    assert drawn[100, 60].tolist() == [255, 176, 0]  # the left side of the box
    assert drawn[400, 800].tolist() == [0, 0, 0]
    assert np.asarray(shown).max() == 0  # the preview itself stays clean


def test_changed_patches_lie_over_their_square_and_the_most_changed_are_covered():
    shown = Image.new("RGB", (600, 600), "black")
    patches = np.zeros((4, 4), np.float32)
    patches[3, 3] = 0.8
    drawn = np.asarray(draw_changes(shown, 2.0, (150, 150, 200), patches))
    assert drawn[460, 460].tolist() == [round(c * MOST_OPAQUE / 255) for c in CHANGED]
    assert drawn[300, 300].tolist() == [0, 0, 0]  # inside, not changed
    assert drawn[560, 560].tolist() == [0, 0, 0]  # outside
    assert np.asarray(shown).max() == 0
