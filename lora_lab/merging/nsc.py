"""Layer-wise factors that keep what each adapter reads from falling into the null space of its A.

Source: Lee et al. 2026, "Label-Free Cross-Task LoRA Merging with Null-Space Compression" (arXiv 2603.26317). The null-space
ratio of an activation z is ω(z) = √(1 − (A z)ᵀ(A Aᵀ)⁻¹(A z) / |z|²), the share of its length that A does not see. Training
makes it small, so the merge is sought in which it is small again: the mean over tokens, modules and tasks, on the images of
each task, with that task's own A. No answers are needed, so numbers and points count as classes do.

Ours differs in four ways. The factors of key and value are one. Only keys and values have an A here, and what the last
layer's write is read by none, so the factors of the last layer stay where they start. The ratio is taken with an
orthonormal basis of A's rows, which gives the same number without an inverse. The factors multiply the weights that are set,
with no bound and no decay.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.backbones import Deltas, by_layer
from lora_lab.lora import Factors
from lora_lab.merging.base import Merge, MergeMethod, Selection
from lora_lab.merging.layerwise import KNOBS, groups_of, learn, sight_of

Bases = Mapping[str, list[Float[Tensor, "in r"]]]
"""Orthonormal bases of the rows of an adapter's As that read the same activations, by the module that is watched."""

SMALLEST = 1e-12


def row_space(a: Float[Tensor, "r in"]) -> Float[Tensor, "in rank"]:
    """An orthonormal basis of the rows of A; directions below 1e-6 of the strongest count as none."""
    _, strengths, directions = torch.linalg.svd(a, full_matrices=False)
    return directions[strengths > 1e-6 * strengths.max()].T


def null_space_ratio(z: Float[Tensor, "*tokens in"], basis: Float[Tensor, "in rank"]) -> Float[Tensor, "*tokens"]:
    """The share of z's length outside of the basis, in 0–1."""
    seen = (z @ basis).square().sum(-1) / z.square().sum(-1).clamp(min=SMALLEST)
    # The root has no slope at 0, where an A of full rank sees all.
    return (1 - seen).clamp(min=SMALLEST).sqrt()


def prepare(selection: Selection) -> Merge:
    """The bases of all As. Raises `LoraLabError` where an adapter has no image."""
    groups = groups_of(selection, range(len(selection.names)))
    backbone = sight_of(selection).backbone
    watched = {target: targets[0] for targets in by_layer(backbone).values() for target in targets}
    bases = [_bases(factors, watched, backbone.device) for factors in selection.factors]

    def loss(deltas: Deltas, adapters: tuple[int, ...], pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
        ratios: dict[int, list[Tensor]] = {k: [] for k in adapters}

        def see(name: str, z: Float[Tensor, "B T D"]) -> None:
            z = z.float()
            for k in adapters:
                ratios[k] += [null_space_ratio(z, basis).mean() for basis in bases[k].get(name, [])]

        backbone.watch(pixels, deltas, list(dict.fromkeys(watched.values())), see)
        means = [torch.stack(own).mean() for own in ratios.values()]
        return torch.stack(means).sum() / len(bases)

    return learn(selection, groups, loss, "null-space ratio")


def _bases(factors: Factors, watched: Mapping[str, str], device: torch.device) -> Bases:
    bases: dict[str, list[Tensor]] = {}
    for target, pair in factors.items():
        bases.setdefault(watched[target], []).append(row_space(pair.a).to(device))
    return bases


METHOD = MergeMethod(
    name="nsc",
    title="NSC",
    family="activations",
    paper="arXiv 2603.26317",
    summary="Finds a factor for each adapter and layer with which every adapter still sees most of what its layers read.",
    prepare=prepare,
    needs="images",
    knobs=KNOBS,
    laws=frozenset(("order", "factors")),
)
