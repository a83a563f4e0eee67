"""Rate limit of notifications, of which a Service could emit more than its clients take. Pure state."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable

from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.responder import Responder

_REPORT_INTERVAL = 10.0
"""Minimum seconds between two errors that tell a Service that its notifications are dropped."""


class NotificationRate:
    """Rate limit of notifications. The routing counts `Peer.notifications_left` down, and calls `renew` at 0.

    Args:
        most: Maximum notifications per second; None: no limit.
        responder: Sends errors to Services.
        hits: Counts the notifications dropped, as ``notification_rate``.
        clock: Returns the time in seconds, of which only differences count.
    """

    def __init__(
        self, most: int | None, responder: Responder, hits: Counter[str], clock: Callable[[], float]
    ) -> None:
        self._most = sys.maxsize if most is None else most
        self._responder = responder
        self._hits = hits
        self._clock = clock

    def admit(self, peer: Peer) -> None:
        """Set the limit of a new peer."""
        peer.notifications_left = self._most
        peer.notifications_renewed_at = self._clock()

    def renew(self, peer: Peer) -> bool:
        """Allow more notifications if enough time has passed, and return whether it has."""
        now = self._clock()
        rate = self._most
        allowed = min(rate, int((now - peer.notifications_renewed_at) * rate))
        if allowed:
            peer.notifications_left = allowed
            peer.notifications_renewed_at = now
            return True
        self._hits["notification_rate"] += 1
        peer.notifications_dropped += 1
        if now - peer.notifications_reported_at >= _REPORT_INTERVAL:
            text = (
                f"RuntimeError: {peer.notifications_dropped:,} of your notifications have been dropped: "
                f"this Manager passes on {rate:,} per second (notification_rate)"
            )
            peer.notifications_reported_at = now
            peer.notifications_dropped = 0
            self._responder.refuse(peer, "", text)
        return False
