"""The four endpoints, as a program calls them, and as the document says."""

import base64
import json
import re
import shlex
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from conftest import PORTRAIT
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from lora_lab.backbones import fast_precision
from lora_lab.errors import DataError, LoraLabError
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.peft_files import load_factors
from lora_lab.photos import Photo
from lora_lab.ui import api

NAMES = ["predict", "merge", "compare", "adapters"]
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "API.md"
PHOTO = handle_file(PORTRAIT)


@pytest.fixture(scope="module")
def client(tiny_address: str) -> Client:
    return Client(tiny_address, verbose=False, analytics_enabled=False)


@pytest.fixture(scope="module")
def lab(adapters_root: Path) -> Lab:
    """What is served, in the process of the tests."""
    return Lab("tiny", adapters_root, fast_precision())


def timeless(answer: dict) -> dict:
    """An answer without what differs from call to call."""
    return {name: value for name, value in json.loads(json.dumps(answer)).items() if name != "milliseconds"}


def test_exactly_these_are_public_on_the_page_and_each_explains_itself(client: Client):
    info = client.view_api(return_format="dict", print_info=False)
    assert isinstance(info, dict)
    assert not info["unnamed_endpoints"]
    assert list(info["named_endpoints"]) == [f"/{name}" for name in NAMES]
    for name in NAMES:
        described = info["named_endpoints"][f"/{name}"]["description"]
        assert (getattr(api.Endpoints, name).__doc__ or "").startswith(described)
        assert len(described) > 30
    photo, recipe = info["named_endpoints"]["/predict"]["parameters"]
    assert (photo["parameter_name"], photo["python_type"]["type"]) == ("photo", "filepath")
    assert (recipe["parameter_name"], recipe["parameter_default"]) == ("recipe", "")


def test_predict_says_what_the_lab_says(client: Client, lab: Lab):
    photo, text = Photo.read(PORTRAIT), "emotion=1,landmarks:r4=0.5"
    recipe = MergeRecipe.parse(text, "tiny")
    for given in (text, recipe.model_dump_json()):
        assert timeless(client.predict(PHOTO, given, api_name="/predict")) == timeless(lab.predict(photo, recipe).to_json())
    best = client.predict(PHOTO, api_name="/predict")
    assert timeless(best) == timeless(lab.predict(photo, lab.best()).to_json())
    assert best["milliseconds"]["forward"] > 0


def test_compare_sets_merges_beside_their_adapters(client: Client, lab: Lab):
    texts = ["emotion=1,landmarks:r4=0.5", '{"backbone": "tiny", "method": "ties", "adapters": [{"name": "emotion"}]}']
    found = client.predict(PHOTO, texts, api_name="/compare")
    single = [client.predict(PHOTO, text, api_name="/predict") for text in texts]
    assert [timeless(one) for one in found["merges"]] == [timeless(one) for one in single]
    assert list(found["alone"]) == ["emotion:r16", "landmarks:r4"]
    own = timeless(client.predict(PHOTO, "landmarks:r4=1", api_name="/predict"))
    assert found["alone"]["landmarks:r4"] == {name: own[name] for name in ("faces", "photo")}


def test_merge_tells_what_it_is_made_of(client: Client, lab: Lab):
    told, archive = client.predict("emotion=1,landmarks:r4=0.5", api_name="/merge")
    assert archive is None
    assert told["title"] == "emotion:r16=1 + landmarks:r4=0.5"
    assert told["method"] == {"name": "exact", "title": "Exact sum", "knobs": {}}
    assert not told["needs_images"]
    assert told["milliseconds"] > 0
    merged = lab.merge(MergeRecipe.parse("emotion=1,landmarks:r4=0.5", "tiny")).deltas
    alone = lab.merge(MergeRecipe.parse("landmarks:r4=1", "tiny")).deltas
    for norm, deltas in ((told["norm"], merged), (told["adapters"][1]["norm"], alone)):
        assert norm == pytest.approx(float(torch.cat([delta.float().flatten() for delta in deltas.values()]).norm()), rel=1e-3)
    told, _ = client.predict(told_json("iteris"), api_name="/merge")
    assert told["needs_images"]
    assert told["needs"] == ["images"]
    assert told["milliseconds"] is told["norm"] is None
    told, _ = client.predict("emotion=0", api_name="/merge")
    assert told["norm"] == 0


