"""Which places on disk are opened or listed while something runs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_watched: list[list[str]] = []


def _hook(event: str, arguments: tuple) -> None:
    if _watched and event in ("open", "os.listdir", "os.scandir"):
        _watched[-1].append(str(arguments[0]))


sys.addaudithook(_hook)


@contextmanager
def opened() -> Iterator[list[str]]:
    """The places that are opened or listed while the block runs."""
    _watched.append([])
    try:
        yield _watched[-1]
    finally:
        _watched.clear()
