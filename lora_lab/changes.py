"""Which patches a merge changes: how far its encoder has moved from the plain backbone, place by place."""

from dataclasses import dataclass
from math import isqrt

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Features
from lora_lab.faces import Frame
from lora_lab.inference import Located
from lora_lab.records import PhotoPrediction


@dataclass(frozen=True, eq=False)
class Change:
    """1 − cosine between the merged and the plain feature of each patch of a crop, row by row: 0 is unchanged, 2 the most."""

    frame: Frame
    patches: Float[Tensor, "rows columns"]


def changes(
    located: Located, prediction: PhotoPrediction, merged: Features, base: Features
) -> tuple[list[Change], Change | None]:
    """The changes of every face, and of the centre square; those that no head of the merge looks at are left out.

    `base` holds the features of all crops, `merged` of those that the heads of `prediction` look at.
    """
    count = len(located.faces)
    on_faces = any(face.predictions for face in prediction.faces)
    faces = [_change(face.frame, merged.patches[i], base.patches[i]) for i, face in enumerate(located.faces) if on_faces]
    if not prediction.photo.predictions:
        return faces, None
    return faces, _change(located.square, merged.patches[-1], base.patches[count])


def _change(frame: Frame, merged: Float[Tensor, "N D"], base: Float[Tensor, "N D"]) -> Change:
    side = isqrt(len(merged))
    return Change(frame, (1 - F.cosine_similarity(merged, base, dim=-1)).view(side, side).cpu())
