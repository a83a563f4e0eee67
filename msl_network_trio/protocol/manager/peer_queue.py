"""The lines queued for the peers of one Manager, and the limits of their size.

Pure state, used in the Trio thread. The I/O layer takes the pieces out of a queue and sends them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Final

from msl_network_trio.protocol.manager import answers
from msl_network_trio.protocol.manager.event_log import EventLog
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.route import Route
from msl_network_trio.visible import visible

_HEAVY: Final = 65_536
"""Bytes queued for a peer above which they count towards the limit for all peers together."""

_SHARES: Final = 4
"""Limit for all peers together, as a multiple of the limit for one."""

_CHECKS_PER_LIMIT: Final = 16
"""Maximum number of checks of the sum while as many bytes as its limit are queued."""

_RECONNECT_AFTER: Final = 1.0
"""Seconds after which a peer may connect again that was dropped because it did not read."""

_CLOSING = Phase.CLOSING


class PeerQueue:
    """A `Route` that queues lines for the I/O layer, whose class derives from it.

    Args:
        peer: The peer, whose route this becomes.
        limit: The limit that all queues of the Manager share.

    Attributes:
        peer: The peer.
        pieces: Whole lines, or the pieces of large ones, to be sent in this order.
        writing: Data that the I/O layer has taken out of `pieces` and not sent yet, in any order; None: none.
        has_large: Whether `pieces` has pieces of large lines.
        backlog: Bytes in `pieces` and `writing` that are not sent yet.
        sent: Bytes sent so far.
    """

    __slots__ = ("_limit", "backlog", "has_large", "peer", "pieces", "sent", "writing")

    def __init__(self, peer: Peer, limit: BacklogLimit) -> None:
        self.peer = peer
        self.pieces: list[bytes | memoryview] = []
        self.writing: list[bytes | memoryview] | None = None
        self.has_large = False
        self.backlog = 0
        self.sent = 0
        self._limit = limit
        peer.route = self

    def put(self, data: bytes | memoryview) -> None:
        """See `Route.put`."""
        if self.backlog > self._limit.heavy_from:
            self._limit.check(self, len(data))
        if self.peer.phase is _CLOSING:
            return
        if not self.pieces:
            self._limit.touched.append(self)
        self.pieces.append(data)
        self.backlog += len(data)

    def put_large(self, start: memoryview, end: bytes) -> None:
        """See `Route.put_large`."""
        self.put(start)
        if self.peer.phase is not _CLOSING:
            self.pieces.append(end)
            self.backlog += len(end)
            self.has_large = True

    def on_close(self) -> None:
        """See `Route.on_close`."""
        # `put` does not touch a queue in which pieces wait already.
        self._limit.touched.append(self)

    def flush(self) -> None:
        """Send what is queued, as far as that needs no waiting, and stop receiving from a closing peer."""


class BacklogLimit:
    """Limit of the bytes queued for one peer, and for all peers of a Manager together.

    A peer that exceeds the first one is dropped. If the second one is exceeded, the peer is with the largest
    backlog.

    Args:
        name: ``"Manager[HOST:port]"``.
        max_backlog: Maximum bytes queued for one peer. A single line may be larger.
        event_log: The log.
        hits: Counts the peers dropped, as ``max_backlog``.

    Attributes:
        touched: Queues to flush, with new pieces or of peers that are closing, since the list was last
            emptied; always the same list.
        heavy_from: Bytes queued for a peer above which `check` has to be called.
    """

    def __init__(self, name: str, max_backlog: int, event_log: EventLog, hits: Counter[str]) -> None:
        self.touched: list[PeerQueue] = []
        self.heavy_from = min(_HEAVY, max_backlog)
        self._name = name
        self._max_backlog = max_backlog
        self._max_sum = _SHARES * max_backlog
        self._heavy: set[PeerQueue] = set()
        self._unchecked = 0
        self._event_log = event_log
        self._hits = hits

    def forget(self, route: Route) -> None:
        """Remove the route of a peer that has disconnected; further calls have no effect."""
        self._heavy -= {route}

    def check(self, queue: PeerQueue, size: int) -> None:
        """Drop the peer of a queue, or other peers, if too many bytes are queued.

        Args:
            queue: The queue.
            size: Bytes about to be added to it.
        """
        if queue.backlog > self._max_backlog:
            self._drop(queue, f"more than the {self._max_backlog:,} that this Manager keeps for one peer")
            return
        self._heavy.add(queue)
        self._unchecked += size
        if self._unchecked * _CHECKS_PER_LIMIT > self._max_sum:  # not each time: there may be many queues
            self._unchecked = 0
            self._heavy = {each for each in self._heavy if each.backlog > self.heavy_from}
            while self._heavy and _kept(self._heavy) > self._max_sum:
                largest = max(self._heavy, key=lambda each: each.backlog)
                self._heavy.discard(largest)
                text = f"and by all peers together more than the {self._max_sum:,} that this Manager keeps"
                self._drop(largest, text)

    def _drop(self, queue: PeerQueue, excess: str) -> None:
        """Close the connection of a peer that does not read, with an error as its last line."""
        peer = queue.peer
        if peer.phase is _CLOSING:
            return
        self._hits["max_backlog"] += 1
        reason = f"BufferError: {queue.backlog:,} bytes wait to be read by {visible(peer.name)}, {excess}"
        text = "%s does not read and is dropped: %s"
        self._event_log.write(peer, logging.WARNING, "dropped", text, peer.name, reason, reason=reason)
        queue.backlog -= sum(map(len, queue.pieces))
        queue.pieces = [answers.error(reason, "", self._name, _RECONNECT_AFTER)]
        queue.backlog += len(queue.pieces[0])
        queue.has_large = False
        peer.close(reason)


def _kept(queues: Iterable[PeerQueue]) -> int:
    """Return the bytes kept in queues; a large line that is in several of them counts once."""
    size = 0
    seen = set()
    for queue in queues:
        size += queue.backlog
        for piece in (*(queue.writing or ()), *queue.pieces):
            if isinstance(piece, memoryview):
                if id(piece.obj) in seen:
                    size -= len(piece)
                seen.add(id(piece.obj))
    return size
