"""What a browser sends to the page, without a browser."""

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx


class Visitor:
    """Somebody who has the page open: sends a photo, and all values whenever one of them moves."""

    def __init__(self, url: str):
        self._http = httpx.Client(base_url=f"{url}/gradio_api", timeout=120)
        self._session = uuid4().hex
        config = httpx.get(f"{url}/config", timeout=60).json()
        parts = {part["id"]: part for part in config["components"]}
        self._names = {place: part["props"].get("elem_id") or str(place) for place, part in parts.items()}
        self._event = next(e for e in config["dependencies"] if {"drawn", "answers"} <= {self._names[i] for i in e["outputs"]})
        self.values = {self._names[place]: parts[place]["props"].get("value") for place in self._event["inputs"]}

    def __enter__(self) -> "Visitor":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def upload(self, photo: Path) -> str:
        """Choose a photo; gives where it lies on the server."""
        files = {"files": (photo.name, photo.read_bytes())}
        (path,) = self._http.post("/upload", files=files).raise_for_status().json()
        self.values["photo"] = {"path": path, "orig_name": photo.name, "meta": {"_type": "gradio.FileData"}}
        return path

    def ask(self) -> list[Any]:
        """What the page gets for its values as they stand: a value for each output."""
        values = [self.values[self._names[place]] for place in self._event["inputs"]]
        body = {"data": values, "fn_index": self._event["id"], "session_hash": self._session}
        self._http.post("/queue/join", json=body).raise_for_status()
        with self._http.stream("GET", "/queue/data", params={"session_hash": self._session}) as lines:
            for line in lines.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    assert message["success"], message["output"]
                    return message["output"]["data"]
        raise AssertionError("the page gave no answer")

    def move(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Set values by the ids of their elements; gives the answers as JSON."""
        assert values.keys() <= self.values.keys()
        self.values |= values
        shown = next(part for part in self.ask() if isinstance(part, str) and "ll-json" in part)
        found = re.search(r'class="ll-json">(.*?)</pre>', shown, re.DOTALL)
        assert found
        return json.loads(html.unescape(found[1]))
