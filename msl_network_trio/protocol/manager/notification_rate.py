"""How many notifications a Service may emit: what it does not wait for must not drown those that get them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable

from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.responder import Responder

_TELL_EVERY = 10.0
"""How many seconds there are at least between two words to a Service that its notifications are dropped."""


class NotificationRate:
    """Allows a Service so many notifications at a time. `Peer.notifications_left` is counted down elsewhere.

    Args:
        most: How many per second; None: any number.
        responder: Tells a Service that there were too many.
        hits: Counts those that were too many, as ``notification_rate``.
        clock: Gives the time in seconds, of which only differences count.
    """

    def __init__(
        self, most: int | None, responder: Responder, hits: Counter[str], clock: Callable[[], float]
    ) -> None:
        self._most = sys.maxsize if most is None else most
        self._responder = responder
        self._hits = hits
        self._clock = clock

    def admit(self, peer: Peer) -> None:
        """Allow a new peer its first notifications."""
        peer.notifications_left = self._most
        peer.notifications_renewed_at = self._clock()

    def renew(self, peer: Peer) -> bool:
        """Allow more notifications of a Service if there is time for more; False if not."""
        now = self._clock()
        rate = self._most
        allowed = min(rate, int((now - peer.notifications_renewed_at) * rate))
        if allowed:
            peer.notifications_left = allowed
            peer.notifications_renewed_at = now
            return True
        self._hits["notification_rate"] += 1
        peer.notifications_dropped += 1
        if now - peer.notifications_reported_at >= _TELL_EVERY:
            text = (
                f"RuntimeError: {peer.notifications_dropped:,} of your notifications have been dropped: "
                f"this Manager passes on {rate:,} per second (notification_rate)"
            )
            peer.notifications_reported_at = now
            peer.notifications_dropped = 0
            self._responder.refuse(peer, "", text)
        return False
