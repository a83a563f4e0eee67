r"""The handshake with a Manager, which is the same for clients and Services.

The Manager sends the first line. It may ask for a username or a password, and then for the identity. A
rejection is one error line, after which it closes the connection. Acceptance is not acknowledged.

A `Handshake` is used with the lock of its connection, if there is one; the functions are pure.
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
from msl_network_trio.protocol.messages import Connected, Question, ReceivedLine, retry_after
from msl_network_trio.visible import visible

HANDSHAKE_LINE_LIMIT = 65_536
"""Maximum bytes of a line in the handshake, since the peer may not be a Manager."""

QUESTIONS = frozenset({"username", "password"})
"""The kinds of a Manager's questions, besides the identity."""

UNREGISTERED = "Unregistered user"
WRONG_PASSWORD = "Wrong login password"
WRONG_MANAGER_PASSWORD = "Wrong Manager password"
"""The texts of the ValueError by which a Manager, also that of msl-network, answers a failed login."""

LOGIN_FAILURES = tuple(
    f"ValueError: {text}" for text in (UNREGISTERED, WRONG_PASSWORD, WRONG_MANAGER_PASSWORD)
)
"""The same texts as messages on the wire."""

NO_ADMIN = "ValueError: You must be an administrator to send this request to the Manager"
"""The message by which a Manager refuses an admin request of a user who is no administrator."""

LOGIN_REFUSALS = (*LOGIN_FAILURES, NO_ADMIN)
"""Beginnings of the messages by which a Manager refuses an admin request because of the login."""

_MANAGER_NAME = re.compile(r"Manager\[\S+:\d+\]")


class Handshake:
    """The handshake of one connection.

    Args:
        identity: The identity: ``type``, ``name``, ``language``, ``os``; for a Service also ``attributes``
            and ``max_clients``.
        manager: The ``host:port`` that the user gave, for messages.

    Attributes:
        manager_name: The Manager's name for itself, ``"Manager[HOST:port]"``; empty until it is received.
        is_over: Whether the Manager has asked for the identity.
        identity_line: The line to write then.
    """

    def __init__(self, identity: dict[str, Any], manager: str) -> None:
        self.manager = manager
        self.manager_name = ""
        self.is_over = False
        self.identity_line = codec.encode_reply(identity, None)

    @property
    def awaits(self) -> str:
        """The Manager's next step, in the past tense, for messages about timeouts."""
        return "the Manager accepted our identity" if self.is_over else "the Manager asked for our identity"

    def receive(self, line: bytes, message: ReceivedLine) -> Question | Connected:
        """Process a line and return its event; after `Connected`, `identity_line` must be written.

        Raises:
            AuthenticationError: The Manager rejects the connection.
            HandshakeError: The line is not part of a handshake.
        """
        if message.requester:
            self.manager_name = sendable(message.requester)
        if message.error:
            raise AuthenticationError(
                visible(message.message) or "The Manager refused to connect",
                retry_after=retry_after(message.again),
            )
        if message.attribute == "identity":
            self.is_over = True
            return Connected(self.manager_name)
        if message.attribute in QUESTIONS:
            return question(message)
        raise self.no_manager("something that is not part of a handshake", line)

    def answer(self, text: str) -> bytes:
        """Return the line that answers a question; it may be empty once the handshake is over.

        Raises:
            AuthenticationError: The answer is empty in the handshake; a Manager would not react to it.
            ValueError: The text is not Unicode (a lone surrogate).
        """
        if not self.is_over and not text:
            raise AuthenticationError("An empty username or password cannot be sent to a Manager")
        return codec.encode_reply(text, self.manager_name or None)

    def no_manager(self, what: str, start: bytes) -> HandshakeError:
        """Return the error of a peer that seems not to be a Manager.

        Args:
            what: A description of what it sent.
            start: The beginning of what it sent.
        """
        return HandshakeError(f"{self.sent(what, start)}; is it a Manager?")

    def sent(self, what: str, start: bytes) -> str:
        """Return a sentence about what the Manager sent; arguments as in `no_manager`."""
        return f"Manager[{self.manager}] sent {what}, which begins with {quote(start)}"

    def eof(
        self,
        lines: LineBuffer,
        rejection: str = "",
        close_reason: str = "",
        retry_after: float | None = None,
    ) -> NetworkError:
        """Return the error that the end of the stream means.

        Args:
            lines: The buffer, with the incomplete line.
            rejection: The Manager's reason for closing the connection, if it sent one.
            close_reason: See `Stream.close_reason`.
            retry_after: Seconds after which the Manager asks to connect again, if it does.
        """
        text = f"Manager[{self.manager}] closed the connection"
        if close_reason:
            text += f" ({visible(close_reason)})"
        if lines:
            text += f" in the middle of a line that begins with {quote(lines.start)}"
        if not self.is_over:
            return ConnectError(f"{text} before the handshake was over; is it a Manager?")
        return ConnectionLost(f"{text}: {rejection}" if rejection else text, retry_after=retry_after)


def question(message: ReceivedLine) -> Question:
    """Return the question of a line whose attribute is one of `QUESTIONS`."""
    args = message.args
    about = args[0] if isinstance(args, list) and args and isinstance(args[0], str) else ""
    kind = message.attribute or ""
    return Question(kind, about, kind == "password" and bool(_MANAGER_NAME.fullmatch(about)))


def sendable(text: str) -> str:
    """Replace lone surrogates, which cannot be encoded, by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def quote(start: bytes) -> str:
    """Return the beginning of a line as quoted text that is safe to show; at most 80 bytes."""
    return repr(start[:80].decode("utf-8", "backslashreplace"))
