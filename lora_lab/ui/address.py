"""Where the page listens, and that it reaches itself there whatever the environment says of proxies."""

import os
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from lora_lab.errors import LoraLabError
from lora_lab.ui.words import _

PORT = "GRADIO_SERVER_PORT"
USUAL = 7860
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
KNOWN = ("http", "https", "socks5", "socks5h")
"""Kinds of proxies that gradio's client knows; it refuses to start beside others."""


def port_of(environment: Mapping[str, str]) -> int:
    """The port that GRADIO_SERVER_PORT names, else 7860. Raises `LoraLabError`."""
    text = environment.get(PORT, "").strip() or str(USUAL)
    if not text.isdecimal() or int(text) > 65535:
        raise LoraLabError(_("{variable} is {text!r}: set it to a port from 0 to 65535").format(variable=PORT, text=text))
    return int(text)


def free_port(host: str, port: int) -> int:
    """The port, or for 0 one that is free. Raises `LoraLabError` where it, or the address, cannot be had."""
    try:
        kind, _type, _protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            return trial.getsockname()[1]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        told = _("the page cannot listen at {host}, port {port} ({reason}): name others with --host and --port")
        raise LoraLabError(told.format(host=host, port=port, reason=reason)) from error


def reach_oneself() -> None:
    """Let no proxy stand between this program and its own page; gradio asks for the page once before it says where it is."""
    for name in (one for proxy in PROXIES for one in (proxy, proxy.upper())):
        if urlsplit(os.environ.get(name, "")).scheme not in (*KNOWN, "") or _lacks_socks(os.environ.get(name, "")):
            del os.environ[name]
    for name in ("no_proxy", "NO_PROXY"):
        others = [one for one in os.environ.get(name, "").split(",") if one]
        os.environ[name] = ",".join(dict.fromkeys([*others, *LOOPBACK]))


def _lacks_socks(proxy: str) -> bool:
    from importlib.util import find_spec

    return urlsplit(proxy).scheme.startswith("socks") and find_spec("socksio") is None
