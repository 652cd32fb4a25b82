"""Odd names and numbers, values and bytes that are changed here and there, and what must hold whatever is made of them."""

import json
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from watched import opened

from lora_lab.errors import LONGEST, LoraLabError

SECONDS = 10.0
"""None of the inputs takes a hundredth of it; the machine may be busy."""
ODD_NAMES = (
    *("../tiny/emotion", "/etc", "./emotion", "..", "", " ", "~", "C:\\x", "emo\0tion", "\ud800", "con", "Emotion", "a" * 300),
    *("emotion", "galaxy", "landmarks", "age_class", "no_such", "emotion/", "\u202eemotion", "emotion\n", "é", "saved:six"),
)
ODD_NUMBERS = (0, 1, -1, 2.5, 16, 1e308, -1e400, 1e400, float("nan"), 10**400, 2**63, True, None, "1", [], {}, "r16")
names = st.one_of(st.sampled_from(ODD_NAMES), st.text(max_size=80))
numbers = st.one_of(st.sampled_from(ODD_NUMBERS), st.floats(), st.integers())
anything = st.recursive(
    st.one_of(names, numbers), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner), max_leaves=8
)


@contextmanager
def bounded() -> Iterator[None]:
    """Within the time, and either without an error or with lines that can be shown."""
    start = time.monotonic()
    try:
        yield
    except LoraLabError as error:
        lines = str(error).split("\n")
        assert len(lines) < 20, lines
        for line in lines:
            assert 0 < len(line.strip()) <= LONGEST, line
            assert line.isprintable(), line
        str(error).encode()
    assert time.monotonic() - start < SECONDS


@contextmanager
def reading_only(*roots: Path) -> Iterator[None]:
    """Nothing outside of these folders is opened or listed, but what Python itself loads."""
    with opened() as places:
        yield
    own = tuple(map(str, (*roots, sys.prefix, sys.base_prefix, Path(__file__).parent.parent / "lora_lab")))
    others = [place for place in places if not place.startswith(own) and not place.isdigit()]
    assert not others, others


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """The JSON value with some of what it holds replaced, left out, named otherwise or added."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(0, 3))):
        spot: Any = value
        while isinstance(spot, (dict, list)) and spot:
            key = draw(st.sampled_from(sorted(spot) if isinstance(spot, dict) else range(len(spot))))
            if not isinstance(spot[key], (dict, list)) or not spot[key] or draw(st.booleans()):
                break
            spot = spot[key]
        if not isinstance(spot, (dict, list)) or not spot:
            continue
        how = draw(st.sampled_from(("odd", "number", "name", "out", "renamed", "many")))
        if how == "out":
            del spot[key]
        elif how == "renamed" and isinstance(spot, dict):
            spot[draw(names)] = spot.pop(key)
        elif how == "many":
            spot[key] = [spot[key]] * draw(st.sampled_from((2, 70, 3000)))
        else:
            spot[key] = draw({"number": numbers, "name": names}.get(how, anything))
    return value


@st.composite
def spoilt(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes with some changed, cut, doubled or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.one_of(st.integers(0, min(len(data), 200)), st.integers(0, len(data))))
        how = draw(st.sampled_from(("change", "cut", "out", "double", "insert", "number")))
        if how == "change" and place < len(data):
            data[place] = draw(st.integers(0, 255))
        elif how == "cut":
            del data[place:]
        elif how == "out":
            del data[place : place + draw(st.integers(1, 40))]
        elif how == "double":
            data[place:place] = data[place : place + draw(st.integers(1, 60))]
        elif how == "insert":
            data[place:place] = draw(st.binary(max_size=30))
        elif how == "number":
            data[place : place + 4] = struct.pack("<I", draw(st.sampled_from((0, 1, 255, 2**31, 2**32 - 1))))
    return bytes(data)
