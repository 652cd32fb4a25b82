"""The words of the page: all are collected, and in another language nothing is left of the English ones but the library's."""

import ast
import json
import os
import re
import string
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from conftest import PORTRAIT

from lora_lab.errors import NotFoundError
from lora_lab.findings import MEASURES
from lora_lab.interference import MEASURES as OF_WEIGHTS
from lora_lab.merging import MERGE_METHODS
from lora_lab.nearness import Basis
from lora_lab.repairs import REPAIRS
from lora_lab.suggestions import SUGGESTERS
from lora_lab.tasks import TASKS
from lora_lab.ui.expectations import BASES
from lora_lab.ui.words import DOMAIN, LANGUAGES, load

ROOT = Path(__file__).parent.parent.parent
FIELD = re.compile(r"(\{\w[^{}]*\})")
Words = tuple[str, ...]
"""A text, or its singular and plural."""

PAGE = """
import json, sys
from pathlib import Path
import gradio as gr
from gradio.components.api_component import Api
from lora_lab.lab import Lab
from lora_lab.recent import Recent
from lora_lab.ui import build
from lora_lab.ui.merge_panel import Look, respond

lab = Lab("tiny", Path(sys.argv[1]))
found = []
# Endpoints for programs are blocks as well.
for block in [one for one in build(lab).blocks.values() if not isinstance(one, Api)]:
    where = f"{type(block).__name__} {block.elem_id or ''}"
    texts = [getattr(block, name, None) for name in ("label", "placeholder", "info")]
    texts += [block.value] if isinstance(block, gr.Markdown | gr.HTML | gr.Button) else []
    texts += [title for title, _ in block.choices or []] if isinstance(block, gr.Dropdown | gr.Radio) else []
    found += [(where, text) for text in texts if text]
now = lab.best()
_, times, answers, faces = respond(lab, Recent(2), sys.argv[2], now, Look(pinned=now))
found += [("times", times), ("answers", answers), *(("faces", title) for title, _ in faces["choices"])]
print(json.dumps(found))
"""


def as_words(message: str | Iterable[str]) -> Words:
    return (message,) if isinstance(message, str) else tuple(message)


@cache
def template() -> set[Words]:
    """What translators are given."""
    with (LANGUAGES / f"{DOMAIN}.pot").open("rb") as file:
        return {as_words(message.id) for message in read_po(file) if message.id}


def in_code() -> Iterator[tuple[Words, frozenset[str] | None]]:
    """Every text inside `_` or `_n`, and then once more for every `.format`, with the names that it is given."""
    for path in (ROOT / "lora_lab" / "ui").glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        named = [(n.lineno, n.targets[0], n.value) for n in nodes if isinstance(n, ast.Assign)]
        for node in nodes:
            if isinstance(node, ast.Call) and words_of(node):
                yield words_of(node), None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
                texts = node.func.value
                if isinstance(texts, ast.Name):
                    before = [(n, value) for n, target, value in named if ast.dump(target) == stored(texts) and n < node.lineno]
                    texts = max(before, key=lambda one: one[0])[1] if before else texts
                if words_of(texts):
                    yield words_of(texts), frozenset(str(keyword.arg) for keyword in node.keywords)


def stored(name: ast.Name) -> str:
    return ast.dump(ast.Name(name.id, ast.Store()))


