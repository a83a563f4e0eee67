"""URLs of Managers, and the parts of an HTTP request that depend on them. Pure: without I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from msl_network_trio.constants import PORT
from msl_network_trio.exceptions import ConnectError
from msl_network_trio.transport.tcp_connect import strip_brackets

DEFAULT_PATH: Final = "/"
"""The path of a server's WebSocket; some servers have it at ``/msl`` as well."""


@attrs.frozen
class Scheme:
    """The defaults of a URL scheme."""

    port: int
    """The default port."""

    has_tls: bool
    """Whether connections use TLS."""

    path: str | None = None
    """The default path; None if the transport has no paths."""


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PATH = re.compile(r"/[!-~]*")
_VALUE = re.compile(r"([!-~\x80-\xff]([ -~\t\x80-\xff]*[!-~\x80-\xff])?)?")
_RESERVED = frozenset({"host", "upgrade", "connection"})


def is_url(host: str) -> bool:
    """Return whether a host is a URL."""
    return "://" in host


def without_secrets(url: str) -> str:
    """Return a URL for messages, with user, password and query replaced by asterisks."""
    scheme, _, rest = url.partition("://")
    end = re.search(r"[/?#]", rest)
    place, path = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    _, at, host = place.rpartition("@")
    return f"{scheme}://{'***@' if at else ''}{host}{_without_query(path)}"


def _without_query(path: str) -> str:
    """Return a path for messages; its query often contains a token."""
    path, mark, _ = path.partition("?")
    return f"{path}?***" if mark else path


def from_url(
    url: str,
    schemes: Mapping[str, tuple[str, Scheme]],
    *,
    port: int,
    transport: object,
    disable_tls: bool,
    cert_file: object,
    path: str | None,
) -> dict[str, Any]:
    """Return the settings in a URL: host, port, transport, disable_tls and path.

    Args:
        url: The URL, for example ``wss://lab.example/msl``.
        schemes: The transport and the defaults of each scheme.
        port: The argument of `connect`, as all that follow. The default, or the port of the URL.
        transport: The default, ``"tcp"``, or the transport of the scheme.
        disable_tls: True only with a scheme without TLS.
        cert_file: None with a scheme without TLS.
        path: None, or the path of the URL.

    Raises:
        ValueError: The URL is invalid, or an argument contradicts it; the text names it.
    """
    shown = without_secrets(url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"The URL {shown!r} makes no sense: {error}") from None
    if parts.scheme not in schemes:
        raise ValueError(f"The URL of a WebSocket begins with ws:// or wss://, not like {shown!r}")
    its_transport, scheme = schemes[parts.scheme]
    default_port, is_plain = scheme.port, not scheme.has_tls
    try:
        host, its_port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"The URL {shown!r} makes no sense: {error}") from None
    if not host:
        raise ValueError(f"There is no host in the URL {shown!r}")
    if parts.username is not None or parts.fragment:
        raise ValueError(
            f"The URL of a WebSocket has no user, password or fragment (host={shown!r}); pass username=, "
            "password= or headers="
        )
    if transport not in {"tcp", its_transport}:
        raise ValueError(f"host={shown!r} contradicts transport={transport!r}")
    if disable_tls and not is_plain:
        raise ValueError(f"host={shown!r} contradicts disable_tls=True: write ws:// for no TLS")
    if cert_file is not None and is_plain:
        raise ValueError(f"host={shown!r} contradicts cert_file: write wss:// for TLS")
    if port not in {PORT, its_port or default_port}:
        raise ValueError(f"host={shown!r} contradicts port={port}")
    its_path = (parts.path or scheme.path or "") + (f"?{parts.query}" if parts.query else "") or None
    if path is not None and path != its_path:
        raise ValueError(f"host={shown!r} contradicts path={_without_query(path)!r}")
    return {
        "host": f"[{host}]" if ":" in host else host,
        "port": its_port or default_port,
        "transport": its_transport,
        "disable_tls": is_plain,
        "path": its_path,
    }


def host_header(host: str, port: int, *, has_tls: bool) -> str:
    """Return the value of the ``Host`` header, without the port if it is the default of the scheme.

    Raises:
        ConnectError: The host is not a valid name.
    """
    bare = strip_brackets(host)
    try:
        name = f"[{bare}]" if ":" in bare else bare.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ConnectError(f"{host!r} cannot be the name of a host: {error}") from error
    return name if port == (443 if has_tls else 80) else f"{name}:{port}"


def check_path(path: str) -> None:
    """Check a path, which may have a query.

    Raises:
        ValueError: It is invalid.
    """
    if not _PATH.fullmatch(path) or "#" in path:
        shown = _without_query(path)
        raise ValueError(f"path must begin with '/', and be ASCII without spaces and '#', not {shown!r}")


def check_headers(headers: Mapping[str, str]) -> None:
    """Check additional headers of a WebSocket handshake.

    Raises:
        ValueError: A header cannot be sent, or belongs to the handshake itself.
        TypeError: A name or value is not text.
    """
    for name, value in headers.items():
        if not isinstance(name, str):
            raise TypeError(f"headers must be a dictionary of texts, and {name!r} is none")
        if not isinstance(value, str):  # the value is not shown: it may be secret
            kind = type(value).__name__
            raise TypeError(f"headers must be a dictionary of texts, and that of {name!r} is {kind}")
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a header")
        if name.lower() in _RESERVED or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"The header {name!r} belongs to the WebSocket's own handshake")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"The value of the header {name!r} has characters that cannot be sent")
