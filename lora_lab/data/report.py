"""What was not used of a folder, and why; and how the rest was understood. Every reader fills one, every command shows it."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from lora_lab.errors import shortened

NAMED = 3
LONGEST_NAME = 60
NO_PICTURE = "no picture"

logger = logging.getLogger(__name__)


@dataclass
class Report:
    """Names by the reason why they were not used, and lines on how the folder was read."""

    left: dict[str, list[str]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def leave(self, name: str, why: str) -> None:
        """Note that a file, a row or a folder was not used."""
        self.left.setdefault(why, []).append(name)

    def say(self, line: str) -> None:
        """Note how something was read, once."""
        if line not in self.said:
            self.said.append(line)

    @property
    def lines(self) -> tuple[str, ...]:
        """A line with the number of what was not used, the first names and the reasons; then what else there is to say."""
        return (*filter(None, [self._unused()]), *map(shortened, self.said))

    def _unused(self) -> str:
        count = sum(map(len, self.left.values()))
        if not count:
            return ""
        what = "file was" if count == 1 else "files were"
        reasons = "; ".join(f"{listed(names)} ({why})" for why, names in self.left.items())
        return shortened(f"{count} {what} not used: {reasons}")


class _Told:
    """Where lines are shown, each once."""

    def __init__(self, show: Callable[[str], None]):
        self.show, self.lines = show, set()


_told: ContextVar[_Told] = ContextVar("told", default=_Told(lambda line: logger.warning("%s", line)))  # noqa: B039 (meant to be shared)


def tell_once(lines: Iterable[str]) -> None:
    """Show lines to whoever listens, each once; they are logged where nobody does."""
    told = _told.get()
    for line in lines:
        if line not in told.lines:
            told.lines.add(line)
            told.show(line)


@contextmanager
def listening(show: Callable[[str], None]) -> Iterator[None]:
    """Lines that are told within the block go to `show`."""
    token = _told.set(_Told(show))
    try:
        yield
    finally:
        _told.reset(token)


def listed(names: Sequence[str], most: int = NAMED) -> str:
    """The first few names, each shortened, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shortened(name, LONGEST_NAME) for name in names[:most]) + more
