"""Requests of a client: how they are made, and their phases up to the outcome.

A request belongs to one connection. Any thread may make one. From then on it is changed with the connection's
lock held or, as long as threads do not use the connection, in the Trio thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

import orjson

from msl_network_trio.constants import DISCONNECT_REQUEST
from msl_network_trio.exceptions import NetworkError
from msl_network_trio.protocol.codec import OPTIONS, encode_arguments, encode_value, replace_fast
from msl_network_trio.protocol.messages import Question
from msl_network_trio.protocol.uids import Uids


class Phase(IntEnum):
    """The phase of a `Request`, or of another `Line`.

    ======================  =========================  ===========================================
    from                    to                         by
    ======================  =========================  ===========================================
    MADE                    QUEUED                     `Outbox.add`, `Outbox.add_first`
    QUEUED                  WRITTEN                    `Outbox.take`
    MADE                    WRITTEN                    `Outbox.mark_written`, after a thread has sent it
    WRITTEN                 SETTLED                    a reply, a refusal or the loss of the Service
    MADE, QUEUED, WRITTEN   SETTLED                    the loss of the connection
    MADE, QUEUED, WRITTEN   ABANDONED                  `ClientProtocol.abandon`, or its maker
    ABANDONED               SETTLED                    its timeout, the loss of the connection; an admin reply
    ======================  =========================  ===========================================

    A phase from `SETTLED` on is final for the caller. `Line.sequence` tells whether a request in such a phase
    was written before.
    """

    MADE = 0
    """It is in no queue."""

    QUEUED = 1
    """It is in an `Outbox`, and can be withdrawn."""

    WRITTEN = 2
    """It was handed to the transport, and may be executed."""

    SETTLED = 3
    """It has a result or an error."""

    ABANDONED = 4
    """Its caller does not wait for it any more."""


MADE: Final = Phase.MADE
QUEUED: Final = Phase.QUEUED
WRITTEN: Final = Phase.WRITTEN
SETTLED: Final = Phase.SETTLED
ABANDONED: Final = Phase.ABANDONED
# As globals, since every call reads some of them, and an attribute of an enum takes longer to look up.

NO_WAITER: Final = object()
"""The `Request.waiter` of a request whose result is kept without an event."""


class Call(NamedTuple):
    """The arguments of a request, and the time at which it was made, in seconds since the epoch."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: float


class Line:
    """An outgoing line.

    Attributes:
        data: The bytes; empty once they were written or withdrawn.
        phase: Its phase.
        sequence: Its position among all lines written to the connection, from 1; 0 before it is written.
        admin: Whether it is a request that only an administrator may make.
    """

    __slots__ = ("admin", "data", "phase", "sequence")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.phase: Phase = MADE
        self.sequence = 0
        self.admin = False


class Request(Line):
    """A request of a client and, once it is settled, its outcome.

    Args:
        service: The name of the Service, or ``"Manager"``.
        attribute: The name of the requested attribute.
        uid: The identifier that its reply carries, unique on the connection.
        data: The line; `RequestFactory` sets it later.

    Attributes:
        result: The result, if it is settled without an error.
        error: The error, if it is settled with one.
        question: The Manager's unanswered login question about this admin request; None: there is none.
        waiter: The state that `wake` needs, such as a task; or `NO_WAITER`.
        call: The arguments; set only if late replies are wanted, see `RecordingFactory`.
    """

    __slots__ = ("attribute", "call", "error", "question", "result", "service", "uid", "waiter")

    call: Call

    def __init__(self, service: str, attribute: str, uid: str, data: bytes = b"") -> None:
        self.data = data
        self.phase = MADE
        self.sequence = 0
        self.admin = False
        self.uid = uid
        self.service = service
        self.attribute = attribute
        self.result: Any = None
        self.error: NetworkError | None = None
        self.question: Question | None = None
        self.waiter: Any = None

    @property
    def settled(self) -> bool:
        """Whether it has a result or an error."""
        return self.phase is SETTLED

    @property
    def abandoned(self) -> bool:
        """Whether its caller has given up on it."""
        return self.phase is ABANDONED

    @property
    def may_have_run(self) -> bool:
        """Whether it was written, so that it may have been executed."""
        return self.sequence > 0

    def fail(self, error: NetworkError) -> None:
        """Settle it with an error."""
        self.error = error
        self.phase = SETTLED

    def outcome(self) -> Any:
        """Return the result of a settled request, or raise its error; once."""
        error = self.error
        if error is None:
            return self.result
        # Otherwise the error, through its traceback, and the request would form a reference cycle.
        self.error = None
        try:
            raise error
        finally:
            del error

    def wake(self) -> None:
        """Resume the caller, since the request is settled or has a question.

        The I/O layer calls it for every event; subclasses override it.
        """

    def __repr__(self) -> str:
        state = "settled" if self.settled else "written" if self.may_have_run else "not written"
        return f"<{type(self).__name__} {self.service}.{self.attribute} {state}>"


