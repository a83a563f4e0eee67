"""The outbox: lines of a client that wait to be written.

It belongs to one connection, and is used with the connection's lock held, or, as long as threads do not use
the connection, in the Trio thread.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from random import randrange

from msl_network_trio.protocol.requests import ABANDONED, MADE, QUEUED, SETTLED, WRITTEN, Line, Request
from msl_network_trio.protocol.traffic import Traffic

_CHUNK = 262_144
"""Maximum bytes that `Outbox.take` joins. A longer line is returned alone, so that it is not copied."""


class Outbox:
    """A queue of lines, from which each line can be withdrawn until it is written.

    An admin request shuts the gate: lines behind it are held back until `open_gate`.

    Args:
        traffic: Counts the bytes and measures latencies.

    Attributes:
        open: The written requests without a reply, by uid; their replies remove them.
        unsent: Bytes in the queue, including lines that are held back.
        last_sequence: The `Line.sequence` of the last line that was written.
        next_measured: The `Line.sequence` from which the latency of another line is measured.
        gate: The admin request behind which lines are held back; None: the gate is open.
    """

    __slots__ = (
        "_batch",
        "_held",
        "_traffic",
        "_waiting",
        "gate",
        "last_sequence",
        "next_measured",
        "open",
        "unsent",
    )

    def __init__(self, traffic: Traffic | None = None) -> None:
        self._traffic = Traffic() if traffic is None else traffic
        self.open: dict[str | None, Request] = {}
        self.unsent = 0
        self.last_sequence = 0
        self.next_measured = 1
        self.gate: Line | None = None
        # A dictionary without values is an ordered set. Its lines move to a deque before they are taken in
        # part, since removing many items from the front of a dictionary is slow. The other containers are
        # created on demand: empty ones would be most of the memory of an idle connection's outbox.
        self._waiting: dict[Line, None] = {}
        self._batch: deque[Line] | None = None
        self._held: OrderedDict[Line, None] | None = None

    def __bool__(self) -> bool:
        """Whether `take` returns a line."""
        return bool(self._waiting or self._batch)

    def __iter__(self) -> Iterator[Line]:
        """Iterate over the queued lines in order."""
        return (line for line in (*(self._batch or ()), *self._waiting, *(self._held or ())) if line.data)

    @property
    def is_clear(self) -> bool:
        """Whether a request could be written at once: no line is queued and the gate is open."""
        return not self.unsent and self.gate is None

    def add(self, line: Line) -> None:
        """Append a line."""
        line.phase = QUEUED
        self.unsent += len(line.data)
        if self.gate is None:
            self._waiting[line] = None
            if line.admin:
                self.gate = line
        else:
            if self._held is None:
                self._held = OrderedDict()
            self._held[line] = None

    def add_first(self, line: Line) -> None:
        """Insert a line before all others; the gate does not hold it back."""
        line.phase = QUEUED
        self.unsent += len(line.data)
        if self._batch is None:
            self._batch = deque()
        self._batch.appendleft(line)

    def open_gate(self) -> None:
        """Release the lines that are held back, up to and including the next admin request."""
        self.gate = None
        while self._held and self.gate is None:
            line, _ = self._held.popitem(last=False)
            self._waiting[line] = None
            if line.admin:
                self.gate = line

    def withdraw(self, line: Line) -> None:
        """Remove a queued line, which is abandoned then."""
        assert line.phase is QUEUED
        self.unsent -= len(line.data)
        line.data = b""
        line.phase = ABANDONED
        self._waiting.pop(line, None)
        if self._held:
            self._held.pop(line, None)

    def mark_written(self, requests: Sequence[Request], after: int) -> None:
        """Mark requests as written that a thread sends without queuing them.

        An exception may interrupt the thread at any point, so a second call with the same arguments changes
        nothing.

        Args:
            requests: The requests, in order.
            after: The `last_sequence` before them.
        """
        sequence = after
        for request in requests:
            sequence += 1
            request.sequence = sequence
            if request.phase is not SETTLED:  # by its reply, before a second call
                if request.phase is MADE:
                    request.phase = WRITTEN
                self.open[request.uid] = request
        if sequence >= self.next_measured:
            self._measure(requests, sequence)
        self.last_sequence = sequence

    def take(self) -> bytes:
        """Remove and return the next lines, joined; empty if there are none. They count as written."""
        parts: list[bytes] = []
        open_requests, sequence = self.open, self.last_sequence
        if not self._batch and self.unsent <= _CHUNK:
            lines = [*self._waiting]
            self._waiting.clear()
        else:
            lines = self._next_chunk()
        for line in lines:
            parts.append(line.data)
            line.data = b""
            line.phase = WRITTEN
            sequence += 1
            line.sequence = sequence
            if isinstance(line, Request):
                open_requests[line.uid] = line
        if sequence >= self.next_measured:
            self._measure(lines, sequence)
        self.last_sequence = sequence
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.unsent -= len(data)
        self._traffic.bytes_sent += len(data)
        return data

    def _measure(self, lines: Sequence[Line], last: int) -> None:
        """Begin to measure the latency of one of the lines that are being written.

        Args:
            lines: The lines.
            last: The `Line.sequence` of the last one.
        """
        self.next_measured = last + self._traffic.latencies.begin(lines[randrange(len(lines))])

    def _next_chunk(self) -> list[Line]:
        """Remove the next lines: up to `_CHUNK` bytes, or a single longer line."""
        if self._batch is None:
            self._batch = deque()
        batch = self._batch
        lines: list[Line] = []
        size = 0
        while not lines and (batch or self._waiting):
            if not batch:
                batch.extend(self._waiting)
                self._waiting.clear()
            while batch:
                line = batch[0]
                if line.data:  # else it was withdrawn
                    size += len(line.data)
                    if lines and size > _CHUNK:
                        break
                    lines.append(line)
                batch.popleft()
        return lines

    def clear(self) -> None:
        """Remove all lines."""
        self._waiting.clear()
        self._batch = None
        self._held = None
        self.gate = None
        self.unsent = 0
