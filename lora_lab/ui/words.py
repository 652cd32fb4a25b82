"""The words that people read on the page, in the language that the variable LORA_LAB_LANGUAGE asks for, such as `de`.

They stand in the code in English, and translations lie in `assets/languages`; one language holds for the whole process. What
comes from outside this folder (titles of tasks, methods and knobs, labels of classes, the library's errors) is data of the
library, and stays as it is.
"""

import gettext
import os
from pathlib import Path

from lora_lab.bundled import bundled
from lora_lab.catalog import unknown
from lora_lab.errors import NotFoundError

DOMAIN, ENGLISH = "lora_lab", "en"
LANGUAGES = bundled("assets", "languages")


def load(folder: Path, code: str) -> gettext.NullTranslations:
    """The translation into a language, from `<folder>/<code>/LC_MESSAGES/lora_lab.mo`. Raises `NotFoundError`."""
    if code == ENGLISH:
        return gettext.NullTranslations()
    try:
        return gettext.translation(DOMAIN, folder, [code])
    except FileNotFoundError as error:
        there = sorted(path.parent.parent.name for path in folder.glob(f"*/LC_MESSAGES/{DOMAIN}.mo"))
        raise NotFoundError(f"LORA_LAB_LANGUAGE: {unknown('language', code, [ENGLISH, *there])}") from error


_translation = load(LANGUAGES, os.environ.get("LORA_LAB_LANGUAGE") or ENGLISH)
_ = _translation.gettext
_n = _translation.ngettext
