"""Representation Surgery: a small bottleneck takes from the merged feature what the merge has put into it.

Source: Yang et al. 2024, "Representation Surgery for Multi-Task Model Merging" (arXiv 2402.02705): z − W_up ReLU(W_down z) of
rank 16, trained on images without labels to the least mean absolute distance to the adapter's own feature. Ours trains on
features that were made once, so it takes a second; the learning rate falls along half a cosine.
"""

import math

import torch
import torch.nn.functional as F

from lora_lab.backbones import Features
from lora_lab.repairs.base import Damage, Mend, Repair

RANK, STEPS, BATCH, RATE = 16, 1000, 128, 1e-3


class SurgeryMend(Mend):
    """z − W_up ReLU(W_down z)."""

    def forward(self, features: Features) -> Features:
        bent = F.relu(features.pooled @ self.down.T) @ self.up.T  # type: ignore[union-attr]
        return Features(features.pooled - bent, features.patches)


def fit(damage: Damage) -> Mend:
    """The mend of a task, from its seed."""
    generator = torch.Generator().manual_seed(damage.seed)
    merged, own = damage.merged.pooled.cpu().float(), damage.alone.cpu().float()
    width = merged.shape[1]
    down = (torch.randn(RANK, width, generator=generator) / math.sqrt(width)).requires_grad_()
    up = torch.zeros(width, RANK, requires_grad=True)
    optimiser = torch.optim.Adam([down, up], lr=RATE)
    for step in range(STEPS):
        rows = torch.randint(len(merged), (min(BATCH, len(merged)),), generator=generator)
        z = merged[rows]
        loss = F.l1_loss(z - F.relu(z @ down.T) @ up.T, own[rows])
        optimiser.param_groups[0]["lr"] = 0.5 * RATE * (1 + math.cos(math.pi * step / STEPS))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    mend = SurgeryMend()
    mend.keep(down=down, up=up)
    return mend


SURGERY = Repair(
    name="surgery",
    title="Representation Surgery",
    paper="arXiv 2402.02705",
    summary="Takes a learned bottleneck of rank 16 from the merged feature, trained on images without labels.",
    needs="images",
    fit=fit,
    mend=SurgeryMend,
)
