"""WebSocket streams, over another stream that may have TLS.

A line without its end is one text message, in both directions. Lines that are sent together leave together,
and messages that have arrived together are returned together. Everything runs in the Trio thread. Each
WebSocket has a task, `WebSocketStream.run`, which sends what the carrier does not accept at once, so that a
cancelled caller never leaves a part of a message, and pings the peer.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from wsproto.frame_protocol import CloseReason

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.limits.quota import Quota
from msl_network_trio.protocol.framing import LineBuffer
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.liveness import PeerActivity
from msl_network_trio.transport.websocket_frames import LOST, Frames
from msl_network_trio.transport.websocket_queue import FrameQueue

_PIECE = 262_144
"""Maximum bytes of lines to pack into frames at a time."""

_COUNTED = 262_144
"""Bytes of an incomplete message from which it counts for the quota."""

_DISCARD_LIMIT = 16 * 1024 * 1024
"""Maximum bytes to receive and discard from a rejected peer, which reads the close frame meanwhile."""

_CLOSING_TURNS = 32
"""Maximum turns of parsing frames that the peer sent before it received the close frame."""

_SHUTDOWN_TIMEOUT = 5.0
"""Seconds that the task continues after a cancellation at the end of the program, for the close frames."""

SpawnTask = Callable[..., object]
"""Starts a task: the ``start_soon`` of a nursery, or `trio.lowlevel.spawn_system_task`."""


class WebSocketStream(Stream):
    """A WebSocket connection after its opening handshake, of a client or a server.

    `open_websocket` and `accept_websocket` make one. Data from the peer after `send_eof` is discarded, as
    WebSocket has no half-closed connections.

    Args:
        carrier: The stream that carries the WebSocket, closed with it.
        is_client: Whether this end is the client.
        received: The data already received from the carrier.
        read_limit: Maximum bytes of a message; None: no limit.
        ping_interval: Seconds between pings, and maximum seconds for the answer; None: no pings.
        quota: The quota for incomplete messages that is shared with other WebSockets, see `input_quota`;
            None: no limit.
        address: The IP address of the peer; empty: unknown.

    Attributes:
        address: See above.
    """

    def __init__(
        self,
        carrier: Stream,
        *,
        is_client: bool,
        received: bytes,
        read_limit: int | None,
        ping_interval: float | None,
        quota: Quota[WebSocketStream] | None,
        address: str = "",
    ) -> None:
        super().__init__()
        self.port = carrier.port
        self.address = address
        self._carrier = carrier
        self._is_client = is_client
        self._early = received
        self._ping_interval = ping_interval
        self._frames = Frames(is_client=is_client, read_limit=read_limit)
        self._queue = FrameQueue(carrier, self._frames)
        self._quota = quota
        self._buffer_limit: int | None = None
        self._buffered = 0
        """Bytes of an incomplete message."""
        self._lines = LineBuffer()
        self._withheld = 0
        """Bytes, at most 1, that were packed but reported as unsent, since their frame waits."""
        self._reads = 0
        """Counts the times that data was received."""
        self._is_reading = False
        self._is_closing = False
        self._is_unresponsive = False
        """Whether the peer has not answered a ping in time."""
        self._scope = trio.CancelScope(shield=True)
        self._closed = False

    # ---- sending ----

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See `Stream.send_nowait`.

        Complete lines are packed into frames. While frames wait to be sent, the last byte is reported as
        unsent, so that the caller waits.
        """
        if (reason := self._send_error) is not None:
            raise ConnectionLost(reason)
        queue = self._queue
        if queue.is_blocked or not data:
            return 0
        sent, self._withheld = self._withheld, 0
        while sent < len(data):
            piece = bytes(data[sent : sent + _PIECE])
            sent += len(piece)
            if lines := self._lines.feed(piece):
                if queue.put(self._pack(lines)):
                    continue
                if queue.error is not None:
                    raise queue.error
                self._withheld = 1
                break
        return sent - self._withheld

    def _pack(self, lines: list[bytes]) -> bytes | memoryview:
        try:
            return self._frames.pack(lines)
        except UnicodeDecodeError as error:
            text = "a line that is no UTF-8 cannot be sent by WebSocket"
            self.send_close(CloseReason.INTERNAL_ERROR, text)
            raise ConnectionLost(f"{text}: {error}") from error

    async def wait_send(self) -> None:
        """See `Stream.wait_send`. May return after progress that is not enough to send."""
        if self._send_error is None and self._queue.is_blocked:
            await self._queue.wait_progress()
        else:
            await trio.lowlevel.checkpoint()

    def send_eof(self) -> None:
        """See `Stream.send_eof`."""
        self.send_close(CloseReason.NORMAL_CLOSURE)

    def send_close(self, code: int, reason: str = "") -> None:
        """Close the sending direction as `send_eof` does, with a code and a reason.

        Args:
            code: The close code (RFC 6455, section 7.4).
            reason: The reason, truncated to some 40 to 120 characters.
        """
        if not self._is_closing:
            self._is_closing = True
            self._queue.put_close(code, reason)

    @property
    def has_sent_close(self) -> bool:
        """Whether this end has sent a close frame, of its own accord or as an answer."""
        return self._queue.has_sent_close

    @property
    def _send_error(self) -> str | None:
        if self._closed or self._is_closing:
            return "The connection has been closed"
        if self._queue.error is not None:
            return str(self._queue.error)
        return None if self._frames.ending is None else str(self._frames.ending)

    # ---- receiving ----

    async def receive(self) -> bytes:
        """See `Stream.receive`. Returns messages as lines."""
        if self._frames.ending is not None and not self._is_closing:
            await trio.lowlevel.checkpoint()
        while not self._is_closing:
            if self._frames.ending is not None:
                return self._end()
            lines = await self._receive_turn()
            if lines and not self._is_closing:
                return lines
        await self._receive_close()
        return b""

    async def _receive_turn(self) -> bytes:
        """Return the lines of the next frames, of which a limited number is parsed per turn."""
        if self._frames.has_more:
            await trio.lowlevel.checkpoint()
            return self._parse(b"")
        return self._feed(await self._read())

    async def _read(self) -> bytes:
        """Receive from the carrier; empty at its end or after an error."""
        if self._early:
            await trio.lowlevel.checkpoint()
            early, self._early = self._early, b""
            return early
        self._is_reading = True
        try:
            data = await self._carrier.receive()
        except ConnectionLost as error:
            self._queue.fail(error)
            return b""
        finally:
            self._is_reading = False
        self._reads += 1
        return data

    def _feed(self, data: bytes) -> bytes:
        """Parse received data and return the lines; empty data is the end of the carrier."""
        if not data:
            self._frames.ending = self._frames.ending or LOST
            return b""
        return self._parse(data)

    def _parse(self, data: bytes) -> bytes:
        """Parse frames, answer ping and close, and return the lines."""
        frames = self._frames
        lines = frames.feed(data)
        self._count_buffered(0 if lines or not frames.has_unfinished else self._buffered + len(data))
        if frames.ping is not None:
            self._queue.flush()
        if frames.ending is not None:
            self._queue.put_close(frames.ending.code, frames.ending.reason)
        return lines

    def limit_buffer(self, size: int | None) -> None:
        """See `Stream.limit_buffer`."""
        self._buffer_limit = size

    def _count_buffered(self, size: int) -> None:
        """Note the size of the incomplete message and drop the connection if it exceeds a limit."""
        if self._quota is not None and self._buffered > _COUNTED >= size:
            self._quota.release(self)
        self._buffered = size
        if self._buffer_limit is not None and size > self._buffer_limit:
            self.drop(f"It has sent more than {self._buffer_limit:,} bytes without an end")
        elif self._quota is not None and size > _COUNTED:
            self._quota.update(self, size)

    def drop(self, reason: str) -> None:
        """End the connection in both directions at once."""
        self._queue.fail(ConnectionLost(reason))
        self._carrier.end(cut_off=self._queue.has_unsent)

    def _end(self) -> bytes:
        """Return or raise the end of the stream."""
        ending, error = self._frames.ending, self._queue.error
        assert ending is not None
        if self._closed:
            raise ConnectionLost("The connection has been closed")
        if self._is_unresponsive:
            raise ConnectionLost(str(error))
        if ending.is_normal:
            self.close_reason = str(ending)
            return b""
        because = f": {error}" if ending is LOST and error is not None else ""
        raise ConnectionLost(f"{ending}{because}")

    async def _receive_close(self) -> None:
        """Receive and discard data until the peer's close frame or the end of the carrier.

        Data of a rejected peer is received as well: a reset of the connection could destroy the close frame
        with the reason.
        """
        await trio.lowlevel.checkpoint()
        discarded = turns = 0
        while (ending := self._frames.ending) is None or (ending.is_rejection and discarded < _DISCARD_LIMIT):
            if self._frames.has_more:
                turns += 1
                if turns > _CLOSING_TURNS:
                    self._frames.reject("it does not stop sending")
                else:
                    await self._receive_turn()
                continue
            data = await self._read()
            discarded += len(data)
            if data:
                self._feed(data)
            else:
                self._frames.ending = LOST

    # ---- the end ----

    def close(self) -> None:
        """See `Stream.close`. Sends a close frame if that is possible at once."""
        self._close(cut_off=self._queue.has_unsent)

    def abort(self) -> None:
        """See `Stream.abort`. Without a close frame this is an abnormal closure (code 1006)."""
        self._close(cut_off=True)

    def _close(self, *, cut_off: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if not cut_off:
            self._queue.put_close(CloseReason.GOING_AWAY, "")
        self._carrier.end(cut_off=cut_off or self._queue.has_unsent)
        self._count_buffered(0)
        self._scope.cancel()
        self._queue.wake_waiting()

    # ---- liveness of the peer ----

    def start_probe(self) -> bool:
        """See `Stream.start_probe`."""
        return self._carrier.start_probe()

    def peer_activity(self) -> PeerActivity | None:
        """See `Stream.peer_activity`."""
        return self._carrier.peer_activity()

    def end_probe(self) -> None:
        """See `Stream.end_probe`."""
        self._carrier.end_probe()

    def extend_send_timeout(self) -> None:
        """See `Stream.extend_send_timeout`."""
        self._carrier.extend_send_timeout()

    # ---- the task ----

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Run the send queue and the pings until `close`."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_alive)
                with self._scope:
                    await self._queue.run()
                nursery.cancel_scope.cancel()
        finally:
            self._queue.fail(ConnectionLost("The connection has ended"))

    async def _keep_alive(self) -> None:
        """Ping the peer, which also shows proxies that the connection is in use.

        Unlike the send queue this is not shielded: a cancellation here, at the end of the program, limits the
        time of the queue.
        """
        try:
            if self._ping_interval is not None:
                await self._ping(self._ping_interval)
            await trio.sleep_forever()
        finally:
            self._scope.deadline = trio.current_time() + _SHUTDOWN_TIMEOUT

    async def _ping(self, seconds: float) -> None:
        """Ping at intervals; drop the connection if one passes without any sign of the peer."""
        await trio.sleep(seconds)
        while self._send_error is None:
            before, was_reading = self._signs_of_life(), self._is_reading
            self._queue.put_ping()
            await trio.sleep(seconds)
            # Without a call of receive(), a pong would not have been noticed.
            if self._signs_of_life() == before and was_reading and self._is_reading:
                self._is_unresponsive = self._send_error is None
                self.drop(f"The peer has not answered a ping for {seconds:g} seconds")
                return

    def _signs_of_life(self) -> int:
        """Return a count of received data and of progress in sending."""
        return self._reads + self._queue.progress


def input_quota(limit: int | None) -> Quota[WebSocketStream]:
    """Return a quota for the incomplete messages of many WebSockets.

    Args:
        limit: Maximum bytes in total; None: no limit.
    """
    text = "The quota for incomplete messages is exceeded, and this connection holds most of them"
    return Quota(limit, lambda websocket: websocket.address, lambda websocket: websocket.drop(text))
