"""The opening handshake of WebSocket, by trio-websocket: from a stream to a `WebSocketStream`.

Runs in the Trio thread.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping

import trio
from trio_websocket import ConnectionRejected, wrap_client_stream, wrap_server_stream

from msl_network_trio.constants import WEBSOCKET_SUBPROTOCOL
from msl_network_trio.exception_groups import plain
from msl_network_trio.exceptions import ConnectError, ConnectionLost
from msl_network_trio.hidden import hide
from msl_network_trio.limits.quota import Quota
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.websocket import SpawnTask, WebSocketStream

_QUOTED = 300
"""Maximum bytes of an unexpected answer that an error quotes."""

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")

_SWITCHING = re.compile(rb"HTTP/1\.\d 101\b")
"""The start of an answer that is followed by frames instead of a body."""

_LONGEST_END = 4
"""Maximum bytes of `_END_OF_HEAD`."""


class _HandshakeStream(trio.abc.Stream):
    """Adapter that presents a stream to trio-websocket for the length of the handshake.

    trio-websocket never receives what follows the handshake and cannot close the stream.

    Args:
        transport: The stream.
        request: The head of a request that has been received already; empty on the client side.

    Attributes:
        opening: Cancelled if the connection ends in the handshake, which trio-websocket does not report.
        head: The first bytes of the peer's answer.
        behind: The bytes received after the handshake.
        error: The error of sending. Later data is dropped without an error, since trio-websocket would stop
            receiving, and the reason why the peer closed the connection may still arrive.
    """

    def __init__(self, transport: Stream, request: bytes) -> None:
        self.opening = trio.CancelScope()
        self.head = b""
        self.behind = b""
        self.error: ConnectionLost | None = None
        self._transport = transport
        self._request = request
        self._is_done = False
        self._last = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        try:
            if self.error is None:
                await self._transport.send_all(bytes(data))
        except ConnectionLost as error:
            self.error = error

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._transport.wait_send()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive the handshake; then wait until cancelled."""
        if self._request:
            request, self._request = self._request, b""
            self._is_done = True
            await trio.lowlevel.checkpoint()
            return request
        if self._is_done:
            await trio.sleep_forever()
        try:
            data = await self._transport.receive()
        except ConnectionLost as error:
            self.error = self.error or error
            self.opening.cancel()
            raise trio.BrokenResourceError from error
        if not data:
            self.opening.cancel()
        if len(self.head) < _QUOTED:
            self.head += data[:_QUOTED]
        return self._of_handshake(data)

    def _of_handshake(self, data: bytes) -> bytes:
        """Return the part that belongs to the handshake and keep the rest."""
        searched = self._last + data
        self._last = searched[1 - _LONGEST_END :]
        end = _END_OF_HEAD.search(searched)
        if end is None or not _SWITCHING.match(self.head):
            return data
        self._is_done = True
        rest = len(searched) - end.end()
        self.behind = data[len(data) - rest :]
        return data[: len(data) - rest]

    async def aclose(self) -> None:
        """End the handshake; the owner closes the stream."""
        self.opening.cancel()
        await trio.lowlevel.checkpoint()


async def _shake_hands(
    stream: _HandshakeStream, handshake: Callable[[trio.Nursery], Awaitable[object]]
) -> None:
    """Run the handshake of trio-websocket and end its tasks.

    Raises:
        ConnectionLost: The connection ended before the handshake was complete.
        Exception: An exception of `handshake`.
    """
    is_done = False
    try:
        async with trio.open_nursery() as nursery:
            with stream.opening:
                await handshake(nursery)
                is_done = True
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error = plain(group)
        raise (_single(error) if isinstance(error, ExceptionGroup) else error) from None
    if stream.error is not None:
        raise stream.error
    if not is_done:
        raise ConnectionLost("The peer closed the connection")


