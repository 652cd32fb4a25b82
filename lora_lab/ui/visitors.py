"""Who asks, and whether they may keep something here: the one place where the page decides it.

A browser is known by a random secret in a cookie, which no other browser has; a program without cookies by its gradio session.
`api_visibility="private"` hides an endpoint and locks nothing: anybody who reaches the port may call any function of the page
with any values. So the page works on a `VisitorLab`, which is for each call the lab of whoever makes it.
"""

import os
import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gradio.context import LocalContext

from lora_lab.errors import LoraLabError
from lora_lab.lab import Lab
from lora_lab.owners import DAYS
from lora_lab.ui.words import _

COOKIE = "lora-lab-visitor"
SHORTEST = 32
ALLOW = "LORA_LAB_ALLOW_CHANGES"
OFF = _("nothing can be kept on this server: run LoRA Lab on your own machine, or ask whoever runs it for --allow-changes")
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


class VisitorLab(Lab):
    """For each call the lab of whoever makes it: everybody's, with what they keep themselves where that is allowed.

    `allowed` is whether the operator lets all visitors keep things, `local` whether only this machine can reach the page.
    """

    def __init__(self, everybody: Lab, allowed: bool, local: bool):
        object.__getattribute__(self, "__dict__").update(_everybody=everybody, _allowed=allowed, _local=local)

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__(self, "__dict__")
        lab: Lab = own["_everybody"]
        request = LocalContext.request.get(None)
        if request is not None and (own["_allowed"] or (own["_local"] and is_near(request))):
            owner = owner_of(request)
            lab = lab.of(owner) if owner else lab
        return getattr(lab, name)


def changing(lab: Lab) -> Lab:
    """The lab of whoever asks, to keep something in. Raises `LoraLabError` where they may not."""
    if lab.own is None:
        raise LoraLabError(OFF)
    return lab


def own_of(lab: Lab) -> Path:
    """The folder of whoever asks. Raises `LoraLabError` where they may keep nothing."""
    own = changing(lab).own
    assert own is not None, "asked for above"
    return own


def asking() -> str | None:
    """Who makes the call that is worked on; none where nobody does, or nobody can tell."""
    request = LocalContext.request.get(None)
    return None if request is None else owner_of(request)


def owner_of(request: Any) -> str | None:
    """The secret by which a visitor is known."""
    token = request.cookies.get(COOKIE) or ""
    if len(token) >= SHORTEST:
        return f"browser {token}"
    session = getattr(request, "session_hash", None)
    return f"session {session}" if session else None


def is_near(request: Any) -> bool:
    """Whether a request comes to this machine under its own name, and from no proxy that passes on what others ask."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return is_loopback(host) and not any(name in request.headers for name in FORWARDED)


def is_loopback(host: str) -> bool:
    """Whether an address is one that only this machine reaches."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_local(host: str) -> bool:
    """Whether a page that listens on this address is reached by this machine alone, and is neither a Space nor shared."""
    shared = os.environ.get("GRADIO_SHARE", "").lower() == "true"
    return is_loopback(host) and not shared and "SPACE_ID" not in os.environ


def is_allowed() -> bool:
    """Whether the environment lets all visitors keep things, for servers that take no option."""
    return os.environ.get(ALLOW, "").lower() in ("1", "true", "yes")


class Known:
    """Gives each browser that opens the page its secret, in a cookie that no script reads and no other site sends."""

    def __init__(self, app: Callable[..., Any]):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI application around another."""
        headers = dict(scope.get("headers", ()))
        if scope["type"] != "http" or b"text/html" not in headers.get(b"accept", b""):
            await self._app(scope, receive, send)
            return
        secret = _secret_in(headers.get(b"cookie", b"").decode("latin-1")) or secrets.token_urlsafe(SHORTEST)
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        cookie = f"{COOKIE}={secret}; Path=/; Max-Age={DAYS * 86400}; HttpOnly; SameSite=Lax{secure}"

        async def known(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"set-cookie", cookie.encode("latin-1"))]}
            await send(message)

        await self._app(scope, receive, known)


def _secret_in(cookies: str) -> str | None:
    try:
        found = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return None
    value = found.value if found else ""
    return (
        value
        if SHORTEST <= len(value) <= 100 and value.replace("-", "").replace("_", "").isalnum() and value.isascii()
        else None
    )