def words_of(node: ast.AST) -> Words:
    """The texts of a call of `_` or `_n`; none of anything else."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("_", "_n")):
        return ()
    texts = node.args[: 1 if node.func.id == "_" else 2]
    assert all(isinstance(text, ast.Constant) for text in texts), f"no plain text: {ast.unparse(node)}"
    return tuple(str(text.value) for text in texts if isinstance(text, ast.Constant))


def test_translators_are_given_all_words_of_the_code():
    extracted = extract_from_dir(ROOT / "lora_lab" / "ui", keywords={"_": None, "_n": (1, 2)})
    collected = {as_words(message) for _, _, message, _, _ in extracted}
    assert template() == collected, "the words of the page have changed: run `make words`"
    # What hides inside an f-string is seen by Python, and not by every version of what collects.
    assert {words for words, _ in in_code()} == collected


def test_every_value_in_braces_is_given():
    found = list(in_code())
    written = Counter(words for words, given in found if given is None)
    filled = Counter(words for words, given in found if given is not None)
    for words, given in found:
        if given is not None:
            assert all({name for _, name, _, _ in string.Formatter().parse(text) if name} == given for text in words), words
    open_ones = [words for words in written if any(map(FIELD.search, words))]
    assert open_ones
    assert all(written[words] == filled[words] for words in open_ones)


def test_what_goes_wrong_is_said_in_the_language_of_the_page():
    for path in (ROOT / "lora_lab" / "ui").glob("*.py"):
        # What is said of a language that is not there cannot be said in it.
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path.name != "words.py" else ():
            said = isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("Error", "gr.Info", "gr.Warning"))
            if isinstance(node, ast.Call) and said and node.args:
                literal = ast.Constant | ast.JoinedStr
                assert not isinstance(node.args[0], literal), f"{path.name}, line {node.lineno}: not to be translated"


def test_whatever_a_figure_rests_on_has_a_word():
    assert set(BASES) == set(get_args(Basis))


@pytest.fixture(scope="module")
def abroad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with one language, in which all that is not a value stands in brackets."""
    root = tmp_path_factory.mktemp("abroad")
    for source, target in ((ROOT, root), (ROOT / "assets", root / "assets")):
        target.mkdir(exist_ok=True)
        for path in source.iterdir():
            if path.name not in ("assets", "languages") and not path.name.startswith("."):
                (target / path.name).symlink_to(path)
    catalog = Catalog(locale="eo")
    for words in template():
        strange = [strangely(text) for text in words]
        catalog.add(words if len(words) > 1 else "".join(words), strange if len(words) > 1 else strange[0])
    folder = root / "assets" / "languages" / "eo" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    with (folder / f"{DOMAIN}.mo").open("wb") as file:
        write_mo(file, catalog)
    return root


def strangely(text: str) -> str:
    """A text with brackets around all but its values."""
    return "".join(part if FIELD.fullmatch(part) or not part else f"⟦{part}⟧" for part in FIELD.split(text))


def run(folder: Path, language: str, *command: str) -> subprocess.CompletedProcess[str]:
    """A Python in a checkout, for a language."""
    own = {"LORA_LAB_LANGUAGE": language, "LORA_LAB_CACHE": str(folder / "cache"), "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=os.environ | own, capture_output=True, text=True, encoding="utf-8"
    )


def of_the_library() -> set[str]:
    """The words that are data, wherever they stand."""
    found = {*MEASURES.values(), *OF_WEIGHTS.values(), *SUGGESTERS.values(), *REPAIRS.values(), *MERGE_METHODS.values()}
    words = {one.title for one in found} | {task.title for task in TASKS.values()}
    for task in TASKS.values():
        words |= {task.name, task.unit or "", *task.labels, f"{task.points} points"}
    for method in MERGE_METHODS.values():
        words |= {method.summary, method.paper}
    # What the cards of these random adapters say of their data and terms.
    return words | {"random", "MIT"}


def of_knobs() -> set[str]:
    """Words of which some, such as Rank, are the page's as well."""
    return {text for method in MERGE_METHODS.values() for knob in method.knobs for text in (knob.title, knob.meaning)}


def left(where: str, text: str) -> str:
    """What of a text, with its hints and labels for readers of screens, is neither translated nor the library's."""
    text = re.sub(r"⟦[^⟦⟧]*⟧", "", re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL))
    text = " ".join([*re.findall(r'(?:title|aria-label)="([^"]*)"', text), re.sub(r"<[^>]*>", " ", text)])
    for words in sorted(of_the_library() | (of_knobs() if "knob-" in where else set()), key=len, reverse=True):
        text = text.replace(words, "")
    # A single letter is a sign: r16, ΔW.
    return " ".join(re.findall("[A-Za-z]{2,}", text))


def test_a_page_in_another_language_has_no_english_left(abroad: Path, adapters_root: Path):
    done = run(abroad, "eo", "-c", PAGE, str(adapters_root), str(PORTRAIT))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) > 100
    assert {where.split()[0] for where, _ in found} >= {"Tab", "Button", "Markdown", "HTML", "Dropdown", "answers", "times"}
    assert {(where, words) for where, text in found if (words := left(where, text))} == set()


def test_one_line_says_that_a_language_is_not_there(abroad: Path):
    languages = abroad / "assets" / "languages"
    assert load(languages, "eo").ngettext("{number} photo", "{number} photos", 2) == "{number}⟦ photos⟧"
    assert load(languages, "en").gettext("Merge") == "Merge"
    told = "LORA_LAB_LANGUAGE: no language named 'fi'; known: en, eo"
    with pytest.raises(NotFoundError, match=re.escape(told)):
        load(languages, "fi")
    done = run(abroad, "fi", "-m", "lora_lab.cli", "app")
    assert (done.returncode, done.stderr.strip()) == (2, f"lora-lab: {told}")
