"""Weights that should suit the selected adapters, and how each task fares before and after.

There are three ways to find them. From the records: the weights by which the least is expected to be lost, or a merge of the
same adapters that was measured and is better. From photos without labels: NSC's factors for each adapter and layer (arXiv
2603.26317). From labelled images: LoraHub's search (arXiv 2307.13269), where a task that has no labels counts by how far its
features drift from those under its adapter alone. Whatever is found is given only where tasks fare better by it than before.
"""

from lora_lab.catalog import Catalog
from lora_lab.suggestions.base import Question, Suggester, Suggestion, mean_loss
from lora_lab.suggestions.from_images import from_labels, from_photos, layered
from lora_lab.suggestions.from_records import from_records, measured, sought

RECORDS = Suggester(
    "records",
    "From the records",
    "records",
    "The weights with the best expected scores, from merges that were measured; no image is needed.",
    from_records,
)
PHOTOS = Suggester(
    "photos",
    "From photos",
    "images",
    "A factor for each adapter and layer with which every adapter still sees most of what its layers read (NSC).",
    from_photos,
)
LABELS = Suggester(
    "labels",
    "From labelled images",
    "labels",
    "A search for the weights with which labelled images come out best (LoraHub); the other tasks are kept near to themselves.",
    from_labels,
)
SUGGESTERS: Catalog[Suggester] = Catalog("way to suggest weights", ((one.name, one) for one in (RECORDS, PHOTOS, LABELS)))

__all__ = [
    "SUGGESTERS",
    "Question",
    "Suggester",
    "Suggestion",
    "from_labels",
    "from_photos",
    "from_records",
    "layered",
    "mean_loss",
    "measured",
    "sought",
]
