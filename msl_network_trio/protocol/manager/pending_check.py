"""What a Manager cannot decide by what it knows: somebody has to look it up, in a database for example.

A peer for which something is `PendingCheck` waits, and so do the lines that it has sent since.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from msl_network_trio.protocol.manager.peer import Peer


@attrs.frozen
class HostCheck:
    """Whether a host is trusted. The verdict is a bool."""

    hostname: str


@attrs.frozen
class UserCheck:
    """Whether there is such a user. The verdict is a bool."""

    username: str


@attrs.frozen
class LoginCheck:
    """Whether that is the user's password.

    The verdict is None: it is not; True: it is, and the user is an administrator; False: the user is none.
    """

    username: str
    password: str = attrs.field(repr=False)


@attrs.frozen
class AdminRequest:
    """What to answer to a request that an administrator has made. The verdict is the result."""

    attribute: str
    args: list[Any] = attrs.field(repr=False)
    kwargs: dict[str, Any] = attrs.field(repr=False)
    uid: Any = ""


@attrs.frozen
class ReplaceCheck:
    """Whether the peer that has the wanted name was gone, and is now forgotten. The verdict is a bool."""

    holder: Peer
    identity: Any = attrs.field(repr=False)


class TryAgain(Exception):
    """There is no verdict now, and none on the peer: it may try again.

    Args:
        text: Why.
        again: Seconds after which to try again.
    """

    def __init__(self, text: str, again: int) -> None:
        super().__init__(text)
        self.again = again


class Throttled(TryAgain):
    """Too many logins have failed.

    Args:
        host: The host that they came from.
        again: Seconds after which to try again.
    """

    def __init__(self, host: str, again: int) -> None:
        super().__init__(
            f"Too many logins from {host} have failed, the next one may begin in {again} s", again
        )


class Revoked(Exception):
    """The peer has logged in as an administrator, and is none any more."""


PendingCheck = HostCheck | UserCheck | LoginCheck | AdminRequest | ReplaceCheck


@attrs.define
class AdmissionState:
    """What has to do with a peer that is yet to be let in, or to be let do something."""

    check: PendingCheck | None = None
    """What the verdict is about that the peer waits for."""

    held: bytes = attrs.field(default=b"", repr=False)
    """What it has sent since, before it was let in; later that is in `Peer.pending_lines`."""

    username: str = ""
    """Who it says it is."""

    size: int = 0
    """How many bytes it has sent of such requests."""

    requests: deque[AdminRequest] = attrs.field(factory=deque)
    """The requests for which it has to be an administrator, the first of which is the reason why it waits."""
