"""Which of ten kinds of land a satellite picture shows.

Data: EuroSAT RGB (Helber et al. 2019, arXiv 1709.00029), Sentinel-2, 64 × 64 pixels at 10 m; 7,000 train, 800 val and 2,100
test images. It stands where the paper has fire risk, and is not that.
Example: a tile of open water has the label 9, sea or lake.
"""

from lora_lab.tasks.base import Task

TASK = Task(
    name="land_cover",
    title="Land cover",
    kind="classes",
    labels=(
        "annual crop",
        "forest",
        "herbaceous vegetation",
        "highway",
        "industrial",
        "pasture",
        "permanent crop",
        "residential",
        "river",
        "sea or lake",
    ),
    metrics=("macro_f1", "accuracy"),
    framing="square",
    stored="square",
    folder="land_cover",
    column="label",
    source="EuroSAT RGB (Helber et al. 2019), contains Copernicus Sentinel data",
    licence="MIT; credit Copernicus Sentinel data",
    version="1",
    image_steps=38_000,
)
