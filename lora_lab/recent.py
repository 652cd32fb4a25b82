"""A small memory of what was computed lately."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The `most` values used last, by key, and no more than weigh `heaviest` together.

    Safe to use from several threads; values must not be changed.
    """

    def __init__(self, most: int, heaviest: float = float("inf"), weigh: Callable[[V], float] = lambda _: 0):
        self._most, self._heaviest, self._weigh = most, heaviest, weigh
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of a key, made now if it is not there. Two threads may both make one; either serves."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        self.swap(key, value)
        return value

    def swap(self, key: K, value: V) -> V | None:
        """Put a value in, and give the one that was there."""
        with self._lock:
            before = self._values.pop(key, None)
            self._values[key] = value
            while len(self._values) > self._most or sum(map(self._weigh, self._values.values())) > self._heaviest:
                self._values.popitem(last=False)
            return before
