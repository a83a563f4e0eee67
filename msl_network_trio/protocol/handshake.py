r"""How a conversation with a Manager begins, which is the same for clients and Services.

The Manager speaks first. It may ask for a username or a password, and then for the identity. A rejection is
one error line, after which it closes the connection. There is no acknowledgement: silence is success.
"""

from __future__ import annotations

import re
from typing import Any

from msl_network_trio.exceptions import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    HandshakeError,
    NetworkError,
)
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.framing import LineBuffer
from msl_network_trio.protocol.messages import Connected, Question, ReceivedLine
from msl_network_trio.visible import visible

HANDSHAKE_LINE_LIMIT = 65_536
"""The largest line of a handshake, in bytes: a peer that is no Manager must not fill our memory."""

QUESTIONS = frozenset({"username", "password"})
"""What a Manager may ask for, besides the identity."""

UNREGISTERED = "Unregistered user"
WRONG_PASSWORD = "Wrong login password"
WRONG_MANAGER_PASSWORD = "Wrong Manager password"
"""The texts of the ValueError with which a Manager, of msl-network too, answers a login that failed."""

LOGIN_FAILURES = tuple(
    f"ValueError: {text}" for text in (UNREGISTERED, WRONG_PASSWORD, WRONG_MANAGER_PASSWORD)
)
"""The same as they are on the wire."""

NO_ADMIN = "ValueError: You must be an administrator to send this request to the Manager"

LOGIN_REFUSALS = (*LOGIN_FAILURES, NO_ADMIN)
"""Beginnings of the messages with which a Manager refuses an admin request because of the login."""

_MANAGER_NAME = re.compile(r"Manager\[\S+:\d+\]")


class Handshake:
    """The beginning of one conversation.

    Args:
        identity: Who we are: ``type``, ``name``, ``language``, ``os``; a Service also tells its
            ``attributes`` and its ``max_clients``.
        manager: The ``host:port`` that the user gave, for messages.

    Attributes:
        manager_name: ``"Manager[HOST:port]"`` as the Manager calls itself; empty before it said so.
        is_over: Whether the Manager has asked for our identity.
        identity_line: What to write then.
    """

    def __init__(self, identity: dict[str, Any], manager: str) -> None:
        self.manager = manager
        self.manager_name = ""
        self.is_over = False
        self.identity_line = codec.encode_reply(identity, None)

    @property
    def awaits(self) -> str:
        """What the Manager has to do next, as a past tense."""
        return "the Manager accepted our identity" if self.is_over else "the Manager asked for our identity"

    def receive(self, line: bytes, message: ReceivedLine) -> Question | Connected:
        """Take a line and return what it means; after `Connected` write the `identity_line`.

        Raises:
            AuthenticationError: The Manager rejects us.
            HandshakeError: The line is not part of a handshake.
        """
        if message.requester:
            self.manager_name = sendable(message.requester)
        if message.error:
            raise AuthenticationError(visible(message.message) or "The Manager refused to connect")
        if message.attribute == "identity":
            self.is_over = True
            return Connected(self.manager_name)
        if message.attribute in QUESTIONS:
            return question(message)
        raise self.no_manager("something that is not part of a handshake", line)

    def answer(self, text: str) -> bytes:
        """Return the line that answers a question; it may be empty once the handshake is over.

        Raises:
            AuthenticationError: An empty answer in the handshake, at which a Manager falls silent.
            ValueError: The text is not Unicode (a lone surrogate).
        """
        if not self.is_over and not text:
            raise AuthenticationError("An empty username or password cannot be sent to a Manager")
        return codec.encode_reply(text, self.manager_name or None)

    def no_manager(self, what: str, start: bytes) -> HandshakeError:
        """Return the error that says that the peer sent what no Manager sends.

        Args:
            what: What it sent.
            start: How that begins.
        """
        return HandshakeError(f"{self.sent(what, start)}; is it a Manager?")

    def sent(self, what: str, start: bytes) -> str:
        """Say that the Manager sent something; arguments as in `no_manager`."""
        return f"Manager[{self.manager}] sent {what}, which begins with {quote(start)}"

    def eof(self, lines: LineBuffer, rejection: str = "", close_reason: str = "") -> NetworkError:
        """Return what the end of the stream means.

        Args:
            lines: What was received of a line that is not complete.
            rejection: Why the Manager closed the connection, if it said so.
            close_reason: See `Stream.close_reason`.
        """
        text = f"Manager[{self.manager}] closed the connection"
        if close_reason:
            text += f" ({visible(close_reason)})"
        if lines:
            text += f" in the middle of a line that begins with {quote(lines.start)}"
        if not self.is_over:
            return ConnectError(f"{text} before the handshake was over; is it a Manager?")
        return ConnectionLost(f"{text}: {rejection}" if rejection else text)


def question(message: ReceivedLine) -> Question:
    """Return the question that a line asks, one of `QUESTIONS`."""
    args = message.args
    about = args[0] if isinstance(args, list) and args and isinstance(args[0], str) else ""
    kind = message.attribute or ""
    return Question(kind, about, kind == "password" and bool(_MANAGER_NAME.fullmatch(about)))


def sendable(text: str) -> str:
    """Return a text without what cannot be sent (a lone surrogate), which would have come from no Manager."""
    return text.encode("utf-8", "replace").decode("utf-8")


def quote(start: bytes) -> str:
    """Quote how a line begins, as text that is safe to show."""
    return repr(start[:80].decode("utf-8", "backslashreplace"))