def encode_request(service: str, attribute: str, args: Any, kwargs: Any, uid: str) -> bytes:
    """Encode a request as a line.

    Args:
        service: The name of the Service.
        attribute: The name of the attribute.
        args: The positional arguments.
        kwargs: The keyword arguments; None: there are none.
        uid: The uid, of letters and digits only, which need no escapes.

    Raises:
        TypeError: As in `codec.encode`; or a name is not text.
        ValueError: As in `codec.encode`.
    """
    try:
        before, after, before_none = _around_kwargs(service, attribute)
    except TypeError:  # also raised by the cache, for a name that is not hashable
        raise TypeError(f"Names must be text: {service!r}, {attribute!r}") from None
    try:  # what codec.encode_value() does, without the call
        encoded = orjson.dumps(args, replace_fast, OPTIONS)
    except TypeError:
        encoded = b"null"
    if encoded.find(b"null") >= 0:
        encoded = encode_arguments(args, attribute)
    if kwargs:
        named = encode_arguments(kwargs, attribute)
        return b"".join((b'{"args":', encoded, before, named, after, uid.encode(), b'"}\n'))
    return b"".join((b'{"args":', encoded, before_none, uid.encode(), b'"}\n'))


@lru_cache(maxsize=1024)
def _around_kwargs(service: Any, attribute: Any) -> tuple[bytes, bytes, bytes]:
    """Return the parts of a line around the keyword arguments, which depend on the names only.

    Returns:
        The part before, the part behind up to the uid, and both with empty keyword arguments between them.
    """
    if not isinstance(service, str) or not isinstance(attribute, str):
        raise TypeError
    before = b',"attribute":%b,"error":false,"kwargs":' % encode_value(attribute)
    after = b',"service":%b,"uid":"' % encode_value(service)
    return before, after, before + b"{}" + after


R = TypeVar("R", bound=Request)


class RequestFactory:
    """A factory of the requests of one connection; thread-safe, and without a lock."""

    __slots__ = ("_uids",)

    def __init__(self) -> None:
        self._uids = Uids()

    def make(
        self,
        kind: Callable[[str, str, str], R],
        service: str,
        attribute: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
    ) -> R:
        """Make a request with a uid of its own, which is not queued yet.

        Args:
            kind: The subclass of `Request`.
            service: The name of the Service, or ``"Manager"``.
            attribute: The name of the requested attribute.
            args: The positional arguments.
            kwargs: The keyword arguments; None: there are none.

        Raises:
            TypeError: An argument has no JSON form, or a name is not text.
            ValueError: An argument cannot be sent, or the attribute is the one that ends a connection.
        """
        if attribute == DISCONNECT_REQUEST:
            raise ValueError("Use disconnect() to end the connection")
        try:
            uid = self._uids.take()
        except IndexError:
            uid = self._uids.more()
        request = kind(service, attribute, uid)
        request.data = encode_request(service, attribute, args, kwargs, uid)
        return request

    def renewed(self, kind: Callable[[str, str, str], R], request: Request, line: bytes) -> R:
        """Make a request with a uid of its own for the line of another one.

        Args:
            kind: See `make`.
            request: The request.
            line: The `Line.data` that it was made with.
        """
        try:
            uid = self._uids.take()
        except IndexError:
            uid = self._uids.more()
        renewed = kind(request.service, request.attribute, uid)
        end = len(request.uid) + len(b'"}\n')
        renewed.data = line[:-end] + uid.encode() + b'"}\n'
        return renewed
