"""What a visitor keeps is theirs alone: two people over HTTP, limits, forged calls, and servers that others reach."""

import html
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from browser import served  # pyright: ignore[reportMissingImports] (beside this file)
from conftest import PORTRAIT

from lora_lab import owners
from lora_lab.cards import adapter_folder
from lora_lab.errors import LoraLabError
from lora_lab.owners import MOST, owner_folder, room_for
from lora_lab.ui.visitors import COOKIE, OFF, is_loopback


class Person:
    """Somebody who has opened the page, or only knows the address; calls any function with any values."""

    def __init__(self, url: str, cookie: str | None = None, opens: bool = True, headers: Mapping[str, str] | None = None):
        self.http = httpx.Client(base_url=url, timeout=120, headers=headers)
        if cookie:
            self.http.cookies.set(COOKIE, cookie)
        if opens:
            self.http.get("/", headers={"accept": "text/html"}).raise_for_status()
        self.session = uuid4().hex
        config = self.http.get("/config").json()
        self.names = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
        self.start = {part["id"]: part["props"].get("value") for part in config["components"]}
        self.events = config["dependencies"]

    @property
    def secret(self) -> str | None:
        return self.http.cookies.get(COOKIE)

    def event(self, clicked: str) -> dict | None:
        """The function behind a button, or of an endpoint by name."""
        ids = [place for place, name in self.names.items() if name == clicked]
        wired = (
            e
            for e in self.events
            if [ids[:1] and ids[0], "click"] in [list(t) for t in e["targets"]] or e["api_name"] == clicked
        )
        return next(wired, None)

    def call(self, clicked: str, *data: Any, **named: Any) -> tuple[bool, str]:
        """Whether it went well, and all that came back as text; `named` are values by the ids of their elements."""
        event = self.event(clicked)
        assert event, clicked
        values = list(data) or [named.get(self.names[i] or "", self.start[i]) for i in event["inputs"]]
        body = {"data": values, "fn_index": event["id"], "session_hash": self.session}
        self.http.post("/gradio_api/queue/join", json=body).raise_for_status()
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as lines:
            for line in lines.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    return message["success"], json.dumps(message["output"], ensure_ascii=False)
        raise AssertionError("no answer")

    def upload(self, file: Path) -> dict:
        (path,) = self.http.post("/gradio_api/upload", files={"files": (file.name, file.read_bytes())}).json()
        return {"path": path, "meta": {"_type": "gradio.FileData"}}

    def add(self, name: str, file: dict) -> str:
        return self.call("own-add", file, name, None, "square")[1]

    def sees(self) -> str:
        return self.call("adapters")[1]


