"""How a folder is to be read, where the person who has it says so."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """What is said of a data set; what is None is found out.

    `layout` names a format, `column` the labels' column and `image_column` the one of the images or of their files. `labels`
    names a known label set, or gives pairs such as "4=sad, 5=surprise".
    """

    layout: str | None = None
    column: str | None = None
    image_column: str | None = None
    labels: str | None = None


FOUND_OUT = Reading()
