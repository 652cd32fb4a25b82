"""What the heads found is drawn where it was found."""

import numpy as np
from PIL import Image

from lora_lab.drawing import draw, preview
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
