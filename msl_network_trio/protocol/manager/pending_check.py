"""Checks that the Manager's protocol cannot make itself, since they need a database or another connection.

Pure state, used in the Trio thread. While a check of a peer is pending, its lines are kept, not handled. The
I/O layer makes the check and passes its result, or the exception because of which there is none, to
`ManagerProtocol.resolve`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs

from msl_network_trio.protocol.manager.peer import Peer


@attrs.frozen
class HostCheck:
    """The check of whether a host is trusted. The result is a bool."""

    hostname: str


@attrs.frozen
class UserCheck:
    """The check of whether a user exists. The result is a bool."""

    username: str


@attrs.frozen
class LoginCheck:
    """The check of a user's password.

    The result is None for a wrong password, True for an administrator, and False for another user.
    """

    username: str
    password: str = attrs.field(repr=False)


@attrs.frozen
class AdminRequest:
    """A request of an administrator. The result is the one to answer with."""

    attribute: str
    args: list[Any] = attrs.field(repr=False)
    kwargs: dict[str, Any] = attrs.field(repr=False)
    uid: Any = ""


@attrs.frozen
class ReplaceCheck:
    """The check of whether the peer that has the wanted name is dead.

    The result is True if it was and is disconnected now.
    """

    holder: Peer
    identity: Any = attrs.field(repr=False)


PendingCheck = HostCheck | UserCheck | LoginCheck | AdminRequest | ReplaceCheck


class TryAgain(Exception):
    """The check could not be made now, for a reason that lies not with the peer.

    Args:
        text: The reason.
        again: Seconds after which to try again.
    """

    def __init__(self, text: str, again: int) -> None:
        super().__init__(text)
        self.again = again


class Throttled(TryAgain):
    """Too many logins have failed.

    Args:
        host: The host of the logins.
        again: Seconds after which to try again.
    """

    def __init__(self, host: str, again: int) -> None:
        super().__init__(
            f"Too many logins from {host} have failed, the next one may begin in {again} s", again
        )


class Revoked(Exception):
    """The peer has logged in as an administrator, and is none any more."""


@attrs.define
class AdmissionState:
    """The state of a peer that is yet to be admitted, or to log in as an administrator."""

    check: PendingCheck | None = None
    """The check whose result the peer waits for."""

    held: bytes = attrs.field(default=b"", repr=False)
    """Bytes received during a check before the peer was admitted; later they are in `Peer.pending_lines`."""

    username: str = ""
    """The name of the user that logs in."""

    size: int = 0
    """Bytes of all `requests` so far."""

    requests: deque[AdminRequest] = attrs.field(factory=deque)
    """The requests that need an administrator; the first one is the reason for the login."""
