"""Names that come from outside: in recipes, links, cards, archives, commands and calls. They end up as names of folders.

Each is checked where it enters, by the types here, so that none can lead out of the folder that it is looked for in.
"""

import re
from typing import Annotated

from pydantic import AfterValidator

from lora_lab.errors import shortened

LONGEST = 64
LONGEST_BACKBONE = 256
PREFIX = "saved:"
"""What stands before the name of a saved merge where it is taken for a merge method."""
_NAME = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9_-]{{0,{LONGEST - 1}}})")
# Windows keeps these for devices, whatever ending they are given.
_RESERVED = frozenset(("con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))))


def is_name(text: str) -> bool:
    """Whether a text is a name: 1 to 64 letters of ASCII, digits, - and _, a letter or digit first."""
    return bool(_NAME.fullmatch(text)) and text.lower() not in _RESERVED


def _checked(kind: str, before: str = "") -> AfterValidator:
    def check(text: str) -> str:
        if not is_name(text.removeprefix(before)):
            raise ValueError(f"no {kind} named {shortened(text, 80)!r}: a name has 1 to {LONGEST} letters, digits, - and _")
        return text

    return AfterValidator(check)


def _printable(text: str) -> str:
    # A hub id or a folder: it is compared with the backbone that is loaded, and never looked for.
    if not text or len(text) > LONGEST_BACKBONE or not text.isprintable():
        raise ValueError(
            f"no backbone named {shortened(text, 80)!r}: a name has 1 to {LONGEST_BACKBONE} characters that can be printed"
        )
    return text


AdapterName = Annotated[str, _checked("adapter")]
TaskName = Annotated[str, _checked("task")]
MergeName = Annotated[str, _checked("merge")]
MethodName = Annotated[str, _checked("merge method", PREFIX)]
KnobName = Annotated[str, _checked("knob")]
RepairName = Annotated[str, _checked("repair")]
BackboneName = Annotated[str, AfterValidator(_printable)]


def folder_of(backbone: str) -> str:
    """The name of a backbone's folder, which is one level and never leads out, whether it is a hub id or a local folder."""
    name = re.sub(r"[/\\:]", "--", backbone)
    return name if name.strip(".") else f"--{name}"