def told_json(method: str) -> str:
    """A recipe of one adapter by some method, as JSON."""
    return json.dumps({"backbone": "tiny", "method": method, "adapters": [{"name": "emotion"}]})


@pytest.mark.parametrize("method", ["exact", "ties"])
def test_an_exported_merge_is_an_adapter_for_peft(client: Client, lab: Lab, method: str, tmp_path: Path):
    recipe = MergeRecipe.parse("emotion=1,landmarks:r4=0.5", "tiny").model_copy(update={"method": method})
    text = recipe.model_dump_json()
    _, archive = client.predict(text, True, api_name="/merge")
    zipfile.ZipFile(archive).extractall(tmp_path)
    (config,) = tmp_path.rglob("adapter_config.json")
    factors = load_factors(config.parent, lab.backbone)
    merged = lab.merger.merged(recipe).deltas
    assert factors.keys() == merged.keys()
    for target, delta in merged.items():
        torch.testing.assert_close(factors[target].delta(), delta, atol=1e-6, rtol=1e-4)


def test_a_merge_that_must_look_at_images_is_not_exported(client: Client):
    with pytest.raises(AppError, match="needs images"):
        client.predict(told_json("iteris"), True, api_name="/merge")


def test_adapters_are_listed_with_what_they_answer(client: Client, lab: Lab):
    listed = {one["name"]: one for one in client.predict(api_name="/adapters")}
    assert {name: one["ranks"] for name, one in listed.items()} == lab.ranks()
    assert listed["emotion"]["labels"] == list(lab.tasks()["emotion"].labels)
    assert listed["age_regression"]["unit"] == "years"
    assert listed["landmarks"]["framing"] == "face"
    assert listed["galaxy"]["licence"] == "MIT"
    assert "unit" not in listed["emotion"]


def test_scores_on_val_are_listed_by_rank():
    found = {one["name"]: one for one in api.listed(Lab())}["age_class"]
    assert list(found["val"]["r16"]) == ["macro_f1", "accuracy"]
    assert found["val"]["r16"]["macro_f1"].keys() == {"value", "low", "high", "n"}


@pytest.mark.parametrize(
    ("endpoint", "given", "line"),
    [
        ("/predict", (PHOTO, "nobody=1"), "no adapter named 'nobody'"),
        ("/predict", (PHOTO, "emotion=3"), "names no merge: .*less than or equal to 2"),
        ("/predict", (PHOTO, '{"adapters": 3}'), "this is no recipe"),
        ("/predict", (PHOTO, '{"adapters": [{"name": "emotion"}]}'), "the recipe is for the backbone dinov2-small"),
        ("/predict", (PHOTO, told_json("tyes")), "did you mean 'ties'"),
        ("/predict", (PHOTO, told_json("iteris")), "IterIS needs images"),
        ("/predict", ({"path": str(PORTRAIT)},), "the path as the upload gave it"),
        ("/merge", ("emotion",), None),
        ("/merge", (told_json("ties").replace('"method"', '"knobs": {"x": 1}, "method"'),), "no knob 'x'"),
        ("/compare", (PHOTO, []), "there are 0 recipes: give 1 to 16"),
        ("/compare", (PHOTO, ["emotion=1"] * 17), "there are 17 recipes"),
    ],
)
def test_what_is_wrong_comes_as_one_line(client: Client, endpoint: str, given: tuple, line: str | None):
    if line is None:
        assert client.predict(*given, api_name=endpoint)
        return
    with pytest.raises(AppError, match=line) as caught:
        client.predict(*given, api_name=endpoint)
    assert "\n" not in str(caught.value)


def test_no_file_of_the_server_can_be_named(tiny_address: str, lab: Lab):
    for photo in (str(PORTRAIT), None, {"path": str(PORTRAIT)}, {"path": str(PORTRAIT), "meta": {}}):
        with pytest.raises(DataError, match="a photo is"):
            api.path_of(photo)
    # With the mark of a file, gradio refuses what was not sent.
    marked = {"path": str(PORTRAIT), "meta": {"_type": "gradio.FileData"}}
    with httpx.Client(base_url=f"{tiny_address}/gradio_api", timeout=60) as http:
        event = http.post("/call/v2/predict", json={"photo": marked}).json()["event_id"]
        assert "event: error" in http.get(f"/call/predict/{event}").text
    for recipe in (None, 3, {"adapters": []}):
        with pytest.raises(DataError, match="a recipe is a text"):
            api.recipe_of(lab, recipe)


