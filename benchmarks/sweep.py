"""What a sweep costs beside its forwards, and what bfloat16 changes: `python benchmarks/sweep.py DATA`.

Overhead: a few pairs by `Sweep.run`, records written, against the same forwards and nothing else, in turns. Precision: some
merges of the records again in float32.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from lora_lab.evaluation import Images
from lora_lab.findings import EXACT, METRIC, UNIFORM, Findings, Merge
from lora_lab.lab import Lab
from lora_lab.provenance import commit
from lora_lab.records import RecordFile
from lora_lab.sweeps import Cell, Sweep

OUT = Path(__file__).parent.parent / "assets" / "benchmarks" / "sweep.json"
ROUNDS, IMAGES = 3, 500
PAIRS = (("age_class", "landmarks"), ("emotion", "galaxy"), ("age_regression", "land_cover"))


def overhead(lab: Lab, data: Path) -> dict:
    """Seconds of both ways, medians over the rounds."""
    images = Images(data, "val", IMAGES)
    seconds: dict[str, list[float]] = {"forwards": [], "sweep": []}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            sweep = Sweep(lab, images, RecordFile(Path(folder) / "records.parquet"))
            recipes = [Merge(pair).recipe(lab.backbone.name) for pair in PAIRS]
            for _ in sweep.run(sweep.cells(recipes)):  # what merges are compared to, and all caches
                pass
            cells = [Cell(Merge(pair, method=UNIFORM).recipe(lab.backbone.name)) for pair in PAIRS]
            start = time.perf_counter()
            for cell in cells:
                assert cell.recipe
                sweep.testbed.outputs(lab.merge(cell.recipe))
            middle = time.perf_counter()
            for _ in sweep.run(cells):
                pass
            seconds["forwards"].append(middle - start)
            seconds["sweep"].append(time.perf_counter() - middle)
    medians = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    percent = 100 * (medians["sweep"] / medians["forwards"] - 1)
    return {**medians, "images": sum(map(sweep.image_count, cells)), "overhead_percent": round(percent, 2)}


def precision(lab: Lab, data: Path) -> list[dict]:
    """The first metric of some merges in the records, and again in float32."""
    findings = Findings(RecordFile().read(), lab.backbone.name)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(lab, Images(data, "val", IMAGES), RecordFile(Path(folder) / "records.parquet"), "float32")
        merges = [*(Merge(pair) for pair in PAIRS), Merge(findings.names, 16, EXACT), Merge(findings.names, 16, UNIFORM)]
        for merge in merges:
            drawn = sweep.testbed.draw(lab.merge(merge.recipe(lab.backbone.name)))
            for name in merge.names:
                recorded = findings.score(name, merge, METRIC)
                assert recorded
                metric = next(iter(drawn[name]))
                full = float(drawn[name][metric][0])
                rows.append(
                    {
                        "merge": "+".join(merge.names),
                        "method": merge.method,
                        "task": name,
                        "bfloat16": round(recorded.value, 3),
                        "float32": round(full, 3),
                        "half_interval": round(((recorded.high or 0) - (recorded.low or 0)) / 2, 3),
                    }
                )
    return rows


def main(data: Path) -> None:
    """Measure and write the record."""
    lab = Lab()
    found = {"commit": commit(), "overhead": overhead(lab, data), "precision": precision(lab, data)}
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
