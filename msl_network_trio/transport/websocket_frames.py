"""Conversion between lines and WebSocket frames, by wsproto: pure, without I/O and locks."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from msl_network_trio.limits.token_bucket import TokenBucket
from msl_network_trio.visible import visible

TURN = 64
"""Maximum frames parsed per turn of the event loop; each takes some 10 microseconds."""

SHORT = 32
"""Payload size in bytes or characters below which a frame counts as short: no message is so small."""

SHORT_FRAMES = 4
"""Frames of a turn that a short frame counts as."""

IDLE_AT_ONCE = 1000
"""Maximum burst of frames without content: pings, pongs, blank fragments and blank messages."""

IDLE_PER_SECOND = 100.0
"""Maximum long-term rate of these frames per second."""

_NORMAL = frozenset({CloseReason.NORMAL_CLOSURE, CloseReason.GOING_AWAY, CloseReason.NO_STATUS_RCVD})
"""The close codes that are not an error."""


@attrs.frozen
class Ending:
    """The end of a WebSocket: close code and reason."""

    code: int
    """The close code (RFC 6455, section 7.4)."""

    reason: str = ""
    """The reason; may be empty."""

    is_rejection: bool = False
    """Whether this end rejects the peer's data; the peer has not closed the connection."""

    cut_off: bool = False
    """Whether the WebSocket ended in the middle of a message."""

    @property
    def is_normal(self) -> bool:
        """Whether the WebSocket was closed without an error."""
        return self.code in _NORMAL and not self.cut_off

    def __str__(self) -> str:
        try:
            name = f" ({CloseReason(self.code).name.lower().replace('_', ' ')})"
        except ValueError:
            name = ""  # a code of an application
        where = " in the middle of a message" if self.cut_off else ""
        because = f": {visible(self.reason)}" if self.reason else ""
        return f"the WebSocket was closed{where} with code {int(self.code)}{name}{because}"


LOST = Ending(CloseReason.ABNORMAL_CLOSURE)
"""The end of a connection without a close frame."""


