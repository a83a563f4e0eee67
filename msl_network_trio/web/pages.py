"""The files that browsers can load: the page of the network and its scripts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final

import attrs

_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",  # covers a WebSocket of the same host and port
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A cached script could be of another version than the page.
    "Cache-Control": "no-store",
}

_TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(
        (
            "dom.js",
            "errors.js",
            "exact-json.js",
            "format.js",
            "link.js",
            "literals.js",
            "method.js",
            "msl-network.js",
            "notifications.js",
            "page.js",
            "presence.js",
        ),
        "text/javascript; charset=utf-8",
    ),
}

_FOR_ANY_PAGE: Final = {"errors.js", "exact-json.js", "link.js", "msl-network.js", "presence.js"}
"""The files that pages of other origins may load; `HttpServer` checks the origins of those that connect."""


@attrs.frozen
class Page:
    """A file to send with status 200."""

    content_type: str
    """The value of the ``Content-Type`` header."""

    body: bytes
    """The contents of the file."""

    headers: Mapping[str, str]
    """Further headers, without ``Content-Length``."""


def find_page(path: str) -> Page | None:
    """Return the page at a path.

    Args:
        path: The path of the request, such as ``"/"``; a query is ignored.

    Returns:
        The page; None: there is none at this path.
    """
    name = path.partition("?")[0].removeprefix("/") or "index.html"
    return _load(name) if name in _TYPES else None


@cache
def _load(name: str) -> Page:
    headers = dict(_HEADERS)
    if name in _FOR_ANY_PAGE:
        headers["Access-Control-Allow-Origin"] = "*"
    body = resources.files(__package__).joinpath(name).read_bytes()
    return Page(_TYPES[name], body, MappingProxyType(headers))
