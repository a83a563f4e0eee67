"""Lines to WebSocket frames and back, by wsproto, without any I/O."""

from __future__ import annotations

import attrs
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from msl_network_trio.visible import visible

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

    @property
    def is_normal(self) -> bool:
        """Whether it is no error."""
        return self.code in _NORMAL

    def __str__(self) -> str:
        try:
            name = f" ({CloseReason(self.code).name.lower().replace('_', ' ')})"
        except ValueError:
            name = ""  # one of an application's own
        because = f": {visible(self.reason)}" if self.reason else ""
        return f"the WebSocket was closed with code {int(self.code)}{name}{because}"


LOST = Ending(CloseReason.ABNORMAL_CLOSURE)
"""The end of a connection of which nobody has taken leave."""


class Frames:
    """The frames of one connection, of which the opening handshake is done.

    Args:
        is_client: Which end this is: a client masks what it sends.
        read_limit: The largest message to accept, in bytes; None: no limit.

    Attributes:
        ending: Why nothing more will be received, if that is so.
        ping: The payload of the ping that came last and is to be answered; earlier ones need not be
            (RFC 6455, 5.5.3). Who has answered it sets it to None.
    """

    def __init__(self, *, is_client: bool, read_limit: int | None = None) -> None:
        self.ending: Ending | None = None
        self.ping: bytes | None = None
        self._protocol = FrameProtocol(is_client, [])
        self._read_limit = read_limit
        self._parts: list[str] = []
        self._size = 0

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

        A JSON text may be written on several lines; line ends are white space there, and become spaces.
        Nothing is returned of what follows the `ending`.
        """
        if self.ending is not None:
            return b""
        messages: list[str] = []
        self._protocol.receive_bytes(data)
        try:
            for frame in self._protocol.received_frames():
                opcode, payload = frame.opcode, frame.payload
                if opcode is Opcode.TEXT:
                    assert isinstance(payload, str)
                    if self._read_limit is not None and self._is_too_large(payload, frame.message_finished):
                        text = f"a message has more than {self._read_limit} bytes"
                        self.ending = Ending(CloseReason.MESSAGE_TOO_BIG, text, is_verdict=True)
                        break
                    if not frame.message_finished:
                        self._parts.append(payload)
                    elif self._parts:
                        self._parts += payload, "\n"
                        messages.append("".join(self._parts))
                        self._parts.clear()
                    else:
                        messages.append(payload + "\n")
                elif opcode is Opcode.PING:
                    assert isinstance(payload, bytes | bytearray)  # the latter up to wsproto 1.2
                    self.ping = bytes(payload)
                elif opcode is Opcode.CLOSE:
                    assert isinstance(payload, tuple)
                    code, reason = payload
                    self.ending = Ending(code, reason or "")
                    break
                elif opcode is Opcode.BINARY:
                    text = "only text messages are understood, and this one is binary"
                    self.ending = Ending(CloseReason.UNSUPPORTED_DATA, text, is_verdict=True)
                    break
        except ParseFailed as error:
            self.ending = Ending(error.code, str(error), is_verdict=True)
        if self.ending is not None:
            self._parts.clear()
        return _lines(messages) if messages else b""

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
