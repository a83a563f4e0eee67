"""Everything that this package raises about the network, in one tree.

The root is `NetworkError`. Every class is also the builtin exception that msl-network 1.0.0 raises in
the same place, so ``except RuntimeError``, ``except ConnectionError`` and ``except TimeoutError`` of
existing programs go on working. All of them can be pickled.
"""

from __future__ import annotations

import re

from msl_network_trio.visible import visible, visible_lines

_TYPE_NAME = re.compile(r"([A-Za-z_][\w.]*):")

_LINE_BREAK = re.compile(r"\n(?!  |The linked Clients are:\n)")
"""A line break that is in no message of a Manager: it lists names below each other, indented."""


class NetworkError(Exception):
    """The root of all errors of this package.

    Texts may come from other computers, so ``str()`` shows control characters in them escaped. Attributes
    have them as they came.
    """

    def __str__(self) -> str:
        return visible_lines(super().__str__())


class ConnectError(NetworkError, ConnectionError):
    """No connection was made: refused, no such host, not a Manager, wrong TLS setting."""


class ConnectTimeout(ConnectError, TimeoutError):
    """The ``timeout`` of ``connect`` passed; the text says in which phase."""


class CertificateError(ConnectError):
    """The Manager's certificate is not trusted, or a certificate file cannot be used."""


class CertificateDeclined(CertificateError, ConnectionRefusedError):
    """The user was shown the Manager's certificate and said no."""


class AuthenticationError(NetworkError, ValueError):
    """The Manager rejected the credentials, the hostname or the identity, or credentials are missing."""


class DatabaseError(NetworkError, OSError):
    """The database of a Manager cannot be used: it is locked, broken, or none."""


class ConnectionLost(NetworkError, ConnectionAbortedError):
    """The connection has ended, or was not open any more when the request was made.

    Attributes:
        may_have_run: False: the request surely was not executed, since it was never written.
            True: it was written, and what became of it is unknown.
    """

    def __init__(self, message: str, *, may_have_run: bool = False) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class ReplyTimeout(NetworkError, TimeoutError):
    """No reply came within ``timeout``. The request is abandoned, the connection is not.

    Attributes:
        service: The name of the Service (or ``"Manager"``).
        attribute: What was requested.
        seconds: The timeout that passed.
        may_have_run: False: the request was withdrawn before it was written.
            True: it was written, and may still be executed.
    """

    def __init__(
        self,
        message: str,
        *,
        service: str = "",
        attribute: str = "",
        seconds: float = 0.0,
        may_have_run: bool = True,
    ) -> None:
        super().__init__(message)
        self.service = service
        self.attribute = attribute
        self.seconds = seconds
        self.may_have_run = may_have_run


class BacklogFull(NetworkError, BufferError):
    """More than ``max_unsent`` bytes wait to be written, and the request was not one that can wait."""


class RemoteError(NetworkError, RuntimeError):
    """The Service raised an exception while it handled the request.

    The text is the one that msl-network gives: who answered, the remote traceback, the message. Control
    characters in it are escaped, but for the ends of lines.

    Attributes:
        type_name: The name of the remote exception's class, ``"ValueError"`` for example; empty if
            the answer names none.
        message: What was raised, as it came: the remote exception's class and text, ``"ValueError: bad"`` for
            example.
        traceback_lines: The lines of the remote traceback; empty if the answer has none.
        service: The name of the Service (or ``"Manager"``).
        attribute: What was requested.
    """

    type_name = ""
    message = ""
    traceback_lines: tuple[str, ...] = ()
    service = ""
    attribute = ""

    @classmethod
    def from_answer(
        cls,
        answer: str,
        *,
        traceback_lines: tuple[str, ...],
        manager: str,
        service: str,
        attribute: str,
    ) -> RemoteError:
        """Build the error of one answer.

        Args:
            answer: The ``message`` of the answer, ``"ValueError: bad"`` for example.
            traceback_lines: The ``traceback`` of the answer.
            manager: The ``host:port`` that ``connect`` was given.
            service: The name of the Service (or ``"Manager"``).
            attribute: What was requested.
        """
        text = [f"Manager[{manager}] returned the following exception:\n"]
        error = cls("\n".join(text + cls._lines(answer, traceback_lines)))
        typed = _TYPE_NAME.match(answer)
        error.type_name = typed[1] if typed else ""
        error.message = answer
        error.traceback_lines = traceback_lines
        error.service = service
        error.attribute = attribute
        return error

    @classmethod
    def _lines(cls, answer: str, traceback_lines: tuple[str, ...]) -> list[str]:
        """Return the traceback and, unless that ends with it, the message."""
        lines = [*traceback_lines]
        if not lines or lines[-1] != answer:
            lines.append(answer)
        return lines


class ManagerError(RemoteError):
    """The Manager refused the request: locked, too many clients, not an administrator, ..."""

    @classmethod
    def _lines(cls, answer: str, traceback_lines: tuple[str, ...]) -> list[str]:
        # It names others, who may have chosen a name with line breaks: only those stay that a Manager makes.
        shown = _LINE_BREAK.sub(lambda found: visible(found[0]), answer)
        split = answer.splitlines()
        lines = [*traceback_lines]
        if lines[-len(split) :] == split:
            lines[-len(split) :] = shown.split("\n")
        return super()._lines(shown, tuple(map(visible, lines)))


class ServiceLost(NetworkError, RuntimeError):
    """The Service is not, or no longer, connected to the Manager.

    Attributes:
        service: The name of the Service.
        attribute: What was requested.
        may_have_run: False: the Manager refused the request. True: the Service may have begun with
            it before it vanished.
    """

    def __init__(
        self, message: str, *, service: str = "", attribute: str = "", may_have_run: bool = True
    ) -> None:
        super().__init__(message)
        self.service = service
        self.attribute = attribute
        self.may_have_run = may_have_run


class LinkBroken(NetworkError, AttributeError):
    """A Link was used after it had been unlinked."""


class PrivateAttribute(NetworkError, AttributeError, RuntimeError):
    """A private attribute of a Service was requested, which every Service refuses; so it was not asked."""


class ProtocolError(NetworkError):
    """The peer sent something that no Manager sends; the text quotes how it begins."""


class HandshakeError(ProtocolError, ConnectError):
    """A `ProtocolError` while connecting: most likely the peer is not a Manager."""


class StreamCorrupted(ProtocolError, ConnectionLost):
    """A `ProtocolError` on an open connection, which is closed because of it."""