def _single(error: Exception) -> Exception:
    """Unwrap an exception from groups with a single member."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def open_websocket(
    carrier: Stream,
    host: str,
    *,
    path: str = "/",
    headers: Mapping[str, str] | None = None,
    read_limit: int | None = None,
    ping_interval: float | None = None,
) -> WebSocketStream:
    """Open a WebSocket as the client.

    Args:
        carrier: The stream, after its TLS handshake. It is closed with the WebSocket, or if opening fails.
        host: The value of the ``Host`` header, in ASCII.
        path: The path of the WebSocket, with its query.
        headers: Additional headers.
        read_limit: Maximum bytes of a message; None: no limit.
        ping_interval: See `WebSocketStream`.

    Raises:
        ConnectError: The server refused, or does not support WebSocket.
    """
    stream = _HandshakeStream(carrier, b"")
    # Both may contain tokens, which a traceback with the values of variables must not show.
    hidden = hide((path, headers or {}))
    del path, headers

    async def handshake(nursery: trio.Nursery) -> object:
        return await wrap_client_stream(
            nursery,
            stream,  # type: ignore[arg-type]  # documented to accept any stream
            host,
            hidden.reveal()[0],
            subprotocols=[WEBSOCKET_SUBPROTOCOL],
            extra_headers=[
                (name.encode(), value.encode("latin-1")) for name, value in hidden.reveal()[1].items()
            ],
        )

    try:
        await _shake_hands(stream, handshake)
    except BaseException as error:
        carrier.close()
        if isinstance(error, Exception):
            refusal = ConnectError(_no_websocket(error, stream.head[:_QUOTED]))
            if isinstance(error, ConnectionRejected):
                refusal.http_status = error.status_code
                refusal.retry_after = _retry_after(error)
            # Without the frames of trio-websocket, whose variables contain both as well.
            raise refusal from error.with_traceback(None)
        raise
    transport = WebSocketStream(
        carrier,
        is_client=True,
        received=stream.behind,
        read_limit=read_limit,
        ping_interval=ping_interval,
        quota=None,
    )
    try:
        trio.lowlevel.spawn_system_task(transport.run)
    except BaseException:
        carrier.close()
        raise
    return transport


def _retry_after(error: ConnectionRejected) -> float | None:
    """Return the seconds of the header ``Retry-After``; None: it is missing, or a date."""
    values = [value for name, value in error.headers or () if name.lower() == b"retry-after"]
    return float(values[0]) if values and re.fullmatch(rb"\d{1,5}", values[0]) else None


def _no_websocket(error: Exception, head: bytes) -> str:
    """Return the text of the error for a failed handshake."""
    if isinstance(error, ConnectionRejected):
        text = f"The server answered with HTTP status {error.status_code}"
        body = (error.body or b"")[:_QUOTED].decode("utf-8", "backslashreplace").strip()
        return f"{text}: {body!r}" if body else text
    if head.startswith(b"HTTP/"):
        lines = head.decode("utf-8", "backslashreplace").splitlines()
        return f"The server answered with {lines[0]!r} instead of opening a WebSocket ({error})"
    if head.lstrip().startswith(b"{"):
        return (
            "The server does not speak HTTP. It may be the port of a Manager for TCP: connect to it without "
            f"transport='websocket', or to its port for WebSocket. It sent {head[:80]!r}"
        )
    if head.startswith(b"\x15\x03"):  # an alert
        return "The server speaks TLS, which is disabled here. Use wss:// or disable_tls=False"
    if head:
        return f"The server does not speak HTTP. It sent {head[:80]!r}"
    return f"{error} before it answered; is it a server for WebSocket?"


async def accept_websocket(
    carrier: Stream,
    key: str,
    subprotocol: str | None,
    spawn: SpawnTask,
    *,
    read_limit: int | None = None,
    ping_interval: float | None = None,
    quota: Quota[WebSocketStream] | None = None,
    address: str = "",
    buffer_limit: int | None = None,
) -> WebSocketStream:
    """Open a WebSocket as the server, for a request that has been received and checked.

    Args:
        carrier: The stream. It is closed with the WebSocket, or if opening fails.
        key: The ``Sec-WebSocket-Key`` of the request.
        subprotocol: The subprotocol to accept; None: none.
        spawn: Starts the task of the WebSocket; see `WebSocketStream.run`.
        read_limit: Maximum bytes of a message; None: no limit.
        ping_interval: See `WebSocketStream`.
        quota: See `WebSocketStream`.
        address: The IP address of the client; empty: unknown.
        buffer_limit: The initial `Stream.limit_buffer`.

    Raises:
        ConnectionLost: The connection is broken or closed.
    """
    # The minimal request that trio-websocket needs to receive.
    request = [
        "GET / HTTP/1.1",
        "Host: host",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    if subprotocol is not None:
        request.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    stream = _HandshakeStream(carrier, "\r\n".join([*request, "", ""]).encode("ascii"))

    async def handshake(nursery: trio.Nursery) -> object:
        wanted = await wrap_server_stream(nursery, stream)
        return await wanted.accept(subprotocol=subprotocol)

    try:
        await _shake_hands(stream, handshake)
        transport = WebSocketStream(
            carrier,
            is_client=False,
            received=b"",
            read_limit=read_limit,
            ping_interval=ping_interval,
            quota=quota,
            address=address,
        )
        transport.limit_buffer(buffer_limit)
        spawn(transport.run)
    except BaseException:
        carrier.close()
        raise
    return transport
