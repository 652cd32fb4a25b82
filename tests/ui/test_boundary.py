"""Whatever a caller sends: an answer in JSON, or one line of at most 300 characters without markup."""

import asyncio
import json
import math
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import gradio as gr
import httpx
import pytest
from conftest import PORTRAIT, random_adapter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_lab.backbones import Backbone
from lora_lab.cards import ScoreEntry
from lora_lab.composition.saved import Composition, CompositionCard, WayResult
from lora_lab.errors import DataError
from lora_lab.lab import Lab
from lora_lab.merging.recipe import MergeRecipe, RecipeAdapter
from lora_lab.ui import compose_panel, own_panel
from lora_lab.ui.api import Endpoints, Sent
from lora_lab.ui.boundary import MOST, Page, clamped, finite, line_of, literal

MARKUP = "<img src=x onerror=alert(1)>"
DEEP = "[" * 5000 + "]" * 5000
CALLS: list[tuple[str, Any]] = [
    ("predict", []),
    ("predict", [None]),
    ("predict", ["photo.jpg", ""]),
    ("predict", [3, ""]),
    ("predict", [[], ""]),
    ("predict", [{"path": 3, "meta": {"_type": "gradio.FileData"}}, ""]),
    ("predict", [{"path": None, "meta": {"_type": "gradio.FileData"}}, ""]),
    ("predict", [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, ""]),
    ("predict", [{"path": "a\0b", "meta": {"_type": "gradio.FileData"}}, ""]),
    ("predict", [{"path": MARKUP}, ""]),
    ("predict", [{}, {}, {}, {}]),
    ("merge", []),
    ("merge", ["", True, 1, 2]),
    ("merge", [None, False]),
    ("merge", [3, False]),
    ("merge", [{"adapters": []}, False]),
    ("merge", ["emotion=1", "yes"]),
    ("merge", ["emotion=nan", False]),
    ("merge", ["emotion=1e400", False]),
    ("merge", [f"{MARKUP}=1", False]),
    ("merge", ["x" * 100_000 + "=1", False]),
    ("merge", ["\ud800=1", False]),
    ("merge", ["\0=1", False]),
    ("merge", ['{"adapters": ' + DEEP + "}", False]),
    ("merge", ['{"adapters": [{"name": "emotion", "weight": NaN}]}', False]),
    ("merge", ['{"backbone": "tiny", "adapters": [{"name": "emotion"}], "knobs": {"density": NaN}, "method": "ties"}', False]),
    ("merge", ['{"backbone": "tiny", "adapters": [{"name": "emotion"}], "seed": 1e999}', False]),
    ("compare", [{}, ["emotion=1"]]),
    ("compare", [None, None]),
    ("compare", [None, "emotion=1"]),
    ("compare", [None, 3]),
    ("compare", [None, [None]]),
    ("compare", [None, [["emotion=1"]]]),
    ("compare", [None, {"0": "emotion=1"}]),
    ("adapters", [1]),
    ("answer", []),
    ("answer", [1] * 200),
    ("undo", [None]),
    ("take", [MARKUP]),
    ("take", [DEEP]),
    ("take", [None]),
    ("no such endpoint", []),
]
BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"x"',
    b"3",
    b'{"data": null}',
    b'{"data": "x"}',
    b'{"data": {"recipe": "x"}}',
    b'{"dat": []}',
    b'{"data": [NaN, Infinity]}',
    b'{"data": ' + DEEP.encode() + b"}",
    b"\xff\xfe",
]


def line(text: Any) -> str:
    """A line as it has to be."""
    assert isinstance(text, str)
    assert 1 <= len(text) <= MOST
    assert "\n" not in text
    assert "<" not in text
    return text


