"""What kind of picture a crop is: a face, a galaxy, or land seen from above; and whether it is any of them.

Each domain is a Gaussian over the plain backbone's pooled feature at length 1, and the score of a crop is minus its Mahalanobis
distance, as Lee et al. 2018 (arXiv 1807.03888) tell strange images from known ones; each domain has a covariance of its own,
shrunk towards a multiple of the identity. A crop is inside where its score passes a threshold that 95 % of val passes.
Since only the plain backbone is asked, the answer is the same whatever is merged, and where that has been run it costs nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lora_lab.backbones import Backbone
from lora_lab.cache import whole_file
from lora_lab.errors import DataError
from lora_lab.tasks import TASKS, Task

DOMAINS_FILE = Path(__file__).parent.parent / "assets" / "domains.safetensors"
FACE = "face"
SHRINKAGE = 0.1
LET_THROUGH = 0.95


@dataclass(frozen=True)
class Judgement:
    """How near a crop is to a domain: minus a distance, so at most 0; and whether that is as near as the domain's own are."""

    score: float
    inside: bool


@dataclass(frozen=True, eq=False)
class Domain:
    """The mean of a domain's features, the inverse Cholesky factor of their covariance, and the least score inside."""

    mean: Float[Tensor, "D"]
    whiten: Float[Tensor, "D D"]
    threshold: float = -float("inf")

    @classmethod
    def fit(cls, features: Float[Tensor, "n D"], shrinkage: float = SHRINKAGE) -> "Domain":
        """A domain from pooled features of its training images; all that is near is inside until `with_threshold`."""
        unit = _unit(features)
        covariance = torch.cov(unit.T)
        spread = covariance.diagonal().mean() * torch.eye(len(covariance), dtype=unit.dtype)
        lower = torch.linalg.cholesky((1 - shrinkage) * covariance + shrinkage * spread)
        return cls(unit.mean(0).float(), torch.linalg.inv(lower).float())

    def with_threshold(self, own: Float[Tensor, "n D"]) -> "Domain":
        """The domain with the threshold that 95 % of these images of its own pass."""
        return Domain(self.mean, self.whiten, float(np.quantile(self.scores(own).numpy(), 1 - LET_THROUGH)))

    def scores(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B"]:
        """Minus the Mahalanobis distance of each pooled feature."""
        apart = _unit(features).float() - self.mean
        return -(apart @ self.whiten.T).norm(dim=1)


@dataclass(frozen=True, eq=False)
class Domains:
    """The domains by name, and the fingerprint of the backbone whose features they are of."""

    domains: Mapping[str, Domain]
    fingerprint: str

    def fits(self, backbone: Backbone) -> bool:
        """Whether they are of this backbone's features; others they cannot judge."""
        return self.fingerprint == backbone.fingerprint

    def judge(self, pooled: Float[Tensor, "B D"]) -> list[dict[str, Judgement]]:
        """For each crop, by its pooled feature on the plain backbone, every domain's judgement by name."""
        scores = {name: domain.scores(pooled.cpu()).tolist() for name, domain in self.domains.items()}
        return [
            {name: Judgement(scores[name][crop], scores[name][crop] >= one.threshold) for name, one in self.domains.items()}
            for crop in range(len(pooled))
        ]

    def save(self, path: Path = DOMAINS_FILE) -> None:
        """Write them; what is read back is rounded to float16."""
        tensors, notes = {}, {"fingerprint": self.fingerprint}
        for name, one in self.domains.items():
            # The factor is triangular, so half of it is enough.
            rows, columns = torch.tril_indices(*one.whiten.shape)
            tensors |= {f"{name}.mean": one.mean, f"{name}.whiten": one.whiten[rows, columns].half()}
            notes[name] = repr(one.threshold)
        with whole_file(path) as part:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata=notes)

    @classmethod
    def read(cls, path: Path = DOMAINS_FILE) -> "Domains":
        """Those that come with LoRA Lab, or others that were saved. Raises `DataError`."""
        try:
            with safe_open(path, "pt") as file:
                notes = dict(file.metadata())
                fingerprint = notes.pop("fingerprint")
                return cls({name: _unpacked(file, name, float(notes[name])) for name in sorted(notes)}, fingerprint)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} holds no domains that can be read: {str(error).splitlines()[0]}") from error


def domain_of(task: Task) -> str | None:
    """The domain that a task's pictures are of, by its framing and its data; none for a task of one's own on whole pictures."""
    if task.framing == "face":
        return FACE
    return task.folder if any(task.folder == one.folder for one in TASKS.values()) else None


def _unit(features: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    features = features.double()
    return features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)


def _unpacked(file: safe_open, name: str, threshold: float) -> Domain:
    mean = file.get_tensor(f"{name}.mean")
    whiten = torch.zeros(len(mean), len(mean))
    rows, columns = torch.tril_indices(*whiten.shape)
    whiten[rows, columns] = file.get_tensor(f"{name}.whiten").float()
    return Domain(mean, whiten, threshold)
