"""Lines to WebSocket frames and back, by wsproto, without any I/O."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from msl_network_trio.protocol.manager.event_log import Allowance
from msl_network_trio.visible import visible

TURN = 64
"""Frames that are read in one turn: each takes some 10 microseconds."""

SHORT = 32
"""Size of a payload in bytes, or characters, below which no message makes sense."""

SHORT_FRAMES = 4
"""Frames of a turn that one with a short payload counts as, which does not slow down usual messages."""

IDLE_AT_ONCE = 1000
"""Pings, pongs, blank fragments and blank messages that a peer may send at once."""

IDLE_PER_SECOND = 100.0
"""The same per second for long."""

_NORMAL = frozenset({CloseReason.NORMAL_CLOSURE, CloseReason.GOING_AWAY, CloseReason.NO_STATUS_RCVD})
"""The codes that are the end of a conversation, and no error."""


@attrs.frozen
class Ending:
    """Why nothing more is received."""

    code: int
    """One of the codes of RFC 6455, 7.4."""

    reason: str = ""
    """What was said of it."""

    is_verdict: bool = False
    """Whether it is us who give up on the peer, which has not closed the connection."""

    cut_off: bool = False
    """Whether the peer had sent a part of a message, the rest of which does not come."""

    @property
    def is_normal(self) -> bool:
        """Whether it is no error."""
        return self.code in _NORMAL and not self.cut_off

    def __str__(self) -> str:
        try:
            name = f" ({CloseReason(self.code).name.lower().replace('_', ' ')})"
        except ValueError:
            name = ""  # one of an application's own
        where = " in the middle of a message" if self.cut_off else ""
        because = f": {visible(self.reason)}" if self.reason else ""
        return f"the WebSocket was closed{where} with code {int(self.code)}{name}{because}"


LOST = Ending(CloseReason.ABNORMAL_CLOSURE)
"""The end of a connection of which nobody has taken leave."""


class Frames:
    """The frames of one connection, of which the opening handshake is done.

    Args:
        is_client: Which end this is: a client masks what it sends.
        read_limit: The largest message to accept, in bytes; None: no limit.
        clock: Returns the time in seconds, of which only differences count.

    Attributes:
        ending: Why nothing more will be received, if that is so.
        has_more: Whether there may be more frames in what was fed, which were too many for one turn.
        ping: The payload of the ping that came last and is to be answered; earlier ones need not be
            (RFC 6455, 5.5.3). Who has answered it sets it to None.
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
        self._idle: Allowance | None = None  # made when needed: most peers send a pong now and then, or none

    @property
    def _is_over(self) -> bool:
        return self.ending is not None

    @property
    def has_unfinished(self) -> bool:
        """Whether there is a part of a message, which waits for the rest."""
        return bool(self._parts)

    def pack(self, lines: list[bytes]) -> bytes | memoryview:
        r"""Return the frames of lines that come without ``\n``: each is a text message, without a ``\r``.

        Args:
            lines: The lines, one at least. A single one is taken out: it may be large, and each copy of it
                that lives longer than it need costs time.

        Raises:
            UnicodeDecodeError: A line is no UTF-8.
        """
        send = self._protocol.send_data
        if len(lines) == 1:
            return memoryview(send(lines.pop().removesuffix(b"\r").decode()))
        return b"".join([send(line.removesuffix(b"\r").decode()) for line in lines])

    def pack_ping(self) -> bytes:
        """Return the frame that asks the peer whether it is there."""
        return bytes(self._protocol.ping())

    def pack_pong(self, payload: bytes) -> bytes:
        """Return the frame that answers a ping."""
        return bytes(self._protocol.pong(payload))

    def pack_close(self, code: int, reason: str) -> bytes:
        """Return the frame that says goodbye, in which a long reason is cut off."""
        return bytes(self._protocol.close(code, reason))

    def feed(self, data: bytes) -> bytes:
        """Add bytes and return the messages that are now complete, as lines.

        If it `has_more`, others should have their turn before it is fed again, perhaps with no bytes.

        A JSON text may be written on several lines; line ends are white space there, and become spaces.
        Nothing is returned of what follows the `ending`.
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
                        self.ending = Ending(CloseReason.MESSAGE_TOO_BIG, text, is_verdict=True)
                        break
                    is_blank = frame.frame_finished and (not payload or payload.isspace())
                    if is_blank and not (frame.message_finished and self._parts):
                        self._count_idle()  # the last part of a message may be blank
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
            self.ending = Ending(error.code, str(error), is_verdict=True)
        if self.ending is not None:
            self._parts.clear()
        return _lines(messages) if messages else b""

    def _take_other(self, opcode: Opcode, payload: object) -> None:
        """Take a frame that is no text."""
        if opcode is Opcode.CLOSE:
            assert isinstance(payload, tuple)
            code, reason = payload
            self.ending = Ending(code, reason or "", cut_off=self.has_unfinished)
        elif opcode is Opcode.BINARY:
            text = "only text messages are understood, and this one is binary"
            self.ending = Ending(CloseReason.UNSUPPORTED_DATA, text, is_verdict=True)
        else:
            if opcode is Opcode.PING:
                assert isinstance(payload, bytes | bytearray)  # the latter up to wsproto 1.2
                self.ping = bytes(payload)
            self._count_idle()

    def _count_idle(self) -> None:
        """Count a frame that has no part of a message, and give up on a peer that sends too many."""
        now = self._clock()
        if self._idle is None:
            self._idle = Allowance(IDLE_AT_ONCE, IDLE_PER_SECOND, now)
        if not self._idle.take(now):
            self.give_up(f"more than {IDLE_PER_SECOND:g} pings, pongs or blank frames a second")

    def give_up(self, reason: str) -> None:
        """Understand nothing more of a peer that sends more than it should."""
        self.ending = Ending(CloseReason.POLICY_VIOLATION, reason, is_verdict=True)
        self.has_more = False

    def _is_too_large(self, payload: str, is_finished: bool) -> bool:
        assert self._read_limit is not None
        size = self._size + (len(payload) if payload.isascii() else len(payload.encode()))
        self._size = 0 if is_finished else size
        return size > self._read_limit


def _lines(messages: list[str]) -> bytes:
    r"""Return messages, each with a ``\n`` at its end, as lines; they may be large, and each copy counts."""
    text = "".join(messages) if len(messages) > 1 else messages[0]
    if text.count("\n") > len(messages):
        text = "".join([message[:-1].replace("\n", " ") + "\n" for message in messages])
    return text.encode()