@pytest.fixture(scope="module")
def http(tiny_address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{tiny_address}/gradio_api", timeout=60) as http:
        yield http


def asked(http: httpx.Client, name: str, body: bytes) -> str | None:
    """The line that a call ends with, None where it has an answer in strict JSON."""
    reply = http.post(f"/call/{name}", content=body, headers={"content-type": "application/json"})
    if reply.status_code != httpx.codes.OK:
        return line(reply.json()["error"])
    text = http.get(f"/call/{name}/{reply.json()['event_id']}").text
    event, data = text.rsplit("event: ", 1)[1].split("\ndata: ", 1)

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found = json.loads(data, parse_constant=no_constant)
    if event == "complete":
        return None
    return line(found["error"] if isinstance(found, dict) else found)


@pytest.mark.parametrize(("name", "data"), CALLS, ids=[str(place) for place in range(len(CALLS))])
def test_a_malformed_call_ends_with_one_line(http: httpx.Client, name: str, data: Any):
    told = asked(http, name, json.dumps({"data": data}).encode())
    assert told is not None or (name, data) in [("merge", []), ("adapters", [1])]


@pytest.mark.parametrize("name", ["predict", "merge", "compare", "adapters", "answer"])
@pytest.mark.parametrize("body", BODIES, ids=[str(place) for place in range(len(BODIES))])
def test_a_malformed_body_ends_with_one_line(http: httpx.Client, name: str, body: bytes):
    asked(http, name, body)


@pytest.mark.parametrize(
    "body",
    [
        {"fn_index": 10**6, "data": []},
        {"fn_index": -1, "data": []},
        {"fn_index": "x", "data": []},
        {"fn_index": 0, "data": {}},
        {"fn_index": 0},
        {"data": [], "event_data": MARKUP},
    ],
)
@pytest.mark.parametrize("place", ["/queue/join", "/run/predict", "/api/merge"])
def test_the_other_routes_end_with_one_line_too(http: httpx.Client, place: str, body: dict):
    reply = http.post(place, json={**body, "session_hash": "s"})
    if reply.status_code != httpx.codes.OK:
        line(reply.json()["error"])


def test_named_arguments_that_are_not_there_are_told(http: httpx.Client):
    for body in ({"foto": 1}, {"photo": "x", "recipe": 3, "more": 1}, {}):
        reply = http.post("/call/v2/predict", json=body)
        if reply.status_code != httpx.codes.OK:
            line(reply.json()["error"])
    line(http.post("/call/v2/nothing", json={}).json()["error"])


def test_the_fault_of_ours_is_one_honest_line(caplog: pytest.LogCaptureFixture):
    def broken() -> None:
        raise RuntimeError(MARKUP)

    async def called() -> None:
        with Page(analytics_enabled=False) as page:
            gr.api(broken, api_name="broken")
        (fn,) = page.fns.values()
        await page.process_api(fn, [])

    with pytest.raises(gr.Error) as caught:
        asyncio.run(called())
    assert caught.value.message == "Something went wrong inside broken (RuntimeError); the log of the server has the details."
    assert MARKUP in caplog.text  # the traceback is in the log, and only there


@pytest.mark.parametrize(
    "text",
    [
        MARKUP,
        "**x** *y* _z_ __w__ ~~v~~",
        "[a](https://example.org) ![b](c.png)",
        "`code` | cell | $x$ &lt;",
        "https://example.org www.example.org a@example.org",
        'age_class\'s "own" \\*x',
    ],
)
def test_a_name_in_markdown_is_shown_sign_by_sign(text: str):
    shown = literal(text)
    assert unescape(shown) == text
    signs = re.sub(r"&#\d+;", "", shown)
    assert not re.search(r"[\\`*\[\]<>&|~$:@]|www\.|(^|\W)_|_(\W|$)", signs)


def test_reports_show_no_markup_of_what_was_sent(tiny: Backbone):
    bold = f"**x**{MARKUP}"
    score = ScoreEntry(value=50.0, low=40.0, high=60.0, n=9)
    adapter = random_adapter(tiny, "emotion", 4, 0)
    card = adapter.card.model_copy(update={"name": bold, "scores": {"val": {bold: score}}})
    way = WayResult(scores={adapter.head.task.metric: score}, seconds=1.0, parameters=1)
    learned = CompositionCard.model_construct(ways={"learned": way}, images=9)
    # A name like this is refused where it enters; the report is the second lock.
    carried = RecipeAdapter.model_construct(name=bold, layers=(0.5,))
    composition = Composition(learned, MergeRecipe.model_construct(adapters=(carried,)), adapter.head)
    for told in (own_panel.report_of(card, seated=True), compose_panel.report_of(composition)):
        assert literal(bold) in told
        assert bold not in told
        assert "<img" not in told


def test_lines_and_numbers():
    assert line_of("a\n\n b\0<b>&") == "a b &lt;b&gt;&amp;"
    assert len(line_of("<" * 999)) <= MOST
    assert line_of("") == "something went wrong"
    assert finite({"a": [math.nan, 1.5, (math.inf, "x")]}) == {"a": [None, 1.5, [None, "x"]]}
    assert [clamped(x, -1, 2) for x in (99, -5, None, "", math.nan, 0.5, -math.inf, 10**400)] == [2, -1, 0, 0, 0, 0.5, -1, 2]
    assert clamped(None, 1, 384) == 1
    for wrong in ("x", [], {}, True):
        with pytest.raises(DataError, match="a number is needed"):
            clamped(wrong, 0, 1)


RECIPES = st.one_of(
    st.text(max_size=80),
    st.from_regex(r"[a-z_]{1,9}(:r?[0-9]{1,5})?=-?[0-9.e]{1,6}(,[a-z_]{1,9}=[0-9.e-]{1,5}){0,3}", fullmatch=True),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["adapters", "name", "weight", "rank", "method", "knobs", "seed", "backbone"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value) if not isinstance(value, str) else value),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipe=RECIPES, export=st.booleans())
def test_any_recipe_is_answered_or_refused_in_a_line(tiny_lab: Lab, recipe: str, export: bool):
    ends = Endpoints(tiny_lab)
    photo = Sent(path=str(PORTRAIT), meta={"_type": "gradio.FileData"})
    for ask in (lambda: ends.merge(recipe, export and len(recipe) < 9), lambda: ends.predict(photo, recipe)):
        try:
            json.dumps(finite(ask()), allow_nan=False)
        except gr.Error as error:
            line(error.message)
