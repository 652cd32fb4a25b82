"""What a merge keeps when it is cut to an adapter of a smaller rank: `python benchmarks/cut_ranks.py DATA` writes the record.

The best merge is cut as `lora-lab merge --rank` cuts it, its repairs left as they are, and measured on at most 500 val images a
task; once more by the singular values of its weights alone, which know nothing of inputs. Loss is of the change to the weights,
retention is of each adapter alone. Some minutes on two cores.
"""

import json
import sys
from itertools import product
from pathlib import Path

import torch

from lora_lab import metrics
from lora_lab.evaluation import Images, Testbed
from lora_lab.exports import grams_of, relative_error
from lora_lab.inference import MergedModel
from lora_lab.lab import Lab
from lora_lab.lora import deltas_of, split
from lora_lab.metrics import Draws
from lora_lab.provenance import commit

RECORD = Path(__file__).parent.parent / "assets" / "benchmarks" / "cut_ranks.json"
RANKS = (16, 32, 64, 128, 256)
IMAGES = 500


def kept(model: MergedModel, testbed: Testbed, alone: dict[str, Draws]) -> dict[str, dict[str, float]]:
    """Mean and worst retention with their intervals."""
    shares = []
    for name, drawn in testbed.draw(model).items():
        task = model.heads[name].task
        shares.append((task.folder, metrics.retention(task, drawn, alone[name])))
    return {
        score.metric: {part: round(getattr(score, part), 2) for part in ("value", "low", "high")}
        for score in metrics.together(shares)
    }


def main(data: Path) -> None:
    """Measure all ranks and write the record."""
    lab, testbed = Lab(), Testbed(Images(data, "val", IMAGES), torch.bfloat16)
    recipe = lab.best()
    model, whole = lab.merge(recipe), lab.merger.merged(recipe).deltas
    alone: dict[str, Draws] = {}
    for member in lab.members(recipe):
        alone |= testbed.draw(MergedModel(lab.backbone, deltas_of(member.factors), {member.card.task: member.head}))
    grams, rows = grams_of(lab.members(recipe)), []
    for rank, seen in [(None, None), *product(RANKS, (grams, None))]:
        factors = split(whole, rank, seen)
        cut_down = MergedModel(lab.backbone, deltas_of(factors), model.heads, mends=model.mends)
        row = {"rank": max(pair.rank for pair in factors.values()), "nearest_in": "outputs" if seen else "weights"}
        row["loss"] = round(relative_error(whole, factors), 4)
        rows.append({**row, **kept(cut_down, testbed, alone)})
        sys.stderr.write(f"{rows[-1]}\n")
    record = {"method": recipe.method, "split": "val", "images": IMAGES, "rows": rows, "commit": commit()}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
