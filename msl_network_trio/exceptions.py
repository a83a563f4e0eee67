"""The exceptions of this package, in one tree with the root `NetworkError`.

Each class also derives from the builtin exception that msl-network 1.0.0 raises in the same place, so that
``except RuntimeError``, ``except ConnectionError`` and ``except TimeoutError`` of existing programs keep
working. All exceptions can be pickled.
"""

from __future__ import annotations

import re

from msl_network_trio.visible import visible, visible_lines

_TYPE_NAME = re.compile(r"([A-Za-z_][\w.]*):")

_LINE_BREAK = re.compile(r"\n(?!  |The linked Clients are:\n)")
"""A line break that no message of a Manager contains, which lists names on indented lines."""


class NetworkError(Exception):
    """Base class of all errors of this package.

    Texts may come from other computers, so ``str()`` escapes control characters. Attributes keep the texts
    as received.
    """

    def __str__(self) -> str:
        return visible_lines(super().__str__())


class ConnectError(NetworkError, ConnectionError):
    """The connection failed: refused, unknown host, not a Manager, wrong TLS setting.

    Attributes:
        http_status: Status with which a server refused to open a WebSocket; None: it did not.
        retry_after: Seconds after which this server asks to try again; None: it does not say.
    """

    http_status: int | None = None
    retry_after: float | None = None


class ConnectTimeout(ConnectError, TimeoutError):
    """The ``timeout`` of ``connect`` expired; the text names the phase."""


class CertificateError(ConnectError):
    """The Manager's certificate is not trusted, or a certificate file is unusable."""


class CertificateDeclined(CertificateError, ConnectionRefusedError):
    """The user declined to trust the Manager's certificate."""


class AuthenticationError(NetworkError, ValueError):
    """The Manager rejected the credentials, host name or identity, or credentials are missing.

    Attributes:
        retry_after: Seconds after which the Manager asks to try again, since the reason lies not with the
            credentials; None: it does not say.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DatabaseError(NetworkError, OSError):
    """The database of a Manager is locked, damaged or not a database."""


class Unanswered(NetworkError):
    """A request has no answer: the connection, the Service, the time or the room in the queue was lacking.

    Base class of `ConnectionLost`, `ServiceLost`, `ReplyTimeout` and `BacklogFull`. A measurement loop can
    catch it and continue, unlike `RemoteError` and `AuthenticationError`, which are not derived from it.

    Attributes:
        may_have_run: False: the request was certainly not executed, and may be made again. True: it was
            written to the Manager, and may have been executed, or may still be.
    """

    def __init__(self, message: str, *, may_have_run: bool = False) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class ConnectionLost(Unanswered, ConnectionAbortedError):
    """The connection ended before the reply, or was closed when the request was made.

    Attributes:
        may_have_run: False: the request was never written, so it was not executed.
            True: it was written, and may have been executed.
        retry_after: Seconds after which the Manager asks to connect again; None: it does not say.
    """

    def __init__(self, message: str, *, may_have_run: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message, may_have_run=may_have_run)
        self.retry_after = retry_after


class ReplyTimeout(Unanswered, TimeoutError):
    """No reply was received within ``timeout``. The request is abandoned; the connection stays open.

    Attributes:
        service: Name of the Service (or ``"Manager"``).
        attribute: Requested attribute.
        seconds: Timeout in seconds.
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
        super().__init__(message, may_have_run=may_have_run)
        self.service = service
        self.attribute = attribute
        self.seconds = seconds


class BacklogFull(Unanswered, BufferError):
    """More than ``max_unsent`` bytes are queued, and the request was made with ``asynchronous=True``.

    Attributes:
        may_have_run: False.
    """


class RemoteError(NetworkError, RuntimeError):
    """The Service raised an exception while it handled the request.

    The text is that of msl-network: the Manager's address, the remote traceback, the message. Control
    characters in it are escaped, except line ends.

    Attributes:
        type_name: Name of the remote exception's class, such as ``"ValueError"``; empty if the answer has
            none.
        message: Class and text of the remote exception, as received, such as ``"ValueError: bad"``.
        traceback_lines: Lines of the remote traceback; empty if the answer has none.
        service: Name of the Service (or ``"Manager"``).
        attribute: Requested attribute.
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
        """Create the error for an answer.

        Args:
            answer: The field ``message`` of the answer, such as ``"ValueError: bad"``.
            traceback_lines: The field ``traceback`` of the answer.
            manager: The ``host:port`` that was passed to ``connect``.
            service: Name of the Service (or ``"Manager"``).
            attribute: Requested attribute.
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
        """Return the lines of the traceback, followed by the message unless it is the last of them."""
        lines = [*traceback_lines]
        if not lines or lines[-1] != answer:
            lines.append(answer)
        return lines


class ManagerError(RemoteError):
    """The Manager refused the request: Service locked, too many clients, not an administrator, ..."""

    @classmethod
    def _lines(cls, answer: str, traceback_lines: tuple[str, ...]) -> list[str]:
        # The message contains names that other peers have chosen. Only line breaks of the Manager are kept.
        shown = _LINE_BREAK.sub(lambda found: visible(found[0]), answer)
        split = answer.splitlines()
        lines = [*traceback_lines]
        if lines[-len(split) :] == split:
            lines[-len(split) :] = shown.split("\n")
        return super()._lines(shown, tuple(map(visible, lines)))


class ServiceLost(Unanswered, RuntimeError):
    """The Service is not, or no longer, connected to the Manager.

    Attributes:
        service: Name of the Service.
        attribute: Requested attribute.
        may_have_run: False: the Manager refused the request. True: the Service may have started to execute
            it before the connection was lost.
    """

    def __init__(
        self, message: str, *, service: str = "", attribute: str = "", may_have_run: bool = True
    ) -> None:
        super().__init__(message, may_have_run=may_have_run)
        self.service = service
        self.attribute = attribute


class LockLost(NetworkError, RuntimeError):
    """A lock was lost together with the connection or the Service; other clients may use the Service.

    It is no `Unanswered`, so that a loop that catches those does not continue without the lock. Nothing was
    sent.

    Attributes:
        service: Name of the Service.
    """

    def __init__(self, message: str, *, service: str = "") -> None:
        super().__init__(message)
        self.service = service


class LinkBroken(NetworkError, AttributeError):
    """A Link was used after it had been unlinked."""


class PrivateAttribute(NetworkError, AttributeError, RuntimeError):
    """A private attribute of a Service was requested. Every Service refuses those, so nothing was sent."""


class ProtocolError(NetworkError):
    """The peer sent invalid data; the text quotes its beginning."""


class HandshakeError(ProtocolError, ConnectError):
    """A `ProtocolError` while connecting; the peer probably is not a Manager."""


class StreamCorrupted(ProtocolError, ConnectionLost):
    """A `ProtocolError` on an open connection, which is then closed."""
