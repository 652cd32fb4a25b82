"""A photo with what the heads found drawn on it."""

from PIL import Image, ImageDraw

from lora_lab.records import PhotoPrediction

PREVIEW_SIDE = 900
MERGED, ALONE, EDGE = "#ffb000", "#dcdcdc", "#1b1b1b"


def preview(photo: Image.Image) -> Image.Image:
    """The photo as it is shown: its longer side 900 pixels, small photos enlarged so that points can be told apart."""
    scale = PREVIEW_SIDE / max(photo.size)
    size = [max(1, round(side * scale)) for side in photo.size]
    return photo.resize(size, Image.Resampling.BICUBIC, reducing_gap=2)


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
