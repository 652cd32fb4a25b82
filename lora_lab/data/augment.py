"""Random views of framed crops, a whole batch at a time, with the points that move along.

People's photos are in colour, in any light and at any size; some of the training sets are grey and small. So faces are
turned grey, tinted, blurred and made coarse at random, that no answer may hang on it.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from lora_lab.tasks import Task

# Which point of the 68 each one becomes in a mirrored face.
MIRRORED_68 = np.array(
    [
        *(*range(16, -1, -1), *range(26, 16, -1)),  # jaw, brows
        *(*range(27, 31), *range(35, 30, -1)),  # nose
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # outer lips
        *(64, 63, 62, 61, 60, 67, 66, 65),  # inner lips
    ]
)
# The same for the 98 of WFLW.
MIRRORED_98 = np.array(
    [
        *range(32, -1, -1),  # jaw
        *(*range(46, 41, -1), *range(50, 46, -1)),  # brow: upper edge, lower edge
        *(*range(37, 32, -1), *range(41, 37, -1)),  # the other brow
        *(*range(51, 55), *range(59, 54, -1)),  # nose
        *(*range(72, 67, -1), 75, 74, 73),  # eye: upper lid from corner to corner, lower lid
        *(*range(64, 59, -1), 67, 66, 65),  # the other eye
        *(*range(82, 75, -1), *range(87, 82, -1)),  # outer lips
        *(*range(92, 87, -1), 95, 94, 93),  # inner lips
        *(97, 96),  # pupils
    ]
)
MIRRORED = {68: MIRRORED_68, 98: MIRRORED_98}


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random view: turn in degrees, log scale, shift in shares of the frame, and chances in 0–1."""

    turn: float
    scale: float
    shift: float
    upside_down: bool = False
    grey: float = 0.0
    tint: float = 0.0
    coarse: float = 0.0
    light: float = 0.25


FACE = Augmentation(turn=12, scale=0.10, shift=0.05, grey=0.3, tint=0.3, coarse=0.3)
POINTS = Augmentation(turn=25, scale=0.14, shift=0.08, grey=0.3, tint=0.3, coarse=0.3)
SKY = Augmentation(turn=180, scale=0.12, shift=0.04, upside_down=True, light=0.15)
LAND = Augmentation(turn=180, scale=0.15, shift=0.05, upside_down=True, light=0.2)
GENTLE = Augmentation(turn=10, scale=0.12, shift=0.05)
SQUARES = {"galaxy": SKY, "land_cover": LAND}


def augmentation_for(task: Task) -> Augmentation:
    """The ranges that suit a task: what has no up is turned freely, other squares and faces a little, a face's points more."""
    if task.framing == "square":
        return SQUARES.get(task.name, GENTLE)
    return POINTS if task.kind == "points" else FACE


def random_view(
    pixels: UInt8[Tensor, "B S S 3"],
    targets: Shaped[Tensor, "B *target"],
    size: int,
    how: Augmentation,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "B 3 size size"], Shaped[Tensor, "B *target"]]:
    """A random view of each crop in 0–1, and its target; the same generator state gives the same views.

    Points are mirrored only where it is known which one takes whose place.
    """
    count, stored = pixels.shape[:2]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        # Drawn on the CPU, so that a view does not depend on the device.
        return low + (high - low) * torch.rand(count, *shape, generator=generator).to(pixels.device)

    angle = uniform(-how.turn, how.turn).deg2rad()
    zoom = uniform(-how.scale, how.scale).exp()
    order = MIRRORED.get(targets.shape[1]) if targets.ndim == 3 else None
    may_mirror = torch.tensor(targets.ndim != 3 or order is not None)
    mirror = torch.where((uniform(0, 1) < 0.5) & may_mirror, -1.0, 1.0)
    flip = torch.where((uniform(0, 1) < 0.5) & torch.tensor(how.upside_down), -1.0, 1.0)
    shift = uniform(-how.shift, how.shift, 2)
    # From view to crop: x_crop = R(angle) · zoom · diag(mirror, flip) · x_view + shift, all in frame coordinates.
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    matrix = torch.stack([cos * mirror, -sin * flip, sin * mirror, cos * flip], 1).view(count, 2, 2)
    grid = F.affine_grid(torch.cat([matrix, 2 * shift[:, :, None]], 2), [count, 3, size, size], align_corners=False)
    images = pixels.permute(0, 3, 1, 2).float() / 255
    # The grid's ±1 are the frame's edges; the stored crop reaches further.
    views = F.grid_sample(images, grid * (size / stored), padding_mode="border", align_corners=False)
    if targets.ndim == 3:
        targets = torch.linalg.solve(matrix, (targets - shift[:, None]).transpose(1, 2)).transpose(1, 2)
        if order is not None:
            targets = torch.where(mirror[:, None, None] < 0, targets[:, torch.from_numpy(order)], targets)
    return _recolour(views, how, uniform), targets


def _recolour(views: Float[Tensor, "B 3 H W"], how: Augmentation, uniform) -> Float[Tensor, "B 3 H W"]:
    def chance(share: float) -> Tensor:
        return (uniform(0, 1) < share)[:, None, None, None]

    mean = views.mean((1, 2, 3), keepdim=True)
    contrast, light = uniform(1 - how.light, 1 + how.light, 1, 1, 1), uniform(-how.light, how.light, 1, 1, 1)
    views = (views - mean) * contrast + mean * (1 + light)
    tinted = views * uniform(0.75, 1.25, 3, 1, 1)
    views = torch.where(chance(how.tint), tinted, views)
    views = torch.where(chance(how.grey), views.mean(1, keepdim=True).expand_as(views), views)
    if how.coarse:
        side = views.shape[-1]
        small = F.interpolate(views, size=int(uniform(side * 0.3, side * 0.8)[0]), mode="bilinear", antialias=True)
        coarse = F.interpolate(small, size=(side, side), mode="bicubic")
        views = torch.where(chance(how.coarse), coarse, views)
    return views.clamp(0, 1)
