"""The HTTP server in front of the WebSockets: serves pages, and upgrades connections to WebSocket.

It serves one request per connection. `HttpServer.read_upgrade` reads the request and sends a response, unless
the request is a valid WebSocket upgrade; `HttpServer.open_websocket` accepts that one. All of it runs in the
task that has accepted the connection, and needs no lock.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import SplitResult, urlsplit

import attrs
import h11
import trio

from msl_network_trio.constants import WEBSOCKET_SUBPROTOCOL
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.limits.quota import Quota
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.websocket import SpawnTask, WebSocketStream, input_quota
from msl_network_trio.transport.websocket_handshake import accept_websocket
from msl_network_trio.visible import visible_lines
from msl_network_trio.web.pages import find_page

ENDPOINTS: Final = frozenset({"/", "/msl"})
"""The paths at which a WebSocket can be opened; a query is ignored."""

ANY_ORIGIN: Final = "*"
"""The entry of ``origins`` that allows all origins."""

PING_INTERVAL = 20.0
"""Seconds between pings; many proxies close a connection that is idle for 60."""

_HEAD_SIZE_LIMIT = 16_384
"""Maximum size of the head of a request, in bytes."""

_HEAD_TIMEOUT = 10.0
"""Maximum seconds for a peer to send the head of a request."""

_INCOMPLETE_SIZE = 1024 * 1024 * 1024
"""Maximum bytes of incomplete messages of all WebSockets, unless two of the largest messages need more."""

_RESPONSE_TIMEOUT = 10.0
"""Maximum seconds for a peer to read a response."""

_LINGER_TIMEOUT = 1.0
"""Maximum seconds to wait for a peer to close its end: closing ours first could lose unread data."""

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


@attrs.frozen
class Response(Exception):
    """A response that is sent instead of opening a WebSocket; raised where the request is checked."""

    status: HTTPStatus
    body: bytes
    headers: Mapping[str, str] = attrs.field(factory=dict)


def _text_response(status: HTTPStatus, text: str, **headers: str) -> Response:
    """Return a response of plain text; underscores in the names of headers stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    plain = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return Response(status, f"{visible_lines(text)}\n".encode(), {**plain, **named})


@attrs.frozen
class Upgrade:
    """A valid request to open a WebSocket."""

    key: str
    """The value of ``Sec-WebSocket-Key``."""

    subprotocol: str | None
    """The subprotocol to accept; None: the client has proposed none."""

    forwarded_for: str = ""
    """The address that the last proxy has added to ``X-Forwarded-For``; empty: there is none."""


class HttpRequest:
    """The head of a request.

    Args:
        event: The request as h11 has parsed it.
        is_last: Whether no further bytes followed the request.
    """

    def __init__(self, event: h11.Request, *, is_last: bool) -> None:
        self.method = event.method.decode("ascii")
        self.target = event.target.decode("ascii")
        self.path = self.target.partition("?")[0]
        self.is_1_1 = event.http_version == b"1.1"
        self.is_last = is_last
        self._headers = [(name, value.decode("latin-1")) for name, value in event.headers]

    def values(self, name: bytes) -> list[str]:
        """Return the values of all headers of this name."""
        return [value for key, value in self._headers if key == name]

    def tokens(self, name: bytes) -> list[str]:
        """Return the items of a header whose value is a comma-separated list."""
        values = ",".join(self.values(name)).split(",")
        return [value.strip() for value in values if value.strip()]

    def has_token(self, name: bytes, token: str) -> bool:
        """Return True if a header's list has this item; case does not matter."""
        return token in (value.lower() for value in self.tokens(name))


def check_origin(text: str) -> str:
    """Return a normalized origin, or `ANY_ORIGIN`.

    Raises:
        ValueError: The text is no origin.
    """
    return text if text == ANY_ORIGIN else _normalize_origin(text)


def _origins(origins: Iterable[str]) -> frozenset[str]:
    return frozenset(map(check_origin, origins))