@pytest.fixture(scope="module")
def bundle(adapters_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of an adapter with its head."""
    path = tmp_path_factory.mktemp("zips") / "mood.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in adapter_folder("tiny", "emotion", "r16", adapters_root).iterdir():
            archive.write(file, file.name)
    return path


@contextmanager
def server(adapters_root: Path, folder: Path, *options: str, **environment: str) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {"LORA_LAB_CACHE": str(folder), **environment}.items():
            patched.setenv(name, value)
        with served("--backbone", "tiny", "--adapters-root", str(adapters_root), *options) as url:
            yield url


@pytest.fixture(scope="module")
def here(adapters_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(adapters_root, tmp_path_factory.mktemp("here")) as url:
        yield url


def test_what_one_adds_nobody_else_sees_names_or_takes_away(here: str, bundle: Path):
    one, other = Person(here), Person(here)
    assert one.secret != other.secret
    assert "Added **mood**" in one.add("mood", one.upload(bundle))
    assert '"mood"' in one.sees()
    photo = other.upload(PORTRAIT)
    assert one.call("predict", one.upload(PORTRAIT), "mood=1")[0]
    assert '"mood"' not in other.sees()
    for asked in (("predict", photo, "mood=1"), ("predict", photo, "moot=1"), ("merge", "mood=1", True)):
        fine, told = other.call(*asked)
        assert not fine
        assert "known:" in told or "did you mean" in told
        assert "'mood'?" not in told
        assert ", mood" not in told
    assert "Not removed" in other.call("own-remove", "mood")[1]
    # The same name is free to the other, and stands for what they have brought.
    assert "Added **mood**" in other.add("mood", other.upload(bundle))
    assert "Removed **mood**" in other.call("own-remove", "mood")[1]
    assert '"mood"' not in other.sees()
    assert '"mood"' in one.sees()
    # A reload is another session of the same browser.
    again = Person(here, one.secret)
    assert '"mood"' in again.sees()
    assert "Removed **mood**" in again.call("own-remove", "mood")[1]
    assert '"mood"' not in one.sees()


@pytest.mark.parametrize("cookie", ["guess", "a" * 43, "../../adapters/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"])
def test_a_forged_cookie_reaches_nobody(here: str, bundle: Path, cookie: str):
    one, forger = Person(here), Person(here, cookie, opens=False)
    assert "Added **secretive**" in one.add("secretive", one.upload(bundle))
    assert "secretive" not in forger.sees()
    assert "Not removed" in forger.call("own-remove", "secretive")[1]


def test_a_program_without_cookies_adds_for_its_own_session(here: str, bundle: Path):
    one, other = Person(here, opens=False), Person(here, opens=False)
    assert "Added **scripted**" in one.add("scripted", one.upload(bundle))
    assert '"scripted"' in one.sees()
    assert "scripted" not in other.sees()


def test_the_number_is_limited(here: str, bundle: Path):
    one = Person(here)
    file = one.upload(bundle)
    for place in range(MOST):
        assert "Added" in one.add(f"mood_{place}", file)
    assert f"{MOST} is the most" in one.add("one_more", file)
    assert "one_more" not in one.sees()


@pytest.mark.parametrize("meta", [{"meta": {"_type": "gradio.FileData"}}, {}], ids=["marked", "plain"])
@pytest.mark.parametrize("path", ["/etc/passwd", "{bundle}", "owner/name", "{root}", "../../../../etc/passwd"])
def test_a_file_that_was_not_sent_is_not_read(here: str, bundle: Path, adapters_root: Path, path: str, meta: dict):
    folder = adapter_folder("tiny", "emotion", "r16", adapters_root)
    one = Person(here)
    told = one.add("stolen", {"path": path.format(bundle=bundle, root=folder), **meta})
    assert "Added" not in told
    assert "stolen" not in one.sees()


def test_a_merge_with_photos_is_its_makers_alone(here: str):
    one, other = Person(here), Person(here)
    fine, told = one.call("photos-merge", photos=[one.upload(PORTRAIT)], **{"photos-method": "iteris", "photos-name": "mine"})
    assert fine, told
    asked = json.dumps({"backbone": "tiny", "adapters": [{"name": "emotion"}], "method": "saved:mine"})
    assert one.call("merge", asked, False)[0]
    fine, told = other.call("merge", asked, False)
    assert not fine
    assert "saved:mine'?" not in told
    assert "no merge of your own" in other.call("photos-remove", "mine")[1]
    assert "Removed" in one.call("photos-remove", "mine")[1]
    assert not one.call("merge", asked, False)[0]


def test_who_comes_through_a_proxy_or_by_another_name_keeps_nothing(here: str, bundle: Path):
    for headers in ({"x-forwarded-for": "10.0.0.7"}, {"host": "lab.example.org"}):
        one = Person(here, headers=headers)
        assert OFF in html.unescape(one.add("mood", one.upload(bundle)))


@pytest.mark.parametrize(
    ("options", "environment", "kept"),
    [
        (["--host", "0.0.0.0"], {}, False),
        ([], {"SPACE_ID": "somebody/lab"}, False),
        ([], {"GRADIO_SHARE": "no", "SPACE_ID": "somebody/lab", "LORA_LAB_ALLOW_CHANGES": "1"}, True),
        (["--host", "0.0.0.0", "--allow-changes"], {}, True),
    ],
    ids=["every address", "Space", "Space, turned on", "every address, turned on"],
)
def test_a_server_that_others_reach_keeps_nothing_unless_it_is_turned_on(
    options: list[str], environment: dict, kept: bool, adapters_root: Path, bundle: Path, tmp_path: Path
):
    with server(adapters_root, tmp_path, *options, **environment) as url:
        one = Person(url)
        assert (one.event("own-add") is not None) == kept
        if kept:
            assert "Added **mood**" in one.add("mood", one.upload(bundle))
            assert '"mood"' not in Person(url).sees()
        else:
            fine, told = one.call("photos-merge", photos=[one.upload(PORTRAIT)], **{"photos-method": "iteris"})
            assert not fine
            assert OFF in told
            assert not list(tmp_path.glob("owners/*"))


def test_the_size_is_limited_and_the_unused_goes(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(owners, "MOST_BYTES", 100)
    folder = owner_folder("a")
    made = folder / "adapters" / "tiny" / "large"

    def keep(size: int) -> None:
        with room_for(folder, "adapters"):
            made.mkdir(parents=True)
            (made / "x").write_bytes(b"x" * size)

    with pytest.raises(LoraLabError, match="is the most"):
        keep(101)
    assert not made.exists()
    keep(100)
    monkeypatch.setattr(owners, "ALL_MOST", 0)
    with pytest.raises(LoraLabError, match="as much for its visitors"), room_for(owner_folder("b"), "merges"):
        raise AssertionError("there is no room")
    monkeypatch.setattr(owners, "DAYS", -1)
    owners.drop_unused()
    assert not folder.exists()


def test_what_counts_as_this_machine():
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.3.2.1", "localhost", "::1", "[::1]"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "", "10.0.0.1", "localhost.example.org", "example.org"))
