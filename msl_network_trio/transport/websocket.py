"""WebSocket, by trio-websocket: a line, without its end, is one text message, in both directions.

To the rest of the package it is a `Transport` like TCP, on top of another one, which may have TLS. What
trio-websocket does it does in tasks, with awaits inside a message; so there is one task that owns the
connection, and what is sent goes through a queue: a caller that is cancelled leaves no half message.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
    wrap_server_stream,
)
from wsproto.frame_protocol import CloseReason, FrameProtocol

from msl_network_trio.constants import WEBSOCKET_SUBPROTOCOL
from msl_network_trio.exceptions import ConnectError, ConnectionLost
from msl_network_trio.protocol.framing import LineBuffer
from msl_network_trio.transport.base import Transport

_CAPACITY = 262_144
"""How many bytes may wait in the queue, which is what the buffers of the kernel are to a socket."""

_WAITING_MESSAGES = 64
"""How many messages may have been received before one of them is taken."""

_WAITING_BYTES = 64 * 1024 * 1024
"""How many bytes they may have in all, if more than one of the largest message can be."""

_UNREAD = 16 * 1024 * 1024
"""How many bytes to take of a peer that goes on sending what nobody reads, before it is cut off."""

_QUOTED = 300
"""How many bytes of an answer to show that is not the one that was hoped for."""

_CLOSE_FRAME = 0x88
"""How the frame begins that says goodbye."""

_NORMAL = frozenset({CloseReason.NORMAL_CLOSURE, CloseReason.GOING_AWAY, CloseReason.NO_STATUS_RCVD})
"""The codes that are the end of a conversation, and no error."""

_VERDICTS = frozenset(
    {CloseReason.PROTOCOL_ERROR, CloseReason.INVALID_FRAME_PAYLOAD_DATA, CloseReason.MESSAGE_TOO_BIG}
)
"""The codes with which trio-websocket gives up on a peer, in most cases without telling it."""

_LEFT_BEHIND = 5.0
"""How many seconds a connection lives on when the program, or the Manager, ends: goodbyes take some time."""

SpawnTask = Callable[..., object]
"""Starts a task: the ``start_soon`` of a nursery, or `trio.lowlevel.spawn_system_task`."""


class Held:
    """What many connections hold together of messages that are not complete, or that nobody has taken yet.

    If it is too much, the one that holds most is cut off.

    Args:
        most: How many bytes that may be; None: any number.
    """

    def __init__(self, most: int | None) -> None:
        self._most = math.inf if most is None else most
        self._sizes: dict[_Carrier, int] = {}
        self._size = 0

    def hold(self, carrier: _Carrier, size: int) -> None:
        """Note how many bytes a connection holds; then it may be that one has to go."""
        self._size += size - self._sizes.get(carrier, 0)
        self._sizes[carrier] = size
        while self._size > self._most:
            largest = max(self._sizes, key=lambda each: self._sizes[each])
            self.let_go(largest)
            largest.cut_off("It has sent most, and all connections together have sent too much")

    def let_go(self, carrier: _Carrier) -> None:
        """Note that a connection holds nothing any more."""
        self._size -= self._sizes.pop(carrier, 0)


_Handshake = Callable[[trio.Nursery, trio.abc.Stream], Awaitable[WebSocketConnection]]


class _Carrier(trio.abc.Stream):
    """A transport, as trio-websocket wants to see it, which never closes it.

    Args:
        transport: The transport.
        received: What has been received of it already.
        on_progress: Called when the peer has taken something that had to wait, or takes nothing any more.
        held: What it holds together with others; None: nobody counts that.

    Attributes:
        at_most: How many bytes to take before there is a message; None: as many as it has.
        opening: Is cancelled if the connection ends in the handshake, of which trio-websocket tells nobody.
        heard: How the peer's answer begins.
        moved: Counts up whenever the peer has sent something, or has taken something that had to wait.
        error: Why nothing can be sent any more. What is sent nevertheless is lost: trio-websocket would else
            stop to read, and why the peer has closed the connection may be on its way.
        is_idle: Whether no frame is being sent.
        said_close: Whether the frame that says goodbye has been sent.
    """

    def __init__(
        self, transport: Transport, received: bytes, on_progress: Callable[[], None], held: Held | None
    ) -> None:
        self.at_most: int | None = None
        self.opening = trio.CancelScope()
        self.heard = b""
        self.moved = 0
        self.error: ConnectionLost | None = None
        self.is_idle = True
        self.said_close = False
        self._transport = transport
        self._received = received
        self._on_progress = on_progress
        self._held = held
        self._size = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send a frame; trio-websocket gives one at a time. A checkpoint only if it has to wait."""
        if self.error is not None or self.said_close:
            return  # see `error`, and nothing must follow a goodbye
        self.said_close = data[0] == _CLOSE_FRAME
        self.is_idle = False
        rest = memoryview(data)
        try:
            while True:
                rest = rest[self._transport.send_nowait(rest) :]
                if not rest:
                    break
                await self._transport.wait_send()
                self.moved += 1
                self._on_progress()
        except ConnectionLost as error:
            self.error = error
            self._on_progress()
        self.is_idle = True

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._transport.wait_send()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive as much as there is: this is faster than the size that trio-websocket asks for."""
        if self._received:
            received, self._received = self._received, b""
            await trio.lowlevel.checkpoint()
            return received
        try:
            data = await self._transport.receive()
        except ConnectionLost as error:
            self.error = self.error or error
            self.opening.cancel()
            self._on_progress()
            raise trio.BrokenResourceError from error
        if not data:
            self.opening.cancel()
        if len(self.heard) < _QUOTED:
            self.heard += data[:_QUOTED]
        self.moved += 1
        self._size += len(data)
        if self._size > _CAPACITY:
            self._look_at_size()
        return data

    def _look_at_size(self) -> None:
        if self.at_most is not None and self._size > self.at_most:
            self.cut_off(f"It has sent more than {self.at_most:,} bytes without an end")
        elif self._held is not None:
            self._held.hold(self, self._size)

    def take_message(self) -> None:
        """Note that a message has been taken out of what was received."""
        if self._size > _CAPACITY and self._held is not None:
            self._held.let_go(self)
        self._size = 0

    def cut_off(self, reason: str) -> None:
        """Receive nothing more, nor send anything."""
        self.error = self.error or ConnectionLost(reason)
        self._transport.close()
        self._on_progress()

    async def aclose(self) -> None:
        """Leave closing to the owner of the transport."""
        self.opening.cancel()
        await trio.lowlevel.checkpoint()


class WebSocketTransport(Transport):
    """A WebSocket connection, of a client or a server; see `open_websocket` and `accept_websocket`.

    What the peer sends after `send_eof` is not received: WebSocket has no half-closed connections.

    Args:
        carrier: The connection that carries it, which is closed with it.
        is_client: Which end this is.
        received: What has been received from the carrier already.
        ping_interval: After how many seconds to ask the peer whether it is there, and how long it may take to
            answer; None: never.
        held: What it holds together with others, which is to be counted; None: it is not.
    """

    def __init__(
        self,
        carrier: Transport,
        *,
        is_client: bool,
        received: bytes = b"",
        ping_interval: float | None,
        held: Held | None = None,
    ) -> None:
        super().__init__()
        self.port = carrier.port
        self._inner = carrier
        self._is_client = is_client
        self._ping_interval = ping_interval
        self._carrier = _Carrier(carrier, received, self._wake, held)
        self._connection: WebSocketConnection | None = None
        self._lines = LineBuffer()
        self._queue: deque[tuple[int, str]] = deque()
        self._unsent = 0
        self._room = trio.lowlevel.ParkingLot()
        self._work = trio.lowlevel.ParkingLot()
        self._goodbye: tuple[int, str] | None = None
        self._failure: Exception | None = None
        self._scope = trio.CancelScope(shield=True)
        self._settled = trio.Event()
        self._over = trio.Event()
        self._closed = False

    async def open(self, handshake: _Handshake, spawn: SpawnTask) -> None:
        """Shake hands, or close the carrier.

        Args:
            handshake: Does so.
            spawn: Starts the task that owns the connection, until `close`.

        Raises:
            ConnectionLost: The connection has ended before it was done.
            Exception: What `handshake` raises.
        """
        try:
            spawn(self._run, handshake)
            await self._settled.wait()
            if self._failure is not None:
                raise self._failure
            if self._carrier.error is not None:
                raise self._carrier.error
            if self._connection is None:
                raise ConnectionLost("The peer closed the connection")
        except BaseException:
            self.close()
            raise

    @property
    def heard(self) -> bytes:
        """How that begins what the peer has sent."""
        return self._carrier.heard[:_QUOTED]

    @property
    def _websocket(self) -> WebSocketConnection:
        assert self._connection is not None  # nobody has this transport before
        return self._connection

    # ---- sending ----

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See `Transport.send_nowait`: a whole line is always taken, since it is one message."""
        if (reason := self._cannot_send) is not None:
            raise ConnectionLost(reason)
        view = memoryview(data)
        sent = 0
        while sent < len(view) and self._unsent < _CAPACITY:
            piece = bytes(view[sent : sent + _CAPACITY])
            sent += len(piece)
            for line in self._lines.feed(piece):
                self._queue.append((len(line), self._text(line)))
                self._unsent += len(line)
        if self._queue:
            self._work.unpark_all()
        return sent

    def _text(self, line: bytes) -> str:
        try:
            return line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            text = "a line that is no UTF-8 cannot be sent by WebSocket"
            self.say_goodbye(CloseReason.INTERNAL_ERROR, text)
            raise ConnectionLost(f"{text}: {error}") from error

    async def wait_send(self) -> None:
        """See `Transport.wait_send`; also returns when there is no room yet but progress."""
        if self._unsent < _CAPACITY or self._cannot_send is not None:
            await trio.lowlevel.checkpoint()
        else:
            await self._room.park()

    def send_eof(self) -> None:
        """See `Transport.send_eof`."""
        self.say_goodbye(CloseReason.NORMAL_CLOSURE)

    def say_goodbye(self, code: int, reason: str = "") -> None:
        """`send_eof`, and tell the peer why.

        Args:
            code: One of the codes of RFC 6455, 7.4.
            reason: The reason, of which some 40 to 120 characters are sent.
        """
        if self._goodbye is None:
            self._goodbye = (code, reason)
            self._work.unpark_all()

    @property
    def _cannot_send(self) -> str | None:
        if self._closed or self._goodbye is not None:
            return "The connection has been closed"
        if self._carrier.error is not None:
            return str(self._carrier.error)
        if (reason := self._websocket.closed) is not None:
            return describe(reason.code, reason.reason)
        return str(self._failure or "The connection has ended") if self._over.is_set() else None

    def _wake(self) -> None:
        self._room.unpark_all()

    # ---- receiving ----

    async def receive(self) -> bytes:
        """See `Transport.receive`: one message, as a line.

        A JSON text may be written on several lines; line ends are white space there, and become spaces.
        """
        if self._goodbye is None:
            try:
                message = await self._websocket.get_message()
            except ConnectionClosed:
                if self._websocket.closed is None:
                    await self._over.wait()  # our task has failed, and knows why when it has ended
                if self._goodbye is None:
                    return self._end()
            else:
                self._carrier.take_message()
                return self._line(message)
        # After our own goodbye there is only that of the peer to wait for, as long as the caller wants to.
        await self._over.wait()
        return b""

    def keep_at_most(self, size: int | None) -> None:
        """See `Transport.keep_at_most`."""
        self._carrier.at_most = size

    def _line(self, message: str | bytes) -> bytes:
        if isinstance(message, str):
            return message.encode().replace(b"\n", b" ") + b"\n"
        text = "only text messages are understood"
        self._say_goodbye(CloseReason.UNSUPPORTED_DATA, text)
        raise ConnectionLost(f"The peer sent a binary message, and {text}")

    def _end(self) -> bytes:
        """Tell why nothing more is received."""
        reason = self._websocket.closed
        if self._closed or reason is None:
            raise ConnectionLost(str(self._failure or "The connection has been closed")) from self._failure
        text = describe(reason.code, reason.reason)
        if reason.code in _NORMAL:
            self.last_words = text
            return b""
        if reason.code in _VERDICTS:
            self._say_goodbye(reason.code, reason.reason or "")
        if reason.code == CloseReason.ABNORMAL_CLOSURE and self._carrier.error is not None:
            text += f": {self._carrier.error}"
        raise ConnectionLost(text)

    # ---- the end ----

    def close(self) -> None:
        """See `Transport.close`; the peer is told if that can be done at once."""
        if self._closed:
            return
        self._closed = True
        if self._connection is not None:
            self._say_goodbye(CloseReason.GOING_AWAY, "")
        self._inner.close()
        self._carrier.take_message()
        self._scope.cancel()
        self._wake()

    def _say_goodbye(self, code: int, reason: str) -> None:
        """Say goodbye now, unless that has been done, or a frame has been sent in part."""
        if self._carrier.is_idle and not self._carrier.said_close:
            self._carrier.said_close = True
            try:
                self._inner.send_nowait(bytes(FrameProtocol(self._is_client, []).close(code, reason)))
            except ConnectionLost:
                pass  # there is nobody who need be told

    # ---- the task ----

    @trio.lowlevel.enable_ki_protection
    async def _run(self, handshake: _Handshake) -> None:
        try:
            async with trio.open_nursery() as outer:
                outer.start_soon(self._keep_alive)
                with self._scope:
                    async with trio.open_nursery() as nursery:
                        with self._carrier.opening:
                            self._connection = await handshake(nursery, self._carrier)
                        if self._connection is not None:
                            self._settled.set()
                            await self._send()
                            await self._part()
                        nursery.cancel_scope.cancel()
                outer.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - of trio-websocket, of wsproto, of h11
            # Whatever it is: open() raises what the handshake does, and receive() tells of what comes later.
            self._failure = _single(error)
        finally:
            self._settled.set()
            self._over.set()
            self._wake()

    async def _send(self) -> None:
        """Send messages, until nothing more shall be sent, nor can be."""
        try:
            while self._queue or self._goodbye is None:
                if self._queue:
                    size, text = self._queue.popleft()
                    await self._websocket.send_message(text)
                    self._unsent -= size
                    self._wake()
                else:
                    await self._work.park()
        except ConnectionClosed:
            self._queue.clear()
            self._wake()
            while self._goodbye is None:  # receive() is still to tell why
                await self._work.park()

    async def _part(self) -> None:
        """Say goodbye, and wait for the peer to do so, too."""
        websocket = self._websocket
        assert self._goodbye is not None
        if websocket.closed is None and not self._carrier.said_close:
            await websocket.aclose(*self._goodbye)
        elif websocket.closed is None or websocket.closed.code in _VERDICTS:
            # What the peer is about to send nobody reads, but it would not read why if it were reset.
            try:
                unread = 0
                while unread < _UNREAD and (data := await self._inner.receive()):
                    unread += len(data)
            except ConnectionLost:
                pass  # it has read as much as it wanted

    async def _keep_alive(self) -> None:
        """Ask the peer again and again whether it is there; a proxy sees that the connection is in use.

        This is not shielded: if whoever has the connection forgets it, the program's end is not held up.
        """
        try:
            await self._settled.wait()
            await self._ping()
            await trio.sleep_forever()
        finally:
            self._scope.deadline = trio.current_time() + _LEFT_BEHIND

    async def _ping(self) -> None:
        seconds = self._ping_interval
        while seconds is not None and not self._over.is_set():
            await trio.sleep(seconds)
            moved = self._carrier.moved
            try:
                with trio.move_on_after(seconds) as scope:
                    await self._websocket.ping()
            except ConnectionClosed:
                return  # of which receive() tells
            if scope.cancelled_caught and self._carrier.moved == moved:
                self._failure = ConnectionLost(f"The peer has not answered a ping for {seconds:g} seconds")
                self._scope.cancel()
                return


