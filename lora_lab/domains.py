"""What kind of picture a crop is: a face, a galaxy, or land seen from above; and whether it is any of them.

A domain's score of a crop has two parts, both read from the plain backbone's pooled feature at length 1. One is minus the
Mahalanobis distance from the domain, as Lee et al. 2018 (arXiv 1807.03888) tell strange pictures from known ones; each domain
has a covariance of its own, shrunk towards a multiple of the identity. The other is a logistic regression between the domains:
by as much as another domain is likelier, in log odds, the score falls. A crop is inside where its score passes a threshold that
95 % of val passes. Since only the plain backbone is asked, the answer is the same whatever is merged, and where that has been
run it costs nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lora_lab.backbones import Backbone
from lora_lab.bundled import bundled
from lora_lab.cache import whole_file
from lora_lab.errors import DataError
from lora_lab.tasks import TASKS, Task

DOMAINS_FILE = bundled("assets", "domains.safetensors")
FACE = "face"
SHRINKAGE = 0.1
LET_THROUGH = 0.95
PULL = 10.0
"""What a unit of log odds in favour of another domain takes off the score, in units of the Mahalanobis distance."""
INVERSE_PENALTY = 100.0


@dataclass(frozen=True)
class Judgement:
    """How near a crop is to a domain, at most 0; and whether that is as near as the domain's own pictures are."""

    score: float
    inside: bool


@dataclass(frozen=True, eq=False)
class Domain:
    """The mean of a domain's features, the inverse Cholesky factor of their covariance, its log odds as a weight for each
    feature and a bias, and the least score inside.
    """

    mean: Float[Tensor, "D"]
    whiten: Float[Tensor, "D D"]
    odds: Float[Tensor, "D"]
    bias: float
    threshold: float = -float("inf")

    def nearness(self, unit: Float[Tensor, "B D"]) -> Float[Tensor, "B"]:
        """Minus the Mahalanobis distance of each feature of length 1."""
        return -((unit - self.mean) @ self.whiten.T).norm(dim=1)


@dataclass(frozen=True, eq=False)
class Domains:
    """The domains by name, two or more, and the fingerprint of the backbone whose features they are of."""

    domains: Mapping[str, Domain]
    fingerprint: str

    @classmethod
    def fit(
        cls, learned: Mapping[str, Float[Tensor, "_ D"]], own: Mapping[str, Float[Tensor, "_ D"]], fingerprint: str
    ) -> "Domains":
        """From pooled features of each domain's training images, with thresholds from those of others of its own."""
        odds, biases = _log_odds([_unit(learned[name]) for name in learned])
        found = {}
        for place, (name, features) in enumerate(learned.items()):
            mean, whiten = _gaussian(_unit(features))
            found[name] = Domain(mean, whiten, odds[place], float(biases[place]))
        free = cls(found, fingerprint)
        least = {name: float(np.quantile(free.scores(own[name])[name].numpy(), 1 - LET_THROUGH)) for name in found}
        return cls({name: replace(one, threshold=least[name]) for name, one in found.items()}, fingerprint)

    def fits(self, backbone: Backbone) -> bool:
        """Whether they are of this backbone's features; others they cannot judge."""
        return self.fingerprint == backbone.fingerprint

    def scores(self, pooled: Float[Tensor, "B D"]) -> dict[str, Float[Tensor, "B"]]:
        """Every domain's score of each crop, by its pooled feature on the plain backbone."""
        unit = _unit(pooled.cpu())
        odds = torch.stack([unit @ one.odds + one.bias for one in self.domains.values()])
        found = {}
        for place, (name, one) in enumerate(self.domains.items()):
            rest = torch.cat([odds[:place], odds[place + 1 :]]).amax(0)
            found[name] = one.nearness(unit) + PULL * (odds[place] - rest).clamp(max=0)
        return found

    def judge(self, pooled: Float[Tensor, "B D"]) -> list[dict[str, Judgement]]:
        """For each crop, by its pooled feature on the plain backbone, every domain's judgement by name."""
        scores = {name: some.tolist() for name, some in self.scores(pooled).items()}
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
            tensors |= {f"{name}.mean": one.mean, f"{name}.whiten": one.whiten[rows, columns].half(), f"{name}.odds": one.odds}
            notes[name] = f"{one.bias!r} {one.threshold!r}"
        with whole_file(path) as part:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata=notes)

    @classmethod
    def read(cls, path: Path = DOMAINS_FILE) -> "Domains":
        """Those that come with LoRA Lab, or others that were saved. Raises `DataError`."""
        try:
            with safe_open(path, "pt") as file:
                notes = dict(file.metadata())
                fingerprint = notes.pop("fingerprint")
                return cls({name: _unpacked(file, name, notes[name]) for name in sorted(notes)}, fingerprint)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} holds no domains that can be read: {str(error).splitlines()[0]}") from error


def nearest(judged: Mapping[str, Judgement]) -> str:
    """The name of the domain that a crop is nearest to, be it inside or not."""
    return max(judged, key=lambda name: judged[name].score)


def domain_of(task: Task) -> str | None:
    """The domain that a task's pictures are of, by its framing and its data; none for a task of one's own on whole pictures."""
    if task.framing == "face":
        return FACE
    return task.folder if any(task.folder == one.folder for one in TASKS.values()) else None


def _unit(features: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    features = features.float()
    return features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)


def _gaussian(unit: Float[Tensor, "n D"]) -> tuple[Float[Tensor, "D"], Float[Tensor, "D D"]]:
    covariance = torch.cov(unit.double().T)
    spread = covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    lower = torch.linalg.cholesky((1 - SHRINKAGE) * covariance + SHRINKAGE * spread)
    return unit.mean(0), torch.linalg.inv(lower).float()


def _log_odds(units: list[Float[Tensor, "_ D"]]) -> tuple[Float[Tensor, "domains D"], Float[Tensor, "domains"]]:
    from sklearn.linear_model import LogisticRegression  # takes a second, and who only judges needs none

    labels = np.repeat(np.arange(len(units)), [len(one) for one in units])
    fit = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000, class_weight="balanced").fit(torch.cat(units).numpy(), labels)
    weights, biases = (torch.from_numpy(part).float() for part in (fit.coef_, fit.intercept_))
    # Of two domains, only the odds of the second are fitted.
    return (weights, biases) if len(units) > 2 else (torch.cat([-weights, weights]) / 2, torch.cat([-biases, biases]) / 2)


def _unpacked(file: safe_open, name: str, note: str) -> Domain:
    mean, odds, packed = (file.get_tensor(f"{name}.{part}") for part in ("mean", "odds", "whiten"))
    bias, threshold = map(float, note.split())
    whiten = torch.zeros(len(mean), len(mean))
    rows, columns = torch.tril_indices(*whiten.shape)
    whiten[rows, columns] = packed.float()
    return Domain(mean, whiten, odds, bias, threshold)
