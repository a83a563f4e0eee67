"""What travels: the shape of a received line, and the events that lines turn into."""

from __future__ import annotations

import time
from typing import Any

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


@attrs.frozen
class Notification:
    """A Service emitted a notification."""

    service: str
    """The name of the Service."""

    args: list[Any]
    """The positional arguments that it emitted."""

    kwargs: dict[str, Any]
    """The keyword arguments that it emitted."""

    received: float = attrs.field(factory=time.time, eq=False)
    """When it was received, in seconds since the epoch by the clock of this computer."""
