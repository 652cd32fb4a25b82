"""A photo with what the heads found drawn on it."""

import numpy as np
from PIL import Image, ImageDraw

from lora_lab.records import PhotoPrediction

PREVIEW_SIDE = 900
MERGED, ALONE, EDGE = "#ffb000", "#dcdcdc", "#1b1b1b"
CHANGED, MOST_OPAQUE = (213, 94, 0), 215


def preview(photo: Image.Image) -> Image.Image:
    """The photo as it is shown: its longer side 900 pixels, small photos enlarged so that points can be told apart."""
    scale = PREVIEW_SIDE / max(photo.size)
    size = [max(1, round(side * scale)) for side in photo.size]
    return photo.resize(size, Image.Resampling.BICUBIC, reducing_gap=2)


def draw_changes(shown: Image.Image, scale: float, place: tuple[float, float, float], patches: np.ndarray) -> Image.Image:
    """Lay the change of each patch over a square of the photo, from the least, clear, to the most; both stand beside it.

    `place` is the square's centre x and y and its side, in the photo's pixels.
    """
    x, y, side = (scale * value for value in place)
    size, corner = max(1, round(side)), (round(x - side / 2), round(y - side / 2))
    least, most = float(patches.min()), float(patches.max())
    opaque = Image.fromarray((MOST_OPAQUE * (patches - least) / max(most - least, 1e-9)).astype(np.uint8))
    canvas = shown.copy()
    canvas.paste(Image.new("RGB", (size, size), CHANGED), corner, opaque.resize((size, size), Image.Resampling.NEAREST))
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((*corner, corner[0] + size, corner[1] + size), outline=EDGE, width=1)
    words = f"change {least:.2f} to {most:.2f}"
    pen.text(
        (max(4, corner[0] + 4), max(2, corner[1] + 2)), words, fill="white", stroke_width=2, stroke_fill=EDGE, font_size=18
    )
    return canvas


def draw(shown: Image.Image, scale: float, merged: PhotoPrediction, alone: PhotoPrediction | None = None) -> Image.Image:
    """Boxes and points on a preview that is `scale` times the photo; an adapter's own points stand pale beneath."""
    canvas = shown.copy()
    pen = ImageDraw.Draw(canvas)
    for number, face in enumerate(merged.faces, 1):
        box = [scale * side for side in face.box]
        pen.rectangle(box, outline=EDGE, width=4)
        pen.rectangle(box, outline=MERGED, width=2)
        pen.text((box[0] + 4, box[1] + 2), str(number), fill=MERGED, stroke_width=2, stroke_fill=EDGE, font_size=18)
    for prediction, colour in ((alone, ALONE), (merged, MERGED)):
        for face in prediction.faces if prediction else ():
            size = max(1.5, scale * (face.box[2] - face.box[0]) / 65)
            for answer in face.predictions.values():
                for x, y in answer.points or ():
                    x, y = scale * x, scale * y
                    pen.ellipse((x - size, y - size, x + size, y + size), fill=colour, outline=EDGE if size > 3 else None)
    return canvas
