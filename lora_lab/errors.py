"""Messages for the person who uses LoRA Lab.

Every error here carries one clear line: what is wrong, with which value, and what to try. The command line and the page
show that line as it stands; anything else that is raised is a fault of ours and keeps its traceback.
"""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

LONGEST = 300
"""Characters of a line."""


class LoraLabError(Exception):
    """A mistake or a circumstance that the user can mend.

    `line` says what is wrong; `more` are further lines, where several things are wrong at once. However long or odd the values
    that they quote, each line is printable and has at most `LONGEST` characters.
    """

    def __init__(self, line: str, *more: str):
        super().__init__("\n  ".join(map(shortened, (line, *more))))


class NotFoundError(LoraLabError):
    """A name, file or folder that is not there."""


class DataError(LoraLabError):
    """Data or a photo that cannot be read as what it should be."""


class MismatchError(LoraLabError):
    """Two things that do not belong together, such as an adapter and another backbone."""


class BackboneUnavailableError(LoraLabError):
    """Backbone weights that could not be fetched, checked or stored."""


def shortened(text: str, longest: int = LONGEST) -> str:
    """One printable line of a text; a long one loses its middle, since what to try stands at its end."""
    text = _printable(text[: 4 * longest] + text[-4 * longest :] if len(text) > 8 * longest else text)
    if len(text) <= longest:
        return text
    head = longest * 3 // 5
    return f"{text[:head]} … {text[head + 3 - longest :]}"


def fault_text(fault: ErrorDetails) -> str:
    """A fault of a validation, after the name of its field; text that is not JSON at all has no field."""
    return ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, "))))


def first_fault(error: ValidationError) -> str:
    """The text of the first fault of a validation."""
    return fault_text(error.errors(include_url=False, include_input=False)[0])


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in text)
