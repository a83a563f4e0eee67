"""Late replies: replies to requests whose callers wait no longer, after a timeout or a cancellation.

Such a request may have been executed, and its late reply is the only way to learn the outcome. Clients that
want late replies remember abandoned requests, and the arguments of all requests.

Used with the connection's lock held or, as long as threads do not use the connection, in the Trio thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from msl_network_trio.constants import MANAGER
from msl_network_trio.exceptions import NetworkError, RemoteError
from msl_network_trio.protocol.messages import UNSET, ReceivedLine
from msl_network_trio.protocol.request_errors import answered_error
from msl_network_trio.protocol.requests import Call, R, Request, RequestFactory

_MAX_REMEMBERED: Final = 1000
"""Maximum number of abandoned requests that are remembered; beyond it the oldest are forgotten."""


@attrs.frozen(eq=False)
class LateReply:
    """The reply to a call whose caller waits no longer; see ``on_late_reply`` of `connect`."""

    service: str
    """Name of the Service."""

    attribute: str
    """Name of the method that was called, or of the property that was read."""

    args: tuple[Any, ...]
    """Positional arguments of the call."""

    kwargs: dict[str, Any]
    """Keyword arguments of the call."""

    result: Any
    """The result; None if the Service raised an exception."""

    error: NetworkError | None
    """The error of the reply, such as a `RemoteError`; None: there is a result."""

    made: float
    """The time of the call, in seconds since the epoch, by the clock of this computer."""

    received: float
    """The time of the reception of the reply, in seconds since the epoch."""


class RecordingFactory(RequestFactory):
    """A factory of requests to Services that keep their arguments."""

    __slots__ = ()

    def make(
        self,
        kind: Callable[[str, str, str], R],
        service: str,
        attribute: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
    ) -> R:
        """Make a request; see `RequestFactory.make`."""
        request = super().make(kind, service, attribute, args, kwargs)
        if service != MANAGER:
            request.call = Call(tuple(args), dict(kwargs or {}), time.time())
        return request

    def renewed(self, kind: Callable[[str, str, str], R], request: Request, line: bytes) -> R:
        """Make a request for the line of another one; see `RequestFactory.renewed`."""
        renewed = super().renewed(kind, request, line)
        if hasattr(request, "call"):
            renewed.call = request.call
        return renewed


class LateReplies:
    """The abandoned requests of a connection whose replies may still arrive.

    Args:
        manager: The ``host:port`` of the Manager, for messages.
    """

    __slots__ = ("_abandoned", "_manager")

    def __init__(self, manager: str) -> None:
        self._manager = manager
        self._abandoned: dict[str, Request] = {}

    def remember(self, request: Request) -> None:
        """Remember a request to a Service that was written, and whose caller waits no longer."""
        if hasattr(request, "call"):
            self._abandoned[request.uid] = request
            if len(self._abandoned) > _MAX_REMEMBERED:
                del self._abandoned[next(iter(self._abandoned))]

    def clear(self) -> None:
        """Forget all requests, whose replies cannot arrive any more."""
        self._abandoned.clear()

    def take(self, message: ReceivedLine, manager_name: str) -> LateReply | None:
        """Return the late reply that a line is, and forget its request; None: it is none.

        Args:
            message: The line.
            manager_name: The Manager's name for itself.
        """
        request = self._abandoned.pop(message.uid or "", None)
        if request is None:
            return None
        if message.error:
            return late_reply(request, None, answered_error(request, message, self._manager, manager_name))
        return None if message.result is UNSET else late_reply(request, message.result, None)


def late_reply(request: Request, result: Any, error: NetworkError | None) -> LateReply | None:
    """Return the late reply to a request; None if the error is not the answer of the Service."""
    if error is not None and not isinstance(error, RemoteError):
        return None
    call = request.call
    return LateReply(
        request.service, request.attribute, call.args, call.kwargs, result, error, call.made, time.time()
    )


def undelivered_reply(request: Request) -> LateReply | None:
    """Return the reply that arrived at the moment in which its caller was cancelled; None: there is none."""
    if not request.settled or not hasattr(request, "call"):
        return None
    late = late_reply(request, request.result, request.error)
    del request.call  # so that it is returned once
    return late
