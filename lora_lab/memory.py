"""Memory that is given back to the system as soon as it is free, for programs that run for long."""

import ctypes
from contextlib import suppress

MMAP_THRESHOLD, ARENA_MAX = -3, -8
"""What glibc's mallopt(3) calls its settings, by number."""

LARGE = 1 << 20
ARENAS = 2


def give_back() -> None:
    """Return to the system what is free now; nothing happens where the C library is not glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_low() -> None:
    """Let every block of a megabyte and more go back when it is freed.

    By itself glibc takes ever larger blocks from its own heaps, which grow to the highest that was ever needed and have holes.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, LARGE)
        mallopt(ARENA_MAX, ARENAS)
