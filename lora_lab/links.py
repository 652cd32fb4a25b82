"""A recipe as text that people hand on: a code for links, a link, and a snippet of Python.

The code is base64url of zlib of the recipe's JSON without what is at its default. Beside the recipe's own fields, `off` may
list adapters that are switched off with a weight of their own; it is no part of the merge, and only the page shows it.
"""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import TypeAdapter, ValidationError

from lora_lab.errors import DataError
from lora_lab.merging import MERGE_METHODS, MergeRecipe, RecipeAdapter
from lora_lab.merging.recipe import LONGEST as LONGEST_RECIPE
from lora_lab.merging.recipe import faults

PARAMETER, OFF = "recipe", "off"
LONGEST = 16_000
"""Characters of a code; servers begin to refuse addresses before that."""
LARGEST = LONGEST_RECIPE
"""Bytes of a recipe's JSON; a code that unpacks to more was made to fill the memory."""
_OFF = TypeAdapter(tuple[RecipeAdapter, ...])
_AGAIN = "copy the whole link again"


def to_code(recipe: MergeRecipe, off: Sequence[RecipeAdapter] = ()) -> str:
    """A recipe as letters, digits, - and _, with adapters that are off. Raises `DataError` for one that is too long."""
    fields = recipe.model_dump(exclude_defaults=True)
    if off:
        fields[OFF] = [one.model_dump(exclude_defaults=True) for one in off]
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    code = base64.urlsafe_b64encode(zlib.compress(text, 9)).rstrip(b"=").decode()
    if len(text) > LARGEST or len(code) > LONGEST:
        raise DataError(f"a recipe of {len(recipe.adapters)} adapters is too long for a link: hand on its JSON instead")
    return code


def from_code(code: str) -> MergeRecipe:
    """The recipe of a code. Raises `DataError` where it is none."""
    return with_off(code)[0]


def with_off(code: str) -> tuple[MergeRecipe, tuple[RecipeAdapter, ...]]:
    """The recipe of a code, and the adapters that are off beside it. Raises `DataError` where it is none."""
    if len(code) > LONGEST:
        raise DataError(f"the code of this link has {len(code)} characters, over {LONGEST}: it holds no merge")
    text = _unpacked(code)
    try:
        fields = json.loads(text)
        off = fields.pop(OFF, []) if isinstance(fields, dict) else []
        return MergeRecipe.model_validate(fields), _OFF.validate_python(off)
    except ValidationError as error:
        raise DataError(f"this link holds no merge: {faults(error)}; make the link anew") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"this link holds no merge, but other data: {_AGAIN}") from error


def link(base_url: str, recipe: MergeRecipe, off: Sequence[RecipeAdapter] = ()) -> str:
    """An address with the recipe in its query, in the place of one there; all else in it stays."""
    parts = urlsplit(base_url)
    others = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != PARAMETER]
    return urlunsplit(parts._replace(query=urlencode([*others, (PARAMETER, to_code(recipe, off))])))


def snippet(recipe: MergeRecipe) -> str:
    """Python that rebuilds exactly this recipe, and reads a photo by it."""
    sees = _sees_images(recipe)
    imports = ["from pathlib import Path", "", "from lora_lab.lab import Lab"]
    imports += ["from lora_lab.merging import MergeRecipe, RecipeAdapter"]
    imports += ["from lora_lab.sights import open_sight"] if sees else []
    fields = [f"    backbone={recipe.backbone!r},", "    adapters=("]
    fields += [f"        {_adapter(adapter)}," for adapter in recipe.adapters]
    fields += ["    ),", f"    method={recipe.method!r},", f"    knobs={recipe.knobs!r},", f"    seed={recipe.seed!r},"]
    fields += [f"    repair={recipe.repair!r},"] if recipe.repair is not None else []
    reading = ["lab = Lab(recipe.backbone, precision=None)"]
    if sees:
        reading += ['sight = open_sight(lab.serving, lab.heads(recipe), Path("photos"), 1000)  # a folder of your photos']
    model = "lab.merge(recipe, sight)" if sees else "lab.merge(recipe)"
    reading += [f"model = {model}", 'print(model.predict(lab.photo(Path("photo.jpg")).image))']
    return "\n".join([*imports, "", "recipe = MergeRecipe(", *fields, ")", *reading, ""])


def _unpacked(code: str) -> bytes:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", code):
        raise DataError(f"the code of this link holds signs that none has, or nothing at all: {_AGAIN}")
    unpack = zlib.decompressobj()
    try:
        text = unpack.decompress(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)), LARGEST + 1)
    except (binascii.Error, zlib.error) as error:
        raise DataError(f"this link is damaged: {_AGAIN}") from error
    if len(text) > LARGEST:
        raise DataError(f"this link unpacks to more than {LARGEST >> 10} KiB: it holds no merge")
    if not unpack.eof or unpack.unused_data:
        raise DataError(f"this link is cut off, or has something behind it: {_AGAIN}")
    return text


def _adapter(adapter: RecipeAdapter) -> str:
    layers = f", layers={adapter.layers!r}" if adapter.layers else ""
    return f"RecipeAdapter(name={adapter.name!r}, rank={adapter.rank!r}, weight={adapter.weight!r}{layers})"


def _sees_images(recipe: MergeRecipe) -> bool:
    # A kept merge is not in the catalog, and needs no images any more.
    seeing = {method.name for method in MERGE_METHODS.values() if method.needs in ("images", "labels")}
    return recipe.repair is not None or recipe.method in seeing