@attrs.frozen(kw_only=True)
class HttpServer:
    """The rules and limits by which requests are served.

    Args:
        origins: The origins, such as ``"https://lab.example"``, whose pages may connect, besides pages of the
            host and port that they connect to; `ANY_ORIGIN`: all. A client that sends no ``Origin`` is no
            browser, and may always connect.
        read_limit: Maximum size of a message, in bytes; None: no limit.
        ping_interval: See `WebSocketStream`.
        buffer_limit: See `accept_websocket`.
    """

    origins: frozenset[str] = attrs.field(default=frozenset(), converter=_origins)
    read_limit: int | None = None
    ping_interval: float | None = PING_INTERVAL
    buffer_limit: int | None = None
    _quota: Quota[WebSocketStream] = attrs.field(init=False)

    @_quota.default
    def _default_quota(self) -> Quota[WebSocketStream]:
        return input_quota(None if self.read_limit is None else max(_INCOMPLETE_SIZE, 2 * self.read_limit))

    async def read_upgrade(self, carrier: Stream) -> Upgrade | None:
        """Read a request, and respond to it unless it is a valid upgrade.

        Args:
            carrier: The connection, after its TLS handshake.

        Returns:
            The upgrade; None: the connection was closed. It is closed as well if this is cancelled.
        """
        upgrade = None
        try:
            method = "GET"
            try:
                with trio.move_on_after(_HEAD_TIMEOUT):
                    request = await _read_request(carrier)
                    method = request.method
                    upgrade = self._check_upgrade(request)
            except Response as response:
                await _send_response(carrier, response, method)
        except ConnectionLost:
            pass  # there is no peer to respond to
        finally:
            if upgrade is None:
                carrier.close()
        return upgrade

    async def open_websocket(
        self, carrier: Stream, address: str, upgrade: Upgrade, spawn: SpawnTask
    ) -> WebSocketStream | None:
        """Accept an upgrade.

        Args:
            carrier: The connection; the WebSocket closes it.
            address: The IP address of the peer.
            upgrade: The request.
            spawn: Starts the task that owns the WebSocket.

        Returns:
            The WebSocket; None: the connection was lost.
        """
        try:
            with trio.move_on_after(_RESPONSE_TIMEOUT):
                return await accept_websocket(
                    carrier,
                    upgrade.key,
                    upgrade.subprotocol,
                    spawn,
                    read_limit=self.read_limit,
                    ping_interval=self.ping_interval,
                    quota=self._quota,
                    address=address,
                    buffer_limit=self.buffer_limit,
                )
        except ConnectionLost:
            pass
        return None

    async def refuse(self, carrier: Stream, text: str, retry_after: int | None = None) -> None:
        """Reject a valid upgrade, and close the connection.

        Args:
            carrier: The connection.
            text: The reason.
            retry_after: Seconds after which the peer may try again, with status 503. None: status 502, since
                the Manager cannot be reached.
        """
        response = _text_response(HTTPStatus.BAD_GATEWAY, text)
        if retry_after is not None:
            response = _text_response(HTTPStatus.SERVICE_UNAVAILABLE, text, Retry_After=str(retry_after))
        try:
            await _send_response(carrier, response, "GET")
        except ConnectionLost:
            pass  # there is no peer to respond to
        finally:
            carrier.close()

    def _check_upgrade(self, request: HttpRequest) -> Upgrade:
        """Return the upgrade that a request asks for.

        Raises:
            Response: The request is for a page, or is invalid.
        """
        if not request.has_token(b"upgrade", "websocket"):
            raise _page_response(request)
        if request.method != "GET" or not request.is_1_1:
            raise _text_response(HTTPStatus.BAD_REQUEST, "A WebSocket is opened by GET, with HTTP/1.1.")
        if request.path not in ENDPOINTS:
            raise _text_response(HTTPStatus.NOT_FOUND, f"WebSockets are opened at {_endpoints()}.")
        if not request.has_token(b"connection", "upgrade"):
            raise _text_response(HTTPStatus.BAD_REQUEST, "The header 'Connection: Upgrade' is missing.")
        if request.values(b"sec-websocket-version") != ["13"]:
            text = "The version of WebSocket must be 13."
            raise _text_response(HTTPStatus.UPGRADE_REQUIRED, text, Sec_WebSocket_Version="13")
        keys = request.values(b"sec-websocket-key")
        if len(keys) != 1 or not _is_websocket_key(keys[0]):
            raise _text_response(HTTPStatus.BAD_REQUEST, "The header 'Sec-WebSocket-Key' is invalid.")
        if not request.is_last:
            raise _text_response(HTTPStatus.BAD_REQUEST, "Nothing may be sent before the WebSocket is open.")
        self._check_origin(request)
        proposed = request.tokens(b"sec-websocket-protocol")
        if proposed and WEBSOCKET_SUBPROTOCOL not in proposed:
            text = f"The only subprotocol here is {WEBSOCKET_SUBPROTOCOL}; propose it, or none."
            raise _text_response(HTTPStatus.BAD_REQUEST, text)
        proxies = request.tokens(b"x-forwarded-for")
        forwarded_for = proxies[-1] if proxies else ""
        return Upgrade(keys[0], WEBSOCKET_SUBPROTOCOL if proposed else None, forwarded_for)

    def _check_origin(self, request: HttpRequest) -> None:
        origins = request.values(b"origin")
        if not origins or ANY_ORIGIN in self.origins:
            return
        if len(origins) == 1:
            try:
                origin = urlsplit(origins[0])
                if (
                    _is_same_host(origin, request.values(b"host")[0])
                    or _normalize_origin(origins[0]) in self.origins
                ):
                    return
            except ValueError:
                pass  # an invalid origin is not allowed
        raise _text_response(
            HTTPStatus.FORBIDDEN, f"Pages of {', '.join(origins)} may not connect; see --websocket-origin."
        )