class Frames:
    """The frames of one connection after its opening handshake.

    Args:
        is_client: Whether this end is the client, which masks its frames.
        read_limit: Maximum bytes of a message; None: no limit.
        clock: Returns a time in seconds with any origin.

    Attributes:
        ending: The end of the WebSocket; None: it is open.
        has_more: Whether unparsed frames may be left, as there were too many for one turn.
        ping: The payload of the last ping, to be answered and then set to None; earlier ones need no answer
            (RFC 6455, section 5.5.3).
    """

    def __init__(
        self,
        *,
        is_client: bool,
        read_limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ending: Ending | None = None
        self.has_more = False
        self.ping: bytes | None = None
        self._protocol = FrameProtocol(is_client, [])
        self._read_limit = read_limit
        self._parts: list[str] = []
        self._size = 0
        self._clock = clock
        self._idle: TokenBucket | None = None  # created on demand: most peers send few or no such frames

    @property
    def _is_over(self) -> bool:
        return self.ending is not None

    @property
    def has_unfinished(self) -> bool:
        """Whether a message is incomplete."""
        return bool(self._parts)

    def pack(self, lines: list[bytes]) -> bytes | memoryview:
        r"""Return the frames of lines, each of which is a text message.

        Args:
            lines: The lines without ``\n``; a ``\r`` at the end is removed. At least one. A single line is
                removed from the list, so that a large one is freed as soon as possible.

        Raises:
            UnicodeDecodeError: A line is not UTF-8.
        """
        send = self._protocol.send_data
        if len(lines) == 1:
            return memoryview(send(lines.pop().removesuffix(b"\r").decode()))
        return b"".join([send(line.removesuffix(b"\r").decode()) for line in lines])

    def pack_ping(self) -> bytes:
        """Return a ping frame."""
        return bytes(self._protocol.ping())

    def pack_pong(self, payload: bytes) -> bytes:
        """Return the pong frame that answers a ping."""
        return bytes(self._protocol.pong(payload))

    def pack_close(self, code: int, reason: str) -> bytes:
        """Return a close frame; a long reason is truncated."""
        return bytes(self._protocol.close(code, reason))

    def feed(self, data: bytes) -> bytes:
        """Add received data and return the complete messages as lines.

        If it `has_more`, call it again after a checkpoint, with or without data.

        A JSON text may contain line ends as white space; they become spaces. Data after the `ending` is
        ignored.
        """
        if self.ending is not None:
            return b""
        messages: list[str] = []
        self._protocol.receive_bytes(data)
        self.has_more = False
        left = TURN
        try:
            for frame in self._protocol.received_frames():
                opcode, payload = frame.opcode, frame.payload
                if opcode is Opcode.TEXT:
                    assert isinstance(payload, str)
                    if self._read_limit is not None and self._is_too_large(payload, frame.message_finished):
                        text = f"a message has more than {self._read_limit} bytes"
                        self.ending = Ending(CloseReason.MESSAGE_TOO_BIG, text, is_rejection=True)
                        break
                    is_blank = frame.frame_finished and (not payload or payload.isspace())
                    if is_blank and not (frame.message_finished and self._parts):
                        self._count_idle()  # not the last fragment of a message, which may be blank
                    if frame.message_finished and self._parts:
                        self._parts += payload, "\n"
                        messages.append("".join(self._parts))
                        self._parts.clear()
                    elif frame.message_finished:
                        messages.append(payload + "\n")
                    elif payload:
                        self._parts.append(payload)
                else:
                    self._take_other(opcode, payload)
                left -= 1 if len(payload) >= SHORT else SHORT_FRAMES
                if self._is_over or left <= 0:
                    self.has_more = not self._is_over
                    break
        except ParseFailed as error:
            self.ending = Ending(error.code, str(error), is_rejection=True)
        if self.ending is not None:
            self._parts.clear()
        return _lines(messages) if messages else b""

    def _take_other(self, opcode: Opcode, payload: object) -> None:
        """Process a frame that is not text."""
        if opcode is Opcode.CLOSE:
            assert isinstance(payload, tuple)
            code, reason = payload
            self.ending = Ending(code, reason or "", cut_off=self.has_unfinished)
        elif opcode is Opcode.BINARY:
            text = "only text messages are understood, and this one is binary"
            self.ending = Ending(CloseReason.UNSUPPORTED_DATA, text, is_rejection=True)
        else:
            if opcode is Opcode.PING:
                assert isinstance(payload, bytes | bytearray)  # the latter up to wsproto 1.2
                self.ping = bytes(payload)
            self._count_idle()

    def _count_idle(self) -> None:
        """Count a frame without content; reject the peer if it sends too many."""
        now = self._clock()
        if self._idle is None:
            self._idle = TokenBucket(IDLE_AT_ONCE, IDLE_PER_SECOND, now)
        if not self._idle.take(now):
            self.reject(f"more than {IDLE_PER_SECOND:g} pings, pongs or blank frames a second")

    def reject(self, reason: str) -> None:
        """Reject the peer, which sends more than allowed, and ignore its data from now on."""
        self.ending = Ending(CloseReason.POLICY_VIOLATION, reason, is_rejection=True)
        self.has_more = False

    def _is_too_large(self, payload: str, is_finished: bool) -> bool:
        assert self._read_limit is not None
        size = self._size + (len(payload) if payload.isascii() else len(payload.encode()))
        self._size = 0 if is_finished else size
        return size > self._read_limit


def _lines(messages: list[str]) -> bytes:
    r"""Return messages, which end with ``\n``, as lines, with as few copies as possible."""
    text = "".join(messages) if len(messages) > 1 else messages[0]
    if text.count("\n") > len(messages):
        text = "".join([message[:-1].replace("\n", " ") + "\n" for message in messages])
    return text.encode()
