"""Limits of open requests: those that their Services have not answered. Pure state.

Each peer may have some open requests in any case, and more as long as all peers together do not exceed a
limit. Routing itself compares `Peer.open` with `Peer.request_credit`; the rest is here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from msl_network_trio.protocol.manager.peer import Peer

_FREE = 100
"""Open requests that each peer may have without using the shared credit."""

_GRANT = 1000
"""Credit that a peer gets per call of `OpenRequests.allow_more`."""

_SHARED = 1_000_000
"""Credit of all peers together, beyond `_FREE`."""

_RECLAIM_INTERVAL = 1.0
"""Minimum seconds between two searches for unused credit: there may be many peers."""


class OpenRequests:
    """The limits of open requests.

    Args:
        peers: The admitted peers.
        most: Maximum open requests of one peer; None: no limit.
        clock: Returns the time in seconds, of which only differences count.

    Attributes:
        most: Maximum open requests of one peer.
        is_stopped: Whether no more requests are allowed, since the Manager is about to end.
    """

    def __init__(self, peers: Mapping[str, Peer], most: int | None, clock: Callable[[], float]) -> None:
        self.most = sys.maxsize if most is None else most
        self._peers = peers
        self._clock = clock
        self._free = min(_FREE, self.most)
        self._credit = _SHARED
        self._reclaimed_at = -math.inf
        self.is_stopped = False

    def admit(self, peer: Peer) -> None:
        """Give a new peer its free credit."""
        peer.request_credit = min(self._free, self.most)

    def forget(self, peer: Peer) -> None:
        """Take back the credit of a peer that has disconnected."""
        self._credit += max(0, peer.request_credit - self._free)
        peer.request_credit = 0

    def stop(self) -> None:
        """Allow no more requests."""
        self.is_stopped = True
        self.most = 0
        for peer in self._peers.values():
            peer.request_credit = 0

    def allow_more(self, peer: Peer) -> bool:
        """Give a peer more credit; return False if its limit, or that of all peers, is met."""
        more = min(_GRANT, self.most - len(peer.open))
        if more > self._credit:
            self._reclaim()
        if not 0 < more <= self._credit:
            return False
        self._credit -= more
        peer.request_credit += more
        return True

    def _reclaim(self) -> None:
        """Take back the credit that peers do not use."""
        now = self._clock()
        if now - self._reclaimed_at < _RECLAIM_INTERVAL:
            return
        self._reclaimed_at = now
        for peer in self._peers.values():
            spare = peer.request_credit - max(len(peer.open), self._free)
            if spare > 0:
                peer.request_credit -= spare
                self._credit += spare

    def open_again(self, client: Peer, uid: Any, service: Peer) -> bool:
        """Add an open request with a uid that an open one has: typed requests have none.

        Returns:
            Whether the limit allows it.
        """
        owner = client.open[uid]
        if (1 if isinstance(owner, Peer) else sum(owner.values())) >= self.most:
            return False
        if isinstance(owner, Peer):
            owner = client.open[uid] = {owner: 1}
        owner[service] = owner.get(service, 0) + 1
        return True


def close_one(client: Peer, uid: Any, owner: Peer | dict[Peer, int] | None, service: Peer) -> bool:
    """Remove one of several open requests with a uid; return whether there was one of this Service.

    Args:
        client: The peer that has made the requests.
        uid: The uid.
        owner: The entry removed from ``client.open``, which is put back if requests are left.
        service: The Service that has answered.
    """
    if owner is None:
        return False
    if isinstance(owner, Peer) or service not in owner:
        client.open[uid] = owner
        return False
    owner[service] -= 1
    if not owner[service]:
        del owner[service]
    if owner:
        client.open[uid] = owner
    return True


def close_all(client: Peer, service: Peer) -> list[Any]:
    """Remove all open requests of a client to a Service.

    Returns:
        The uids; one of several requests as often as there are.
    """
    uids: list[Any] = []
    for uid, owner in [*client.open.items()]:
        if isinstance(owner, Peer):
            if owner is service:
                del client.open[uid]
                uids.append(uid)
        elif service in owner:
            uids += [uid] * owner.pop(service)
            if not owner:
                del client.open[uid]
    return uids
