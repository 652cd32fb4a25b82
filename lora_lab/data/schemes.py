"""Label sets of known data sets, and other words for a task's classes: tables by which labels become a task's own.

Numbers mean nothing by themselves: FER2013's 4 is sad, in the order of the names it is neutral. So a label set with numbers
is read by a table that is named, or by pairs, and never by its order.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_lab.cache import small_text
from lora_lab.data.labels import plain
from lora_lab.data.report import listed
from lora_lab.errors import DataError, NotFoundError
from lora_lab.tasks.base import Task

NUMBER = re.compile(r"-?\d+(\.0+)?")
IN_ORDER = "in-order"
PAIRS = "pairs"


@dataclass(frozen=True)
class Scheme:
    """What the numbers of a known data set mean, in its own words, and where that is written."""

    tasks: tuple[str, ...]
    names: Mapping[str, str]
    documented: str


def _numbered(first: int, names: str) -> dict[str, str]:
    return {str(number): name.strip() for number, name in enumerate(names.split(","), first)}


FACES = ("emotion",)
SEVEN = "angry, disgust, fear, happy, sad, surprise, neutral"
SCHEMES: Mapping[str, Scheme] = {
    "fer2013": Scheme(FACES, _numbered(0, SEVEN), "the contest's data page (Goodfellow et al. 2013)"),
    "expw": Scheme(FACES, _numbered(0, SEVEN), "the readme of ExpW's labels"),
    "ferplus": Scheme(
        FACES,
        _numbered(0, "neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, no face"),
        "the README of https://github.com/microsoft/FERPlus",
    ),
    "rafdb": Scheme(
        FACES,
        _numbered(1, "surprise, fear, disgust, happiness, sadness, anger, neutral"),
        "the readme of RAF-DB's basic labels (Li et al. 2017)",
    ),
    "affectnet": Scheme(
        FACES,
        _numbered(0, "neutral, happy, sad, surprise, fear, disgust, anger, contempt, none, uncertain, no face"),
        "the readme of AffectNet (Mollahosseini et al. 2017)",
    ),
    "ckplus": Scheme(
        FACES,
        _numbered(0, "neutral, anger, contempt, disgust, fear, happy, sadness, surprise"),
        "the readme of CK+ (Lucey et al. 2010)",
    ),
    "galaxy10": Scheme(
        ("galaxy",),
        _numbered(
            0,
            "disturbed, merging, round smooth, in-between round smooth, cigar shaped smooth, barred spiral, "
            "unbarred tight spiral, unbarred loose spiral, edge-on without bulge, edge-on with bulge",
        ),
        "https://astronn.readthedocs.io/en/latest/galaxy10.html",
    ),
    "eurosat": Scheme(
        ("land_cover",),
        _numbered(
            0,
            "annual crop, forest, herbaceous vegetation, highway, industrial, pasture, permanent crop, residential, river, "
            "sea lake",
        ),
        "https://github.com/phelber/EuroSAT; the names in order of the alphabet",
    ),
}
SYNONYMS: Mapping[str, Mapping[str, str]] = {
    "emotion": {
        **dict.fromkeys(("anger",), "angry"),
        **dict.fromkeys(("disgusted",), "disgust"),
        **dict.fromkeys(("fearful", "afraid", "scared"), "fear"),
        **dict.fromkeys(("happiness", "joy", "joyful"), "happy"),
        **dict.fromkeys(("sadness",), "sad"),
        **dict.fromkeys(("surprised",), "surprise"),
    },
    "galaxy": {
        **dict.fromkeys(("merging", "mergers"), "merger"),
        **dict.fromkeys(("elliptical galaxy", "ellipticals"), "elliptical"),
        **dict.fromkeys(("spiral galaxy", "spirals"), "spiral"),
    },
    "land_cover": {
        **dict.fromkeys(("industrial buildings",), "industrial"),
        **dict.fromkeys(("residential buildings",), "residential"),
        **dict.fromkeys(("sea", "lake"), "sea or lake"),
    },
}
"""Other words for a task's classes, which are taken without being asked for, and told."""
SCHEME_WORDS: Mapping[str, Mapping[str, str | None]] = {
    **dict.fromkeys(("ferplus", "affectnet", "ckplus"), dict.fromkeys(("contempt", "unknown", "none", "uncertain", "no face"))),
    "galaxy10": {
        "disturbed": None,
        **dict.fromkeys(("round smooth", "in-between round smooth", "cigar shaped smooth"), "elliptical"),
        **dict.fromkeys(("barred spiral", "unbarred tight spiral", "unbarred loose spiral"), "spiral"),
        **dict.fromkeys(("edge-on without bulge", "edge-on with bulge"), "edge on or unclear spiral"),
    },
}
"""What a label set's words become where its scheme is asked for; None: no class has them, and their images are left out."""


