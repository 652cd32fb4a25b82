"""From a photo to every head's answer, in one merged forward a crop."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageStat
from torch import Tensor

from lora_lab.backbones import Backbone, Deltas, Embedded, Features
from lora_lab.errors import LoraLabError
from lora_lab.faces import Face, Frame, centre_square, see
from lora_lab.photos import times_smaller
from lora_lab.recent import Recent
from lora_lab.records import FacePrediction, PhotoPrediction, Prediction, WholePrediction
from lora_lab.repairs import Mend, apply
from lora_lab.tasks import Head
from lora_lab.tasks.base import Framing

NO_FACE = "no face was found, so the face tasks have no answer"
TURNED = {
    1: "the faces stand sideways and were read after a quarter turn to the left",
    2: "the faces stand upside down and were read after half a turn",
    3: "the faces stand sideways and were read after a quarter turn to the right",
}
FLAT = 0.5
"""Steps of 255: a crop whose colours vary less is blank; of 9,900 land cover images the calmest sea varies by 0.73."""


@dataclass(frozen=True)
class Located:
    """A photo's faces and its centre square, cropped for a backbone; places are in the pixels of the photo's file.

    `blank` says of each face and then of the square whether it shows nothing; `found` is how many faces there are in all, and
    `turn` how many quarter turns against the clock they were read after.
    """

    faces: tuple[Face, ...]
    square: Frame
    face_pixels: Float[Tensor, "faces 3 H W"]
    square_pixels: Float[Tensor, "1 3 H W"]
    blank: tuple[bool, ...] = ()
    found: int = 0
    turn: int = 0
    _embedded: Recent[Backbone, Embedded] = field(default_factory=lambda: Recent(2), repr=False, compare=False)

    @property
    def size_bytes(self) -> int:
        """What keeping it takes, with what two backbones make of it."""
        return 4 * (self.face_pixels.nbytes + self.square_pixels.nbytes)

    @property
    def note(self) -> str | None:
        """What is out of the ordinary about the faces."""
        notes = [TURNED[self.turn]] if self.turn else []
        if self.found > len(self.faces):
            notes.append(f"{self.found} faces were found, and the {len(self.faces)} largest are answered")
        return "; ".join(notes) or None

    def crops(self, backbone: Backbone) -> Embedded:
        """The faces and then the centre square, as a backbone embeds them; kept."""
        return self._embedded.get(backbone, lambda: backbone.embed(torch.cat([self.face_pixels, self.square_pixels])))


def locate(photo: Image.Image, backbone: Backbone) -> Located:
    """Detect the faces of an upright RGB photo and crop all that heads may look at."""
    seen = see(photo)
    square = centre_square(photo)
    crops = [frame.crop(photo, backbone.image_size) for frame in (*(face.frame for face in seen.faces), square)]
    pixels = backbone.preprocess(crops)
    blank = tuple(is_blank(crop) for crop in crops)
    times = times_smaller(photo)
    faces = tuple(face.enlarged(times) for face in seen.faces) if times > 1 else seen.faces
    return Located(faces, square.enlarged(times), pixels[:-1], pixels[-1:], blank, seen.found, seen.turn)


def is_blank(crop: Image.Image) -> bool:
    """Whether a crop shows one flat colour, which is a picture of nothing."""
    return max(ImageStat.Stat(crop).stddev) < FLAT


@dataclass(frozen=True, eq=False)
class MergedModel:
    """A backbone with merged deltas, and the heads that answer, by task. A single adapter is a merge of one.

    `mends` repair what a task's head reads; `own` holds the deltas of tasks that need a forward of their own.
    """

    backbone: Backbone
    deltas: Deltas
    heads: Mapping[str, Head]
    mends: Mapping[str, Mend] = field(default_factory=dict)
    own: Mapping[str, Deltas] = field(default_factory=dict)

    def predict(self, photo: Image.Image) -> PhotoPrediction:
        """Every head's answer about an upright RGB photo."""
        located = locate(photo, self.backbone)
        return self.answer(located, self.features(located))

    def heads_on(self, framing: Framing) -> dict[str, Head]:
        """The heads that look at faces, or at the centre square."""
        return {name: head for name, head in self.heads.items() if head.task.framing == framing}

    def outputs(self, name: str, features: Features) -> Float[Tensor, "B outputs"]:
        """A head's outputs on merged features, mended where it has a mend."""
        return apply(self.heads[name], self.mends.get(name), features)

    @torch.no_grad()
    def features(self, located: Located) -> Features:
        """One merged forward over the crops that a head asks for: the faces, then the centre square. Raises `LoraLabError`."""
        if self.own:
            raise LoraLabError("this is a bound and no merge: it takes a forward for each task, so it reads no photos")
        faces = len(located.faces)
        wanted = slice(0 if self.heads_on("face") else faces, faces + 1 if self.heads_on("square") else faces)
        return self.backbone.encode(located.crops(self.backbone)[wanted], self.deltas)

    @torch.no_grad()
    def answer(self, located: Located, features: Features) -> PhotoPrediction:
        """What the heads make of `features` of these crops. Raises `LoraLabError` where that is not finite."""
        on_faces = {name: (head, self.outputs(name, features).cpu()) for name, head in self.heads_on("face").items()}
        on_square = {name: (head, self.outputs(name, features).cpu()) for name, head in self.heads_on("square").items()}
        for name, (_, out) in {**on_faces, **on_square}.items():
            if not out.isfinite().all():
                raise LoraLabError(
                    f"this merge changes the backbone so much that {name} has no finite answer: take smaller weights"
                )
        faces = tuple(
            FacePrediction(
                box=face.box,
                confidence=face.confidence,
                predictions={name: _decode(head, out[i], face.frame) for name, (head, out) in on_faces.items()},
            )
            for i, face in enumerate(located.faces)
        )
        whole = {name: _decode(head, out[-1], located.square) for name, (head, out) in on_square.items()}
        note = None if not on_faces else located.note if faces else NO_FACE
        return PhotoPrediction(faces=faces, photo=WholePrediction(predictions=whole), note=note)


def _decode(head: Head, output: Float[Tensor, "outputs"], frame: Frame) -> Prediction:
    prediction = head.decode(output)
    if prediction.points is None:
        return prediction
    points = frame.to_photo(np.asarray(prediction.points))
    return prediction.model_copy(update={"points": tuple((float(x), float(y)) for x, y in points)})
