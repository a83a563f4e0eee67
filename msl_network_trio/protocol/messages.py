"""What travels: the shape of a received line, and the events that lines turn into."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Literal

import attrs
import msgspec

UNSET = msgspec.UNSET
"""The value of a field that the line did not have, which differs from ``null``."""


class ReceivedLine(msgspec.Struct, gc=False):
    """The fields that a client looks at in a line from the Manager; other fields are skipped.

    Whether the line is a reply, a question or a notification is decided in `protocol.client`.
    """

    uid: str | None = None
    """None if the line has none, or one that no request of ours can have."""

    error: bool = False
    result: Any = UNSET
    requester: str | None = None
    message: str = ""
    traceback: Any = ()
    attribute: str | None = None
    args: Any = ()
    service: str | None = None


class Emitted(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """What was emitted: the positional and the keyword arguments."""

    args: list[Any]
    kwargs: dict[str, Any]


class EmittedLine(msgspec.Struct, gc=False):
    """A line from the Manager that is the notification of a Service, or one of the Manager's own."""

    uid: Literal["notification"]
    service: str
    result: Emitted


@attrs.frozen
class Question:
    """The Manager asks who is there."""

    kind: str
    """``"username"`` or ``"password"``."""

    about: str
    """For whom: the Manager's own name, or for a user's password the name of the user."""

    wants_manager_password: bool = False
    """Whether the password is the Manager's and not a user's."""


@attrs.frozen
class Connected:
    """The handshake is over: our identity is ready to be written, after which requests may follow."""

    manager: str
    """The name that the Manager gives itself, ``"Manager[HOST:port]"``."""


class Notification(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A Service emitted a notification."""

    # The garbage collector need not look at it: what JSON brings does not refer to what holds it.

    service: str
    """The name of the Service."""

    args: list[Any]
    """The positional arguments that it emitted."""

    kwargs: dict[str, Any]
    """The keyword arguments that it emitted."""

    received: float = msgspec.field(default_factory=time.time)
    """When it was received, in seconds since the epoch by the clock of this computer."""

    __hash__ = None  # type: ignore[assignment]  # what it holds can be changed

    # By what it says, whenever it came.
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Notification):
            return NotImplemented
        return (self.service, self.args, self.kwargs) == (other.service, other.args, other.kwargs)

    def __ne__(self, other: object) -> bool:  # which a Struct has of its own, and looks at all fields
        return not self == other


class NotificationBatch(list[Notification]):
    """Notifications of one Service that were received one behind the other.

    Attributes:
        size: Bytes of their lines.
        last: The number of the last notification among all that were received of the Service: the I/O layer
            numbers them from 1, or leaves it at 0.
    """

    __slots__ = ("last", "size")

    last: int
    size: int

    @classmethod
    def of(cls, notifications: Iterable[Notification] = (), size: int = 0) -> NotificationBatch:
        """Return a batch of notifications whose lines have so many bytes."""
        batch = cls(notifications)  # an __init__ in Python would take longer than this
        batch.size = size
        batch.last = 0
        return batch


NO_RESULT = msgspec.Raw()
"""The result of a line that has none."""


class RoutedLine(msgspec.Struct, gc=False):
    """The fields that a Manager looks at in a line of a peer; the rest passes through undecoded."""

    uid: str = ""
    """Text; some peers send a number or null, which goes back as it came."""

    service: str = ""
    attribute: str = ""
    requester: str | msgspec.UnsetType | None = UNSET
    """To whom a reply goes. In a request it does not belong to the peer to say."""

    error: bool = False
    result: msgspec.Raw = NO_RESULT
    """A line with a result is a reply or a notification, any other one is a request."""


def refusal(service: str, manager_name: str) -> str:
    """The answer to a request to a Service that is not there: it surely was not executed."""
    return f"KeyError: {KeyError(f'the {service!r} Service is not connected to {manager_name}')}"


def departure(service: str, manager_name: str) -> str:
    """The answer to an open request when its Service goes; msl-network's own Manager gives none."""
    return (
        f"ConnectionError: the {service!r} Service has gone from {manager_name}, "
        "the request may have been executed"
    )


def ending(manager_name: str) -> str:
    """The answer to an open request when the Manager ends; msl-network's own Manager gives none."""
    return f"ConnectionAbortedError: {manager_name} is shutting down, the request may have been executed"