@dataclass(frozen=True)
class LabelTable:
    """How labels become a task's: `source` names the table, `given` what it says of each label beside the task's own names."""

    source: str
    given: Mapping[str, str | None]
    known: Mapping[str, str]

    def __call__(self, label: str) -> str | None:
        """The task's class, None for what is left out, the label itself where nothing is known of it."""
        wanted = self.given.get(_key(label), label)
        return None if wanted is None else self.known.get(plain(wanted), wanted)


def label_table(task: Task, asked: str | None, closed: bool = True) -> LabelTable:
    """The table for a task's labels: its own names with their synonyms, and a named scheme, a file, or pairs where asked.

    Where the task's classes are not `closed`, as those of one's own, pairs may name new ones.

    Raises `NotFoundError` for a scheme that is unknown and `DataError` for pairs that name no class.
    """
    known = {plain(word): label for word, label in SYNONYMS.get(task.name, {}).items()}
    known |= {plain(label): label for label in task.labels}
    if asked is None:
        return LabelTable("synonyms", {}, known)
    name = asked.strip().lower()
    bare = _bare(asked)
    if name == IN_ORDER:
        return LabelTable(IN_ORDER, {str(place): label for place, label in enumerate(task.labels)}, known)
    if bare in SCHEMES:
        return LabelTable(bare, _of_scheme(bare, task, closed), known)
    given = {_key(label): word or None for label, word in _pairs(asked)}
    wrong = sorted({word for word in given.values() if word and plain(word) not in known})
    if wrong and closed:
        raise DataError(f"--labels names {listed(wrong)}, which {task.name} has not; it has {', '.join(task.labels)}")
    return LabelTable(PAIRS, given, known)


def is_about(task: Task, asked: str | None) -> bool:
    """Whether what is asked for can be of a task's labels: of several tasks a label set is that of one."""
    if asked is None or asked.strip().lower() == IN_ORDER:
        return True
    if (bare := _bare(asked)) in SCHEMES:
        return task.name in SCHEMES[bare].tasks
    known = {plain(word) for word in (*task.labels, *SYNONYMS.get(task.name, {}))}
    words = {plain(word) for _, word in _pairs(asked) if word}
    return not words or bool(words & known)


def suggestion(task: Task, labels: Iterable[str]) -> str:
    """What to give with --labels, for labels that a task does not know."""
    wanted = {_key(label) for label in labels}
    fitting = [name for name, scheme in SCHEMES.items() if task.name in scheme.tasks and wanted <= set(scheme.names)]
    named = f"{', '.join(fitting)}, or pairs" if fitting else "pairs"
    return f'say what they mean with --labels: {named} such as "{min(wanted, default="0")}={task.labels[0]}, …"'


def is_number(label: str) -> bool:
    """Whether a label is a whole number, which by itself names no class."""
    return bool(NUMBER.fullmatch(label))


def _bare(asked: str) -> str:
    return re.sub(r"[-_ ]", "", asked.strip().lower()).replace("+", "plus")


def _key(label: str) -> str:
    return str(int(float(label))) if is_number(label) and len(label) < 16 else plain(label)


def _of_scheme(name: str, task: Task, closed: bool) -> dict[str, str | None]:
    scheme = SCHEMES[name]
    if closed and task.name not in scheme.tasks:
        fits = [other for other, one in SCHEMES.items() if task.name in one.tasks]
        raise DataError(f"--labels {name} is a label set of {scheme.tasks[0]}; for {task.name}: {', '.join([*fits, 'pairs'])}")
    words = {plain(word): label for word, label in SCHEME_WORDS.get(name, {}).items() if closed}
    given = {number: words.get(plain(word), word) for number, word in scheme.names.items()}
    return given | words


def _pairs(asked: str) -> list[tuple[str, str]]:
    if "=" not in asked:
        asked = _file(asked)
    parts = [part for part in re.split(r"[,;\n]", asked) if part.strip()]
    wrong = [part.strip() for part in parts if "=" not in part]
    if wrong:
        raise DataError(f"--labels has {listed(wrong)}, which are no pairs: write label=class, such as 4=sad")
    pairs = [tuple(map(str.strip, part.split("=", 1))) for part in parts]
    twice = sorted({a for a, b in pairs for c, d in pairs if _key(a) == _key(c) and b != d})
    if twice:
        raise DataError(f"--labels says two things of {listed(twice)}: give each label one class")
    return [(label, word) for label, word in pairs]


def _file(asked: str) -> str:
    path = Path(asked)
    if not path.is_file():
        raise NotFoundError(
            f"no label set {asked!r}: take {', '.join([*SCHEMES, IN_ORDER])}, pairs such as 4=sad, or a file of pairs"
        )
    text = small_text(path)
    if path.suffix.lower() != ".json":
        return text
    try:
        found = json.loads(text)
        return "\n".join(f"{label}={word or ''}" for label, word in found.items())
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(f'{path} holds no JSON object of labels and classes: write it as {{"4": "sad"}}') from error