def _single(error: Exception) -> Exception:
    """Take away what nurseries have wrapped around an exception, if it is just one."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def describe(code: int, reason: str | None) -> str:
    """Say with which code, and why, a WebSocket was closed."""
    try:
        name = f" ({CloseReason(code).name.lower().replace('_', ' ')})"
    except ValueError:
        name = ""  # one of an application's own
    return f"the WebSocket was closed with code {int(code)}{name}{f': {reason}' if reason else ''}"


def _limits(read_limit: int | None) -> dict[str, int]:
    """The arguments of trio-websocket that bound what it holds, and how much it reads at a time."""
    if read_limit is None:
        return {"max_message_size": sys.maxsize, "message_queue_size": _WAITING_MESSAGES}
    waiting = min(max(_WAITING_BYTES // read_limit, 1), _WAITING_MESSAGES)
    return {"max_message_size": read_limit, "message_queue_size": waiting}


async def open_websocket(
    carrier: Transport,
    host: str,
    *,
    path: str = "/",
    headers: Mapping[str, str] | None = None,
    read_limit: int | None = None,
    ping_interval: float | None = None,
) -> WebSocketTransport:
    """Open a WebSocket as its client, on a connection whose TLS is done.

    Args:
        carrier: The connection, which is closed with the WebSocket, and if there will be none.
        host: What the ``Host`` header shall say, in ASCII.
        path: Which of the server's resources it is; with a query if there is one.
        headers: Further headers.
        read_limit: The largest message to accept, in bytes; None: no limit.
        ping_interval: See `WebSocketTransport`.

    Raises:
        ConnectError: The server does not want to, or it is none for WebSocket.
    """

    async def handshake(nursery: trio.Nursery, stream: trio.abc.Stream) -> WebSocketConnection:
        return await wrap_client_stream(
            nursery,
            stream,  # type: ignore[arg-type]  # it takes any stream, as it says
            host,
            path,
            subprotocols=[WEBSOCKET_SUBPROTOCOL],
            extra_headers=[
                (name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()
            ],
            **_limits(read_limit),
        )

    transport = WebSocketTransport(carrier, is_client=True, ping_interval=ping_interval)
    try:
        await transport.open(handshake, trio.lowlevel.spawn_system_task)
    except Exception as error:
        raise ConnectError(_no_websocket(error, transport.heard)) from error
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
    carrier: Transport,
    key: str,
    subprotocol: str | None,
    spawn: SpawnTask,
    *,
    read_limit: int | None = None,
    ping_interval: float | None = None,
    held: Held | None = None,
    keep_at_most: int | None = None,
) -> WebSocketTransport:
    """Open a WebSocket as its server, for a request that has been received and found good.

    Args:
        carrier: The connection, which is closed with the WebSocket, and if there will be none.
        key: The ``Sec-WebSocket-Key`` of the request.
        subprotocol: The subprotocol on which to agree, if the client has proposed one.
        spawn: Starts the task that owns the WebSocket.
        read_limit: The largest message to accept, in bytes; None: no limit.
        ping_interval: See `WebSocketTransport`.
        held: See `WebSocketTransport`.
        keep_at_most: See `WebSocketTransport.keep_at_most`, which this is as long as nothing else is said.

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

    async def handshake(nursery: trio.Nursery, stream: trio.abc.Stream) -> WebSocketConnection:
        wanted = await wrap_server_stream(nursery, stream, **_limits(read_limit))
        return await wanted.accept(subprotocol=subprotocol)

    transport = WebSocketTransport(
        carrier,
        is_client=False,
        received="\r\n".join([*request, "", ""]).encode("ascii"),
        ping_interval=ping_interval,
        held=held,
    )
    transport.keep_at_most(keep_at_most)
    await transport.open(handshake, spawn)
    return transport
