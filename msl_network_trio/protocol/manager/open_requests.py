"""The requests that wait for their answers: who owes them, and how many there may be.

A client may have some of them in any case, and more as long as all clients together do not have too many.
What is looked at for every request is `Peer.open` and `Peer.request_credit`; the rest is here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from msl_network_trio.protocol.manager.peer import Peer

_FREE = 100
"""How many requests of a peer may be open without those of all others counting."""

_MORE = 1000
"""How many more it may make at a time, as long as there are enough for all."""

_MOST = 1_000_000
"""How many requests beyond those may be open, of all peers together."""

_LOOK_EVERY = 1.0
"""How many seconds there are at least between two looks at what all peers do not need: there may be many."""


class OpenRequests:
    """How many requests may be open.

    Args:
        peers: All that have said who they are.
        most: How many of one peer may be open; None: any number.
        clock: Gives the time in seconds, of which only differences count.

    Attributes:
        most: How many of one peer may be open.
        is_stopped: Whether no more are allowed, since the Manager is about to end.
    """

    def __init__(self, peers: Mapping[str, Peer], most: int | None, clock: Callable[[], float]) -> None:
        self.most = sys.maxsize if most is None else most
        self._peers = peers
        self._clock = clock
        self._free = min(_FREE, self.most)
        self._spare = _MOST
        self._looked = -math.inf
        self.is_stopped = False

    def admit(self, peer: Peer) -> None:
        """Allow a new peer some requests."""
        peer.request_credit = min(self._free, self.most)

    def forget(self, peer: Peer) -> None:
        """Let others have what a peer might have had that has gone."""
        self._spare += max(0, peer.request_credit - self._free)
        peer.request_credit = 0

    def stop(self) -> None:
        """Allow no more requests."""
        self.is_stopped = True
        self.most = 0
        for peer in self._peers.values():
            peer.request_credit = 0

    def allow_more(self, peer: Peer) -> bool:
        """Allow a peer more open requests; False: it has as many as it may have, or all together have."""
        more = min(_MORE, self.most - len(peer.open))
        if more > self._spare:
            self._look_for_spare()
        if not 0 < more <= self._spare:
            return False
        self._spare -= more
        peer.request_credit += more
        return True

    def _look_for_spare(self) -> None:
        """Take from peers what they do not need any more of the number of requests that may be open."""
        now = self._clock()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        for peer in self._peers.values():
            spare = peer.request_credit - max(len(peer.open), self._free)
            if spare > 0:
                peer.request_credit -= spare
                self._spare += spare

    def open_again(self, client: Peer, uid: Any, service: Peer) -> bool:
        """Note one more open request with the same uid: people who type requests give none.

        Returns:
            False if it is one too many.
        """
        owner = client.open[uid]
        if (1 if isinstance(owner, Peer) else sum(owner.values())) >= self.most:
            return False
        if isinstance(owner, Peer):
            owner = client.open[uid] = {owner: 1}
        owner[service] = owner.get(service, 0) + 1
        return True


def close_one(client: Peer, uid: Any, owner: Peer | dict[Peer, int] | None, service: Peer) -> bool:
    """Note that a Service has answered one of several requests with a uid; False if it was not asked.

    Args:
        client: Who has asked.
        uid: The uid.
        owner: What ``client.open`` has had for it, which goes back there if others have yet to answer.
        service: Who has answered.
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
    """Note that a Service will answer no request of a client any more.

    Returns:
        The uids of those that it had yet to answer; one of several requests as often as there are.
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
