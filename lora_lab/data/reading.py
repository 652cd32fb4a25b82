"""How a folder is to be read, where the person who has it says so."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reading:
    """What is said of a data set; what is None is found out.

    `layout` names a format, `column` the labels' column and `image_column` the one of the images or of their files. `labels`
    names a known label set, or gives pairs such as "4=sad, 5=surprise". `skip_faulty` leaves out images with faults, which says
    nothing of how the others are read.
    """

    layout: str | None = None
    column: str | None = None
    image_column: str | None = None
    labels: str | None = None
    skip_faulty: bool = field(default=False, compare=False)


FOUND_OUT = Reading()
