"""An ordered, read-only mapping from names to things, which helps when a name is misspelt."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TypeVar

from lora_lab.errors import NotFoundError, shortened

T = TypeVar("T")


class Catalog(Mapping[str, T]):
    """Things by name, in the order in which they are shown.

    Raises `NotFoundError` for an unknown name, with the closest known one.
    """

    def __init__(self, kind: str, entries: Iterable[tuple[str, T]]):
        self.kind = kind
        self._entries: dict[str, T] = {}
        for name, thing in entries:
            assert name not in self._entries, f"{kind} {name!r} is listed twice"
            self._entries[name] = thing

    def __getitem__(self, name: str) -> T:
        if name in self._entries:
            return self._entries[name]
        raise NotFoundError(unknown(self.kind, name, self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line that says a name is unknown and which is meant or possible."""
    known = list(known)
    name = shortened(name, 80)
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"
    return f"no {kind} named {name!r}; {hint}"
