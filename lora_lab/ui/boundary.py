"""The boundary between the page and whoever calls it: numbers are brought into range on the way in, faults become one line.

Gradio answers an exception that is not its own with `{"error": null}`, a fault of a route with a bare "Internal Server Error",
and writes `NaN`, which no JSON has. `Page` surrounds every event and endpoint, `HANDLERS` the routes.
"""

import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import gradio as gr
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from gradio.exceptions import ComponentProcessingError, Error
from gradio.route_utils import FnIndexInferError
from starlette.exceptions import HTTPException

from lora_lab.errors import DataError, LoraLabError
from lora_lab.ui.words import _

MOST = 300
"""Characters of a line."""
TITLE = _("That did not work")
_log = logging.getLogger("lora_lab.ui")
# An underscore within a word starts nothing, and names are full of them; a colon or @ makes a link of an address.
_MARKDOWN = re.compile(r"""[\\`*\[\]<>&|~$#"':@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=www)\.""")


def line_of(text: str) -> str:
    """A text as one line of 1 to 300 characters, in which no markup is left: it is shown as HTML."""
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split()) or _("something went wrong")
    safe = escape(plain, quote=False)
    if len(safe) <= MOST:
        return safe
    kept = plain[: MOST - 1]
    while len(safe := escape(kept, quote=False)) > MOST - 1:
        kept = kept[:-1]
    return f"{safe}…"


def literal(text: str) -> str:
    """A text as Markdown and HTML show it sign by sign, whatever markup, link, formula or table it would be."""
    return _MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", text)


def unexpected(where: str, error: BaseException) -> str:
    """The line of a fault of ours; the traceback goes to the log of the server."""
    _log.error("a fault in %s", where, exc_info=error)
    told = _("Something went wrong inside {where} ({kind}); the log of the server has the details.")
    return line_of(told.format(where=where, kind=type(error).__name__))


def finite(value: Any) -> Any:
    """The same data with None in the place of numbers that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value


def clamped(number: Any, low: float | None, high: float | None) -> float | int:
    """A number within bounds; 0, or the bound next to it, where there is none. Raises `DataError` for what is no number."""
    if number is None or number == "" or (isinstance(number, float) and math.isnan(number)):
        number = 0
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise DataError(_("a number is needed here, and this is {given!r}").format(given=number))
    if low is not None:
        number = max(low, number)
    return number if high is None else min(high, number)


class Page(gr.Blocks):
    """Blocks whose callers get an answer in JSON or one line, whatever they send and whatever happens inside."""

    async def process_api(self, block_fn: Any, inputs: list[Any], *args: Any, **options: Any) -> dict[str, Any]:
        """As gradio's, with numbers brought into range. Raises only `gr.Error`, of one line."""
        fn = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        where = fn.api_name if isinstance(fn.api_name, str) else fn.name or _("the page")
        try:
            if options.get("iterator") is None:
                inputs = _arguments(fn.inputs, inputs)
            output = await super().process_api(fn, inputs, *args, **options)
        except Error as error:
            error.message, error.title = line_of(error.message), TITLE
            raise
        except Exception as error:
            raise shown_error(error, where) from error
        return {**output, "data": finite(output["data"])}


def shown_error(error: Exception, where: str) -> gr.Error:
    """What the page shows, and the API says, of a mistake that the user can mend, or of a fault of ours."""
    if isinstance(error, ComponentProcessingError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    line = line_of(str(error)) if isinstance(error, LoraLabError) else unexpected(where, error)
    return gr.Error(line, title=TITLE, print_exception=False)


def _arguments(blocks: Sequence[Any], inputs: Any) -> list[Any]:
    if not isinstance(inputs, list) or len(inputs) != len(blocks):
        given = len(inputs) if isinstance(inputs, list) else type(inputs).__name__
        raise DataError(_("this takes {wanted} values, and there are {given}").format(wanted=len(blocks), given=given))
    return [
        clamped(one, block.minimum, block.maximum) if isinstance(block, gr.Slider | gr.Number) else one
        for block, one in zip(blocks, inputs, strict=True)
    ]


def _reply(status: int, line: str) -> JSONResponse:
    return JSONResponse({"error": line, "detail": line}, status)


async def _malformed(_request: Request, error: Exception) -> JSONResponse:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in faults)
    return _reply(422, line_of(_("the body of this call does not fit: {faults}").format(faults=told)))


async def _no_call(request: Request, error: Exception) -> JSONResponse:
    # What gradio's routes raise where a call names no function, or an argument that its function lacks.
    _log.warning("a call that does not fit, at %s", request.url.path, exc_info=error)
    told = _("this call fits no endpoint ({kind}: {fault}); Use via API, at the foot of the page, lists them")
    return _reply(404, line_of(told.format(kind=type(error).__name__, fault=error)))


async def _fault(request: Request, error: Exception) -> JSONResponse:
    return _reply(500, unexpected(request.url.path, error))


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = error.detail if isinstance(error.detail, str) else json.dumps(error.detail)
    return JSONResponse({"error": line_of(detail), "detail": line_of(detail)}, error.status_code, error.headers)


HANDLERS: Mapping[type[Exception], Callable[..., Any]] = {
    RequestValidationError: _malformed,
    HTTPException: _refused,
    FnIndexInferError: _no_call,
    KeyError: _no_call,
    TypeError: _no_call,
    ValueError: _no_call,
    Exception: _fault,
}
"""What the routes answer, by what is raised in them."""


def with_notes(told: str, notes: Sequence[str]) -> str:
    """Markdown with what is worth knowing of the data below it, as text."""
    return "\n".join([told, *(["", *(f"- {literal(line)}" for line in notes)] if notes else [])])
