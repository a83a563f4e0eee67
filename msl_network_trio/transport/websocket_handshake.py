"""The opening handshake of WebSocket, by trio-websocket: from a connection to a `WebSocketStream`."""

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
"""How many bytes of an answer to show that is not the one that was hoped for."""

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")

_SWITCHING = re.compile(rb"HTTP/1\.\d 101\b")
"""How an answer begins behind whose head frames come, and not a body."""

_LONGEST_END = 4


class _HandshakeStream(trio.abc.Stream):
    """A transport as trio-websocket wants to see it until the handshake is done, which never closes it.

    What comes behind the handshake is not shown to it, since frames are not its business here.

    Args:
        transport: The transport.
        request: The head of a request that has been received of it already; empty if this is the client.

    Attributes:
        opening: Is cancelled if the connection ends in the handshake, of which trio-websocket tells nobody.
        heard: How the peer's answer begins.
        behind: What came behind the handshake.
        error: Why nothing can be sent any more. What is sent nevertheless is lost: trio-websocket would else
            stop to read, and why the peer has closed the connection may be on its way.
    """

    def __init__(self, transport: Stream, request: bytes) -> None:
        self.opening = trio.CancelScope()
        self.heard = b""
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
        """Receive as much as there is of the handshake, and then nothing, until cancelled."""
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
        if len(self.heard) < _QUOTED:
            self.heard += data[:_QUOTED]
        return self._of_handshake(data)

    def _of_handshake(self, data: bytes) -> bytes:
        """Return what belongs to the handshake, and keep the rest."""
        searched = self._last + data
        self._last = searched[1 - _LONGEST_END :]
        end = _END_OF_HEAD.search(searched)
        if end is None or not _SWITCHING.match(self.heard):
            return data
        self._is_done = True
        rest = len(searched) - end.end()
        self.behind = data[len(data) - rest :]
        return data[: len(data) - rest]

    async def aclose(self) -> None:
        """Leave closing to the owner of the transport."""
        self.opening.cancel()
        await trio.lowlevel.checkpoint()


async def _shake_hands(
    stream: _HandshakeStream, handshake: Callable[[trio.Nursery], Awaitable[object]]
) -> None:
    """Have trio-websocket shake hands, and part from it.

    Raises:
        ConnectionLost: The connection has ended before it was done.
        Exception: What `handshake` raises.
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
    """Take away what nurseries have wrapped around an exception, if it is just one."""
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
    """Open a WebSocket as its client, on a connection whose TLS is done.

    Args:
        carrier: The connection, which is closed with the WebSocket, and if there will be none.
        host: What the ``Host`` header shall say, in ASCII.
        path: Which of the server's resources it is; with a query if there is one.
        headers: Further headers.
        read_limit: The largest message to accept, in bytes; None: no limit.
        ping_interval: See `WebSocketStream`.

    Raises:
        ConnectError: The server does not want to, or it is none for WebSocket.
    """
    stream = _HandshakeStream(carrier, b"")
    # Tokens may be in both, which a traceback with the values of variables must not show.
    hidden = hide((path, headers or {}))
    del path, headers

    async def handshake(nursery: trio.Nursery) -> object:
        return await wrap_client_stream(
            nursery,
            stream,  # type: ignore[arg-type]  # it takes any stream, as it says
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
            # Without the frames of trio-websocket, whose variables have both as well.
            raise ConnectError(_no_websocket(error, stream.heard[:_QUOTED])) from error.with_traceback(None)
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


def _no_websocket(error: Exception, heard: bytes) -> str:
    """Say why there is no WebSocket."""
    if isinstance(error, ConnectionRejected):
        text = f"The server answered with HTTP status {error.status_code}"
        body = (error.body or b"")[:_QUOTED].decode("utf-8", "backslashreplace").strip()
        return f"{text}: {body!r}" if body else text
    if heard.startswith(b"HTTP/"):
        lines = heard.decode("utf-8", "backslashreplace").splitlines()
        return f"The server answered with {lines[0]!r} instead of opening a WebSocket ({error})"
    if heard.lstrip().startswith(b"{"):
        return (
            "The server does not speak HTTP. It may be the port of a Manager for TCP: connect to it without "
            f"transport='websocket', or to its port for WebSocket. It said {heard[:80]!r}"
        )
    if heard.startswith(b"\x15\x03"):  # an alert
        return "The server speaks TLS, which is disabled here. Use wss:// or disable_tls=False"
    if heard:
        return f"The server does not speak HTTP. It said {heard[:80]!r}"
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
    """Open a WebSocket as its server, for a request that has been received and found good.

    Args:
        carrier: The connection, which is closed with the WebSocket, and if there will be none.
        key: The ``Sec-WebSocket-Key`` of the request.
        subprotocol: The subprotocol on which to agree, if the client has proposed one.
        spawn: Starts the task of the WebSocket; see `WebSocketStream.run`.
        read_limit: The largest message to accept, in bytes; None: no limit.
        ping_interval: See `WebSocketStream`.
        quota: See `WebSocketStream`.
        address: The IP address of the host of the client; empty: it is not known.
        buffer_limit: See `Stream.limit_buffer`, which this is as long as nothing else is said.

    Raises:
        ConnectionLost: The client is gone.
    """
    # trio-websocket wants to see a request, of which it needs no more than this.
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