def code(language: str) -> str:
    """The only block of some language in the document."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    return found


def test_the_documents_python_runs(tiny_address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(PORTRAIT.parent)
    text = code("python").replace("http://127.0.0.1:7860", tiny_address).replace("portrait.jpg", PORTRAIT.name)
    values: dict[str, Any] = {}
    exec(text.replace("dinov2-small", "tiny"), values)
    assert set(values["answer"]["faces"][0]["predictions"]) >= {"emotion", "landmarks"}
    assert [merge["recipe"]["method"] for merge in values["both"]["merges"]] == ["exact", "ties"]
    assert zipfile.is_zipfile(values["archive"])
    assert "landmarks [4, 16] MIT" in capsys.readouterr().out


def test_the_documents_curl_runs(tiny_address: str):
    sending, asking, fetching = (shlex.split(line) for line in code("sh").splitlines())
    assert sending[0] == asking[0] == fetching[0] == "curl"
    with httpx.Client(timeout=60) as http:
        (path,) = http.post(
            sending[-1].replace("http://127.0.0.1:7860", tiny_address), files={"files": (PORTRAIT.name, PORTRAIT.read_bytes())}
        ).json()
        body = asking[asking.index("-d") + 1].replace("PATH", path)
        header = dict([asking[asking.index("-H") + 1].split(": ")])
        event = http.post(asking[-1].replace("http://127.0.0.1:7860", tiny_address), content=body, headers=header).json()[
            "event_id"
        ]
        answer = http.get(fetching[-1].replace("http://127.0.0.1:7860", tiny_address).replace("EVENT", event)).text
    assert "event: complete" in answer
    (found,) = json.loads(answer.split("event: complete\ndata: ")[1])
    assert found["recipe"]["adapters"][1]["weight"] == 0.5
    assert len(found["faces"]) == 1


def test_the_document_names_every_endpoint():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert all(f"| `/{name}` |" in text for name in NAMES)
    assert json.loads(code("json"))["mcpServers"]["lora-lab"]["url"].endswith("/gradio_api/mcp/")
    assert f"1 to {api.MOST_RECIPES} recipes" in text


def rpc(tiny_address: str, method: str, **params: Any) -> dict[str, Any]:
    """What the MCP server answers, at the address in the document."""
    place = json.loads(code("json"))["mcpServers"]["lora-lab"]["url"].replace("http://127.0.0.1:7860", tiny_address)
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    accept = {"Accept": "application/json, text/event-stream"}
    reply = httpx.post(place, json=body, headers=accept, timeout=60).raise_for_status().text
    return json.loads(reply.split("data: ", 1)[1])["result"]


@pytest.mark.skipif(find_spec("mcp") is None, reason="the extra mcp is not installed")
def test_the_endpoints_are_tools_for_language_models(tiny_address: str, lab: Lab):
    tools = {tool["name"]: tool for tool in rpc(tiny_address, "tools/list")["tools"]}
    assert list(tools) == NAMES
    for name, tool in tools.items():
        doc = getattr(api.Endpoints, name).__doc__ or ""
        assert tool["description"].startswith(doc.split("\n")[0])
    assert tools["predict"]["inputSchema"]["required"] == ["photo"]
    assert "landmarks:r16=0.5" in tools["merge"]["inputSchema"]["properties"]["recipe"]["description"]
    sent = "data:image/jpeg;base64," + base64.b64encode(PORTRAIT.read_bytes()).decode()
    answer = rpc(tiny_address, "tools/call", name="predict", arguments={"photo": sent, "recipe": "emotion=1"})
    expected = lab.predict(Photo.read(PORTRAIT), MergeRecipe.parse("emotion=1", "tiny")).to_json()
    assert str(expected["faces"][0]["predictions"]["emotion"]["answer"]) in answer["content"][0]["text"]
    wrong = rpc(tiny_address, "tools/call", name="merge", arguments={"recipe": "nobody=1"})
    assert wrong["isError"]
    assert "no adapter named 'nobody'" in wrong["content"][0]["text"]


def test_tools_without_the_package_are_told(tiny_lab: Lab, monkeypatch: pytest.MonkeyPatch):
    from lora_lab import ui

    monkeypatch.setattr(ui, "find_spec", lambda name: None)
    with pytest.raises(LoraLabError, match=r"install lora-lab\[mcp\]"):
        ui.launch(tiny_lab, mcp=True)
