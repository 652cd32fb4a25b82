"""Files made from records and adapters, so that the page opens at once: `make records` makes them anew.

The forecast's fits, and what the weights of the adapters say alone.
"""

import sys
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from lora_lab.backbones import DEFAULT
from lora_lab.cache import whole_file
from lora_lab.findings import EXACT, RETENTION, Findings, Merge
from lora_lab.forecast import fit_all
from lora_lab.interference import MEASURES, RankCorrelation, by_pair, rank_correlation, weight_interference
from lora_lab.lab import Lab
from lora_lab.records import RECORDS, RecordFile
from lora_lab.sweeps import Scope, random_recipes

if TYPE_CHECKING:
    import pandas as pd

WEIGHTS = RECORDS.parent / "weights.parquet"
RANKS = (16, 64)


@cache
def read_weights() -> "pd.DataFrame":
    """What the weights say alone: a row for each measure, rank, directed pair and target module."""
    import pandas as pd

    return pd.read_parquet(WEIGHTS)


def harm(findings: Findings, rank: int) -> dict[tuple[str, str], float]:
    """Measured interference, 100 − retention in percent, of each task with each partner by the exact sum."""
    found = {
        (task, partner): findings.score(task, Merge((task, partner), rank, EXACT), RETENTION)
        for task in findings.names
        for partner in findings.names
        if task != partner
    }
    return {pair: 100 - one.value for pair, one in found.items() if one}


@cache
def predictors(findings: Findings, rank: int) -> dict[str, RankCorrelation]:
    """How well each measure of the weights ranks the directed pairs as the measured interference does, by its name."""
    weights = read_weights()
    pairs = by_pair(weights[weights["rank"] == rank])
    measured = harm(findings, rank)
    found = {}
    for name in MEASURES:
        of_measure = pairs[pairs.measure == name]
        places = list(zip(of_measure.task, of_measure.partner, strict=True))
        harmed = np.array([measured.get(place, np.nan) for place in places])
        found[name] = rank_correlation(of_measure.value.to_numpy(), harmed, list(of_measure.task), list(of_measure.partner))
    return found


def weights_frame(lab: Lab) -> "pd.DataFrame":
    """What `read_weights` reads, computed."""
    import pandas as pd

    frames = []
    for rank in RANKS:
        factors = {name: lab.adapter(name, rank).factors for name, ranks in lab.ranks().items() if rank in ranks}
        frames.append(weight_interference(factors).assign(rank=rank))
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(value=frame.value.round(5))


def write_all(lab: Lab) -> None:
    """Make the files anew."""
    findings = Findings(RecordFile().read(), lab.backbone.name)
    with whole_file(WEIGHTS) as part:
        weights_frame(lab).to_parquet(part, index=False, compression="zstd")
    fit_all(findings, random_recipes(Scope(lab.backbone.name, findings.names))).write()


if __name__ == "__main__":
    write_all(Lab(DEFAULT))
    sys.stdout.write("wrote the forecast and what the weights say\n")
