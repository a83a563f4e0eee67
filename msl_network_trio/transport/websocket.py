"""WebSocket as a transport like TCP, on top of another one, which may have TLS.

A line, without its end, is one text message, in both directions. What is sent at a time goes out together,
and what has come at a time is handed on together, however many messages it is. Nothing has to wait but bytes
that the carrier does not take, and for these there is a task: a caller that is cancelled leaves no half
message.
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

_PIECE = 262_144
"""How many bytes to make frames of at a time."""

_COUNTED = 262_144
"""How many bytes of a message that is not complete are too few to be counted."""

_UNREAD = 16 * 1024 * 1024
"""How many bytes to take of a peer that goes on sending what nobody reads, before it is cut off."""

_PARTING_TURNS = 32
"""In how many turns to look for a goodbye in what a peer has sent before it knew that we said ours."""

_LEFT_BEHIND = 5.0
"""How many seconds a connection lives on when the program, or the Manager, ends: goodbyes take some time."""

SpawnTask = Callable[..., object]
"""Starts a task: the ``start_soon`` of a nursery, or `trio.lowlevel.spawn_system_task`."""


class WebSocketStream(Stream):
    """A WebSocket connection after its opening handshake, of a client or a server.

    See `open_websocket` and `accept_websocket`, which make one. What the peer sends after `send_eof` is not
    received: WebSocket has no half-closed connections.

    Args:
        carrier: The connection that carries it, which is closed with it.
        is_client: Which end this is.
        received: What has been received from the carrier already.
        read_limit: The largest message to accept, in bytes; None: no limit.
        ping_interval: After how many seconds to ask the peer whether it is there, and how long it may take to
            answer; None: never.
        quota: Counts what it holds together with others of messages that are not complete, see
            `input_quota`; None: nobody does.
        address: The IP address of the host of the peer; empty: it is not known.

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
        self._quota = quota
        self._keeps_at_most: int | None = None
        self._size = 0
        """How many bytes a message has taken that is not complete."""
        self._lines = LineBuffer()
        self._rest: memoryview | None = None
        """What the carrier has not taken, and is to be offered again as it is."""
        self._behind = b""
        """What comes behind it."""
        self._has_cut_off = False
        """Whether there was a rest when it became clear that it will never be sent."""
        self._held_back = 0
        """How many bytes, 1 at the most, we did not admit to have taken, since their frame is not sent."""
        self._room = trio.lowlevel.ParkingLot()
        self._work = trio.lowlevel.ParkingLot()
        self._moved = 0
        """Counts up whenever the peer has sent something, or has taken something that had to wait."""
        self._is_reading = False
        self._is_leaving = False
        self._has_said_close = False
        self._failure: ConnectionLost | None = None
        """Why nothing can be sent any more. What the peer has sent before can still be received."""
        self._is_given_up = False
        self._scope = trio.CancelScope(shield=True)
        self._closed = False

    # ---- sending ----

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See `Stream.send_nowait`.

        Frames are made of all of a line. As long as they have not been sent, the last byte is not taken: so
        the caller knows that something waits.
        """
        if (reason := self._cannot_send) is not None:
            raise ConnectionLost(reason)
        if self._rest is not None or not data:
            return 0
        sent, self._held_back = self._held_back, 0
        while sent < len(data):
            piece = bytes(data[sent : sent + _PIECE])
            sent += len(piece)
            if lines := self._lines.feed(piece):
                self._put(self._pack(lines))
                if self._rest is not None:
                    self._held_back = 1
                    break
        return sent - self._held_back

    def _pack(self, lines: list[bytes]) -> bytes | memoryview:
        try:
            return self._frames.pack(lines)
        except UnicodeDecodeError as error:
            text = "a line that is no UTF-8 cannot be sent by WebSocket"
            self.send_close(CloseReason.INTERNAL_ERROR, text)
            raise ConnectionLost(f"{text}: {error}") from error

    def _put(self, frames: bytes | memoryview) -> None:
        """Send frames, or keep what the carrier does not take.

        Raises:
            ConnectionLost: The peer is gone.
        """
        if self._rest is not None:
            self._behind += frames
            return
        try:
            sent = self._carrier.send_nowait(frames)
        except ConnectionLost as error:
            self._fail(error)
            raise
        if sent < len(frames):
            self._rest = memoryview(frames)[sent:]
            self._work.unpark_all()

    def _put_anyway(self, frames: bytes) -> None:
        """`_put` what need not arrive."""
        if self._failure is None:
            try:
                self._put(frames)
            except ConnectionLost:
                pass  # and there is nobody who need be told

    @property
    def _is_inside_a_frame(self) -> bool:
        """Whether a frame has been sent in part, as far as we know."""
        return self._has_cut_off or self._rest is not None

    def _fail(self, error: ConnectionLost) -> None:
        self._failure = self._failure or error
        self._has_cut_off = self._is_inside_a_frame
        self._rest = None
        self._behind = b""
        self._room.unpark_all()

    async def wait_send(self) -> None:
        """See `Stream.wait_send`; also returns when there is no room yet but progress."""
        if self._rest is None or self._cannot_send is not None:
            await trio.lowlevel.checkpoint()
        else:
            await self._room.park()

    def send_eof(self) -> None:
        """See `Stream.send_eof`."""
        self.send_close(CloseReason.NORMAL_CLOSURE)

    def send_close(self, code: int, reason: str = "") -> None:
        """`send_eof`, and tell the peer why.

        Args:
            code: One of the codes of RFC 6455, 7.4.
            reason: The reason, of which some 40 to 120 characters are sent.
        """
        if not self._is_leaving:
            self._is_leaving = True
            self._say_close(code, reason)

    @property
    def has_sent_close(self) -> bool:
        """Whether the peer has been told why the connection is closed, or has told us."""
        return self._has_said_close

    def _say_close(self, code: int, reason: str) -> None:
        if not self._has_said_close:
            self._has_said_close = True
            self._put_anyway(self._frames.pack_close(code, reason))

    @property
    def _cannot_send(self) -> str | None:
        if self._closed or self._is_leaving:
            return "The connection has been closed"
        if self._failure is not None:
            return str(self._failure)
        return None if self._frames.ending is None else str(self._frames.ending)

    # ---- receiving ----

    async def receive(self) -> bytes:
        """See `Stream.receive`: messages, as lines."""
        if self._frames.ending is not None and not self._is_leaving:
            await trio.lowlevel.checkpoint()
        while not self._is_leaving:
            if self._frames.ending is not None:
                return self._end()
            lines = await self._receive_turn()
            if lines and not self._is_leaving:
                return lines
        # After our own goodbye there is only that of the peer to wait for, as long as the caller wants to.
        await self._part()
        return b""

    async def _receive_turn(self) -> bytes:
        """Return the lines of the next frames, of which a bounded number is handled in one turn."""
        if self._frames.has_more:
            await trio.lowlevel.checkpoint()
            return self._understand(b"")
        return self._feed(await self._read())

    async def _read(self) -> bytes:
        """Receive from the carrier; nothing when that is at its end, whatever that is."""
        if self._early:
            await trio.lowlevel.checkpoint()
            early, self._early = self._early, b""
            return early
        self._is_reading = True
        try:
            data = await self._carrier.receive()
        except ConnectionLost as error:
            self._fail(error)
            return b""
        finally:
            self._is_reading = False
        self._moved += 1
        return data

    def _feed(self, data: bytes) -> bytes:
        """`_understand` what has been received, or note that it was the end."""
        if not data:
            self._frames.ending = self._frames.ending or LOST
            return b""
        return self._understand(data)

    def _understand(self, data: bytes) -> bytes:
        """Answer what wants an answer, and return the lines."""
        frames = self._frames
        lines = frames.feed(data)
        self._count(0 if lines or not frames.has_unfinished else self._size + len(data))
        if frames.ping is not None and self._rest is None:  # else it is answered when there is room
            self._answer_ping()
        if frames.ending is not None:
            self._say_close(frames.ending.code, frames.ending.reason)
        return lines

    def limit_buffer(self, size: int | None) -> None:
        """See `Stream.limit_buffer`."""
        self._keeps_at_most = size

    def _count(self, size: int) -> None:
        """Note how much is kept, and have that end which is too much."""
        if self._quota is not None and self._size > _COUNTED >= size:
            self._quota.release(self)
        self._size = size
        if self._keeps_at_most is not None and size > self._keeps_at_most:
            self.cut_off(f"It has sent more than {self._keeps_at_most:,} bytes without an end")
        elif self._quota is not None and size > _COUNTED:
            self._quota.update(self, size)

    def cut_off(self, reason: str) -> None:
        """Receive nothing more, nor send anything."""
        self._fail(ConnectionLost(reason))
        self._carrier.end(cut_off=self._is_inside_a_frame)

    def _answer_ping(self) -> None:
        ping, self._frames.ping = self._frames.ping, None
        if ping is not None and not self._has_said_close:  # behind which nothing may follow
            self._put_anyway(self._frames.pack_pong(ping))

    def _end(self) -> bytes:
        """Tell why nothing more is received."""
        ending = self._frames.ending
        assert ending is not None
        if self._closed:
            raise ConnectionLost("The connection has been closed")
        if self._is_given_up:
            raise ConnectionLost(str(self._failure))
        if ending.is_normal:
            self.close_reason = str(ending)
            return b""
        because = f": {self._failure}" if ending is LOST and self._failure is not None else ""
        raise ConnectionLost(f"{ending}{because}")

    async def _part(self) -> None:
        """Wait for the peer to say goodbye, too, or to close the connection.

        What a peer that has broken the rules still sends nobody reads; but it would not read why it is
        dropped if the connection were reset.
        """
        await trio.lowlevel.checkpoint()
        unread = turns = 0
        while (ending := self._frames.ending) is None or (ending.is_rejection and unread < _UNREAD):
            if self._frames.has_more:
                turns += 1
                if turns > _PARTING_TURNS:
                    self._frames.reject("it goes on sending")
                else:
                    await self._receive_turn()
                continue
            data = await self._read()
            unread += len(data)
            if data:
                self._feed(data)
            else:
                self._frames.ending = LOST

    # ---- the end ----

    def close(self) -> None:
        """See `Stream.close`; the peer is told if that can be done at once."""
        self._close(cut_off=self._is_inside_a_frame)

    def abort(self) -> None:
        """See `Stream.abort`: there is no closing frame, so this is an abnormal closure (code 1006)."""
        self._close(cut_off=True)

    def _close(self, *, cut_off: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if not cut_off:
            self._say_close(CloseReason.GOING_AWAY, "")
        self._carrier.end(cut_off=cut_off or self._is_inside_a_frame)
        self._count(0)
        self._scope.cancel()
        self._room.unpark_all()

    def start_probe(self) -> bool:
        """See `Stream.start_probe`."""
        return self._carrier.start_probe()

    def peer_activity(self) -> PeerActivity | None:
        """See `Stream.peer_activity`."""
        return self._carrier.peer_activity()

    def extend_send_timeout(self) -> None:
        """See `Stream.extend_send_timeout`."""
        self._carrier.extend_send_timeout()

    def end_probe(self) -> None:
        """See `Stream.end_probe`."""
        self._carrier.end_probe()

    # ---- the task ----

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Send what has to wait, and ask the peer whether it is there, until `close`."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_alive)
                with self._scope:
                    await self._flush()
                nursery.cancel_scope.cancel()
        finally:
            self._fail(ConnectionLost("The connection has ended"))  # nobody would send what has to wait

    async def _flush(self) -> None:
        while True:
            if self._rest is None:
                await self._work.park()
                continue
            try:
                await self._carrier.wait_send()
                if self._rest is not None:
                    self._send_rest(self._rest)
            except ConnectionLost as error:
                self._fail(error)

    def _send_rest(self, rest: memoryview) -> None:
        sent = self._carrier.send_nowait(rest)
        if sent:
            self._moved += 1
        if sent < len(rest):
            self._rest = rest[sent:]
        elif self._behind:
            self._rest = memoryview(self._behind)
            self._behind = b""
        else:
            self._rest = None
            self._answer_ping()
        self._room.unpark_all()

    async def _keep_alive(self) -> None:
        """Ask the peer again and again whether it is there; a proxy sees that the connection is in use.

        This is not shielded: if whoever has the connection forgets it, the program's end is not held up.
        """
        try:
            if self._ping_interval is not None:
                await self._ping(self._ping_interval)
            await trio.sleep_forever()
        finally:
            self._scope.deadline = trio.current_time() + _LEFT_BEHIND

    async def _ping(self, seconds: float) -> None:
        await trio.sleep(seconds)
        while self._cannot_send is None:
            moved, was_reading = self._moved, self._is_reading
            if self._rest is None:
                self._put_anyway(self._frames.pack_ping())
            await trio.sleep(seconds)
            # Whoever does not read cannot tell that nothing has come.
            if self._moved == moved and was_reading and self._is_reading:
                self._is_given_up = self._cannot_send is None
                self.cut_off(f"The peer has not answered a ping for {seconds:g} seconds")
                return


def input_quota(most: int | None) -> Quota[WebSocketStream]:
    """Return what counts what many WebSockets hold of messages that are not complete.

    Args:
        most: How many bytes that may be; None: any number.
    """
    text = "It has sent most, and all connections together have sent too much"
    return Quota(most, lambda websocket: websocket.address, lambda websocket: websocket.cut_off(text))
