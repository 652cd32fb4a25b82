"""The command that scores adapters and merges."""

from typing import TYPE_CHECKING, Annotated

import typer

from lora_lab.backbones import DEFAULT
from lora_lab.cli.common import (
    AdaptersOption,
    BackboneOption,
    DataOption,
    DeviceOption,
    JsonOption,
    MembersOption,
    RecipeOption,
    console,
    fail,
    open_lab,
    print_json,
    read_recipe,
    reads_data,
    told,
)
from lora_lab.devices import AUTO

if TYPE_CHECKING:
    from lora_lab.data import Reading
    from lora_lab.records import Record


@told
@reads_data
def evaluate(
    data: DataOption,
    split: Annotated[str, typer.Option(help="Which split.")] = "val",
    recipe: RecipeOption = None,
    members: MembersOption = None,
    variant: Annotated[str | None, typer.Option(help="Adapters of one variant: r16, head_only, joint_r96, full …")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images a task, always the same.")] = None,
    publish: Annotated[bool, typer.Option("--publish", help="Write the scores onto the adapters' cards.")] = False,
    as_json: JsonOption = False,
    backbone: BackboneOption = DEFAULT,
    device: DeviceOption = AUTO,
    adapters_root: AdaptersOption = None,
    *,
    reading: "Reading",
) -> None:
    """Score every adapter alone, or those of a variant, or a merge on its members.

    With --publish on val, calibration and statistics are written anew as well.
    """
    from lora_lab.evaluation import Images, nothing_to_measure
    from lora_lab.scoring import publish_descriptions, publish_scores, score_alone, score_merge

    lab = open_lab(backbone, adapters_root, device)
    chosen = read_recipe(lab, recipe, members)
    _check(chosen is not None, variant, publish, limit)
    if publish and split == "val":
        for card in publish_descriptions(lab, Images(data, split, reading=reading), variant):
            console.print(f"described {card.name} {card.variant}", highlight=False)
        return
    images = Images(data, split, limit, reading=reading)
    records = []
    for record in score_merge(lab, chosen, images) if chosen else score_alone(lab, images, variant):
        records.append(record)
        if record.label is None and not as_json:
            _tell(record)
    if not records:
        heads = lab.heads(chosen) if chosen else ()
        raise nothing_to_measure([head.task for head in heads] or list(lab.tasks().values()), images)
    if publish:
        publish_scores(lab, records, images)
    if as_json:
        print_json([record.model_dump() for record in records])


def _check(merge: bool, variant: str | None, publish: bool, limit: int | None) -> None:
    if merge and (variant or publish):
        fail("--variant and --publish are for adapters alone: leave out --recipe and --adapters")
    if publish and limit:
        fail("--publish takes all images of the split: leave out --limit")


def _tell(record: "Record") -> None:
    line = (
        f"{record.task} {record.subject} {record.metric} {record.value:.2f} "
        f"({record.low:.2f} to {record.high:.2f}), {record.n} images"
    )
    console.print(line, highlight=False)
