"""Messages: the types of received lines, and the events that are made of them.

The types hold data only; they are shared by threads, and not changed after they were made.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Literal

import attrs
import msgspec

UNSET = msgspec.UNSET
"""The value of a field that is missing, as opposed to ``null``."""

_MAX_RETRY_AFTER = 86_400.0
"""Maximum seconds in the field ``again`` of an error."""


class ReceivedLine(msgspec.Struct, gc=False):
    """The fields of a line from the Manager that a client uses; other fields are skipped.

    `protocol.client` decides whether the line is a reply, a question or a notification.
    """

    uid: str | None = None
    """The uid; None: there is none, or it is no text, as the uids of this package are."""

    error: bool = False
    result: Any = UNSET
    requester: str | None = None
    message: str = ""
    traceback: Any = ()
    attribute: str | None = None
    args: Any = ()
    service: str | None = None
    again: Any = None
    """Of an error: seconds after which to connect again; see `retry_after`."""


def retry_after(again: Any) -> float | None:
    """Return the seconds in the field ``again`` of an error; None: it has no valid one."""
    is_number = isinstance(again, int | float) and not isinstance(again, bool)
    return float(again) if is_number and 0 <= again <= _MAX_RETRY_AFTER else None


class Emitted(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """The arguments of a notification: the positional and the keyword arguments."""

    args: list[Any]
    kwargs: dict[str, Any]


class EmittedLine(msgspec.Struct, gc=False):
    """A line that is a notification of a Service, or of the Manager itself."""

    uid: Literal["notification"]
    service: str
    result: Emitted


@attrs.frozen
class Question:
    """A question of the Manager about a login."""

    kind: str
    """``"username"`` or ``"password"``."""

    about: str
    """The name that is asked about: the Manager's own, or for a user's password that of the user."""

    wants_manager_password: bool = False
    """Whether it asks for the Manager's password, not for a user's."""


@attrs.frozen
class ManagerNotice:
    """A notice about Services that a Manager of this package sends to clients that follow them."""

    kind: Literal["tells", "gone", "came"]
    """Kind of the event.

    ``"tells"``: the Manager sends such notices. ``"gone"``: a Service disconnected. ``"came"``: it connected.
    """

    name: str
    """The name of the Service; for ``"tells"`` the subject, ``"services"``."""


@attrs.frozen
class Connected:
    """The handshake is over: the identity is queued, and requests may follow."""

    manager: str
    """The Manager's name for itself, ``"Manager[HOST:port]"``."""


class Gap(msgspec.Struct, frozen=True, gc=False):
    """A period in which notifications of a Service may have been lost.

    Its position among the notifications is exact. The times are times of reception by the clock of this
    computer; a notification emitted up to one latency before `since` may be missing, too.
    """

    since: float
    """Time of the last sign that nothing was missing, in seconds since the epoch."""

    until: float
    """Time at which the link was restored, in seconds since the epoch."""

    reason: str
    """The reason for the interruption."""

    service: str = ""
    """The name of the Service."""

    def merged(self, later: Gap) -> Gap:
        """Return the gap that spans this one and a later one."""
        reason = self.reason if later.reason in self.reason else f"{self.reason}; {later.reason}"
        if len(reason) > _LONGEST_REASON:
            reason = f"{self.reason[:_LONGEST_REASON]}; ..."
        return Gap(self.since, max(self.until, later.until), reason, self.service)


_LONGEST_REASON = 500
"""Maximum characters of the reason of gaps that are merged."""


class Notification(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A notification that a Service has emitted."""

    # gc=False: decoded JSON has no reference to its container, so there is no cycle to collect.

    service: str
    """The name of the Service."""

    args: list[Any]
    """The positional arguments."""

    kwargs: dict[str, Any]
    """The keyword arguments."""

    received: float = msgspec.field(default_factory=time.time)
    """The time of its reception, in seconds since the epoch, by the clock of this computer."""

    gap: Gap | None = None
    """The gap immediately before it; None: no notification is missing there, as far as known."""

    __hash__ = None  # type: ignore[assignment]  # its arguments are mutable

    # Notifications with the same contents are equal, whenever received and whatever was lost before.
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Notification):
            return NotImplemented
        return (self.service, self.args, self.kwargs) == (other.service, other.args, other.kwargs)

    def __ne__(self, other: object) -> bool:  # that of a Struct would compare all fields
        return not self == other


class NotificationBatch(list[Notification]):
    """Consecutive notifications of one Service.

    Attributes:
        size: Bytes of their lines.
        last: The number of the last one among all notifications received from the Service, from 1, which the
            I/O layer sets; 0: it does not number them.
    """

    __slots__ = ("last", "size")

    last: int
    size: int

    @classmethod
    def of(cls, notifications: Iterable[Notification] = (), size: int = 0) -> NotificationBatch:
        """Return a batch of notifications, and of `size` bytes."""
        batch = cls(notifications)  # an __init__ in Python would take longer
        batch.size = size
        batch.last = 0
        return batch


NO_RESULT = msgspec.Raw()
"""The result of a `RoutedLine` without one."""


class RoutedLine(msgspec.Struct, gc=False):
    """The fields of a line from a peer that a Manager uses; the others are forwarded undecoded."""

    uid: str = ""
    """The uid. Some peers send a number or null, which the answer repeats."""

    service: str = ""
    attribute: str = ""
    requester: str | msgspec.UnsetType | None = UNSET
    """The receiver of a reply; the Manager ignores it in a request."""

    error: bool = False
    result: msgspec.Raw = NO_RESULT
    """The encoded result. A line without one is a request, other lines are replies or notifications."""


def refusal(service: str, manager_name: str) -> str:
    """Return the answer to a request to a Service that is not connected, which was not executed."""
    return f"KeyError: {KeyError(f'the {service!r} Service is not connected to {manager_name}')}"


def departure(service: str, manager_name: str) -> str:
    """Return the answer to an open request whose Service disconnects; msl-network sends none."""
    return (
        f"ConnectionError: the {service!r} Service has gone from {manager_name}, "
        "the request may have been executed"
    )


def ending(manager_name: str) -> str:
    """Return the answer to an open request when the Manager stops; msl-network sends none."""
    return f"ConnectionAbortedError: {manager_name} is shutting down, the request may have been executed"
