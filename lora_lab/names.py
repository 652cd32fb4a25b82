"""Names that come from outside: in recipes, links, cards, archives, commands and calls. They end up as names of folders.

Each is checked where it enters, by the types here, so that none can lead out of the folder that it is looked for in.
"""

import re
from typing import Annotated

from pydantic import AfterValidator

from lora_lab.errors import shortened

LONGEST = 64
_NAME = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9_-]{{0,{LONGEST - 1}}})")
# Windows keeps these for devices, whatever ending they are given.
_RESERVED = frozenset(("con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))))


def is_name(text: str) -> bool:
    """Whether a text is a name: 1 to 64 letters of ASCII, digits, - and _, a letter or digit first."""
    return bool(_NAME.fullmatch(text)) and text.lower() not in _RESERVED


def _checked(kind: str) -> AfterValidator:
    def check(text: str) -> str:
        if not is_name(text):
            raise ValueError(f"no {kind} named {shortened(text, 80)!r}: a name has 1 to {LONGEST} letters, digits, - and _")
        return text

    return AfterValidator(check)


AdapterName = Annotated[str, _checked("adapter")]
TaskName = Annotated[str, _checked("task")]
MergeName = Annotated[str, _checked("merge")]
