"""A small memory of what was computed lately."""

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import _lru_cache_wrapper, partial  # pyright: ignore[reportPrivateUsage] (there is no public name)
from types import FunctionType
from typing import Any, Generic, TypeVar

from torch import Tensor

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The `most` values used last, by key, and of more than one no more than weigh `heaviest` together.

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

    def _weight(self) -> float:
        return sum(map(self._weigh, self._values.values()))

    def swap(self, key: K, value: V) -> V | None:
        """Put a value in, and give the one that was there."""
        with self._lock:
            before = self._values.pop(key, None)
            self._values[key] = value
            while len(self._values) > self._most or (len(self._values) > 1 and self._weight() > self._heaviest):
                self._values.popitem(last=False)
            return before


def held_bytes(value: Any) -> int:
    """The bytes of all tensors that a value holds: in collections, in its attributes, and in what a function closes over."""
    found: dict[int, int] = {}
    _collect(value, found, set())
    return sum(found.values())


def _collect(value: Any, found: dict[int, int], seen: set[int]) -> None:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return
    for part in _parts(value):
        _collect(part, found, seen)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, FunctionType):
        return [cell.cell_contents for cell in value.__closure__ or ()]
    if isinstance(value, _lru_cache_wrapper):
        return gc.get_referents(value)  # the results that it keeps, and the function
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return value
    return list(vars(value).values()) if hasattr(value, "__dict__") and not isinstance(value, type) else []
