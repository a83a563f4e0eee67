"""What is to be written to the peers of a Manager, and who is dropped since too much waits for it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

from msl_network_trio.protocol import codec
from msl_network_trio.protocol.manager import answers
from msl_network_trio.protocol.manager.event_log import EventLog
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.visible import visible

LARGE = 131_072
"""From how many bytes a line is written in pieces, since to put them together would take longer."""

BUSY = 1_048_576
"""How many bytes may wait to be written to a peer before those that send to it have to wait."""

_HEAVY = 65_536
"""From how many bytes on what waits for a peer counts among what waits for all of them together."""

_DROPPED_AGAIN = 1.0
"""Seconds after which a peer may connect again that was dropped because it did not read."""

_FOR_ALL = 4
"""How many times as much may wait for all peers together as for one."""


class Delivery:
    """Puts what is to be written into `Peer.outgoing`.

    Args:
        name: ``"Manager[HOST:port]"``.
        max_backlog: How many bytes may wait to be written to a peer before it is dropped. A single line may
            be larger.
        event_log: The log.
        hits: Counts who was dropped, as ``max_backlog``.

    Attributes:
        touched: Peers to which there is something to write since the list was last emptied.
    """

    def __init__(self, name: str, max_backlog: int, event_log: EventLog, hits: Counter[str]) -> None:
        self.touched: list[Peer] = []
        self._name = name
        self._max_backlog = max_backlog
        self._max_backlogs = _FOR_ALL * max_backlog
        self._heavy_from = min(_HEAVY, max_backlog)
        self._heavy: set[Peer] = set()
        self._unweighed = 0
        self._event_log = event_log
        self._hits = hits

    def forget(self, peer: Peer) -> None:
        """Note that a peer has gone."""
        self._heavy.discard(peer)

    def refuse(self, peer: Peer, uid: Any, message: str, again: float | None = None) -> None:
        """Answer a request with an error; see `answers.error`."""
        text = "refused a request of %s: %s"
        self._event_log.write(peer, logging.INFO, "refused", text, peer.name, message, error=message)
        self.put(peer, answers.error(message, uid, peer.name, again))

    def put_result(self, peer: Peer, uid: Any, result: bytes | memoryview) -> None:
        """Answer a request to the Manager with a value that is encoded."""
        start = b'{"error":false,"requester":%b,"result":' % codec.encode_value(peer.name)
        end = b',"uid":%b}\r\n' % codec.encode_value(uid)
        if len(result) < LARGE:
            self.put(peer, b"".join((start, result, end)))
        else:
            self.put(peer, start)
            self.put_large(peer, memoryview(result), end)

    def put_line(self, peer: Peer, line: bytes) -> None:
        """Pass a line on as it came."""
        if len(line) < LARGE:
            self.put(peer, line + b"\n")
        else:
            self.put_large(peer, memoryview(line), b"\n")

    def put_large(self, peer: Peer, start: memoryview, end: bytes) -> None:
        """`put` a line in two pieces, from `LARGE` on."""
        self.put(peer, start)
        if not peer.closing:
            peer.outgoing.append(end)
            peer.backlog += len(end)
            peer.large = True

    def put(self, peer: Peer, data: bytes | memoryview) -> None:
        """Have something written to a peer: a line, or a piece of one."""
        if peer.backlog > self._heavy_from:
            self._weigh(peer, len(data))
        if peer.closing:
            return
        if not peer.outgoing:
            self.touched.append(peer)
        peer.outgoing.append(data)
        peer.backlog += len(data)

    def _weigh(self, peer: Peer, size: int) -> None:
        """Look whether too much waits for a peer, or for all together.

        Args:
            peer: The peer.
            size: How many bytes are about to be added.
        """
        if peer.backlog > self._max_backlog:
            self._overflow(peer, f"more than the {self._max_backlog:,} that this Manager keeps for one peer")
            return
        self._heavy.add(peer)
        self._unweighed += size
        if self._unweighed * 16 > self._max_backlogs:  # not each time, since there may be many of them
            self._unweighed = 0
            self._heavy = {each for each in self._heavy if each.backlog > self._heavy_from}
            while self._heavy and _kept(self._heavy) > self._max_backlogs:
                largest = max(self._heavy, key=lambda each: each.backlog)
                self._heavy.discard(largest)
                text = (
                    f"and by all peers together more than the {self._max_backlogs:,} that this Manager keeps"
                )
                self._overflow(largest, text)

    def _overflow(self, peer: Peer, excess: str) -> None:
        """Drop a peer that does not read, with a word about it."""
        if peer.closing:
            return
        self.touched.append(peer)
        self._hits["max_backlog"] += 1
        reason = f"BufferError: {peer.backlog:,} bytes wait to be read by {visible(peer.name)}, {excess}"
        text = "%s does not read and is dropped: %s"
        self._event_log.write(peer, logging.WARNING, "dropped", text, peer.name, reason, reason=reason)
        peer.backlog -= sum(map(len, peer.outgoing))
        peer.outgoing = [answers.error(reason, "", self._name, _DROPPED_AGAIN)]
        peer.backlog += len(peer.outgoing[0])
        peer.large = False
        peer.closing = reason


def _kept(peers: Iterable[Peer]) -> int:
    """Return how many bytes are kept for peers: a large line that waits for several of them is kept once."""
    size = 0
    seen = set()
    for peer in peers:
        size += peer.backlog
        for piece in (*peer.writing, *peer.outgoing):
            if isinstance(piece, memoryview):
                if id(piece.obj) in seen:
                    size -= len(piece)
                seen.add(id(piece.obj))
    return size