async def _read_request(carrier: Stream) -> HttpRequest:
    """Read the head of a request.

    Raises:
        Response: The bytes are no HTTP request, or the head is too large.
        ConnectionLost: The connection ended before the end of the head.
    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_SIZE_LIMIT)
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                connection.next_event()  # the end of a request; sets trailing_data
                return HttpRequest(event, is_last=not connection.trailing_data[0])
            data = await carrier.receive() if event is h11.NEED_DATA else b""
            if not data:  # not answered: a client would take the answer for a verdict on its request
                raise ConnectionLost("The connection ended before the end of a request")
            connection.receive_data(data)
    except h11.RemoteProtocolError as error:
        status = HTTPStatus(error.error_status_hint)
        raise _text_response(status, f"This port understands HTTP and WebSocket: {error}.") from None


async def _send_response(carrier: Stream, response: Response, method: str) -> None:
    """Send a response, and wait until the peer has closed its end, within the timeouts."""
    headers = {**response.headers, "Content-Length": str(len(response.body)), "Connection": "close"}
    head = [f"HTTP/1.1 {response.status.value} {response.status.phrase}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    body = b"" if method == "HEAD" else response.body
    with trio.move_on_after(_RESPONSE_TIMEOUT) as scope:
        await carrier.send_all("\r\n".join([*head, "", ""]).encode("latin-1") + body)
    if not scope.cancelled_caught:
        carrier.send_eof()
        with trio.move_on_after(_LINGER_TIMEOUT):
            while await carrier.receive():
                pass


def _page_response(request: HttpRequest) -> Response:
    """Return the response to a request for a page."""
    if request.method not in {"GET", "HEAD"}:
        return _text_response(
            HTTPStatus.METHOD_NOT_ALLOWED, "Pages are read by GET or HEAD.", Allow="GET, HEAD"
        )
    page = find_page(request.target)
    if page is not None:
        return Response(HTTPStatus.OK, page.body, {"Content-Type": page.content_type, **page.headers})
    if request.path in ENDPOINTS:
        text = "This is a WebSocket endpoint of MSL-Network. A page is at /."
        return _text_response(HTTPStatus.UPGRADE_REQUIRED, text, Upgrade="websocket")
    return _text_response(HTTPStatus.NOT_FOUND, "Page not found. There is one at /.")


def _endpoints() -> str:
    return " and ".join(sorted(ENDPOINTS))


def _is_websocket_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _normalize_origin(text: str) -> str:
    """Return an origin as scheme, host and port, so that equal origins compare equal.

    Raises:
        ValueError: The text is no origin.
    """
    if text == "null":
        return text
    parts = urlsplit(text)
    if not parts.scheme or not parts.hostname or parts.path not in {"", "/"} or parts.query:
        raise ValueError(f"{text!r} is no origin, like https://lab.example or http://localhost:8000")
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def _is_same_host(origin: SplitResult, host: str) -> bool:
    """Return True if a page's origin has the host and port of the ``Host`` header.

    Schemes are not compared, since a proxy may terminate TLS. The origin's scheme gives the default port.

    Raises:
        ValueError: A port is invalid.
    """
    default = _DEFAULT_PORTS.get(origin.scheme)
    target = urlsplit(f"//{host}")
    return bool(origin.hostname) and (origin.hostname, origin.port or default) == (
        target.hostname,
        target.port or default,
    )
