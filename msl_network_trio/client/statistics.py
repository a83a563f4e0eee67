"""Statistics of a client, and the counter of its errors.

The counters are kept where the events happen; here they are collected. Any thread may use all of it.
"""

from __future__ import annotations

import threading
from typing import Any, Final, TypeVar
from weakref import WeakSet

import attrs

from msl_network_trio.exceptions import NetworkError
from msl_network_trio.portal.waiting import release_if_held
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.latencies import quantiles

E = TypeVar("E", bound=NetworkError)

_SHARES: Final = (0.5, 0.9, 0.99, 1.0)
"""Shares of the requests whose latencies are reported."""


@attrs.frozen
class Statistics:
    """Counters and latencies of a client, over all its connections; `Client.statistics` returns them.

    ``attrs.asdict`` makes a dictionary of it, which can be logged as JSON.
    """

    requests: int
    """Number of requests that were written, including those of the client itself, such as probes."""

    open_requests: int
    """Number of requests that were written, and wait for their replies."""

    unsent_bytes: int
    """Bytes of requests that wait to be written."""

    errors: dict[str, int]
    """Number of errors of requests, by the name of their class."""

    late_replies: int
    """Number of replies that arrived after their callers had stopped waiting."""

    bytes_sent: int
    """Bytes of the lines that were written, without those of TLS and WebSocket."""

    bytes_received: int
    """Bytes of the lines that were received, without those of TLS and WebSocket."""

    latencies: dict[float, float]
    """Seconds from writing a request to its reply that 50, 90, 99 and 100 % of the requests to Services do
    not exceed, by share (0.5 to 1.0), within 7 %; 60 means 60 or more. Empty without replies."""

    latency_samples: int
    """Number of requests in `latencies`: a random sample of one in 16."""

    notifications: dict[str, int]
    """Number of notifications received from linked Services, by the name of the Service."""

    dropped: dict[str, int]
    """Number of notifications dropped because a handler or stream fell behind, by the name of the Service."""

    gaps: dict[str, int]
    """Number of gaps in the notifications, by the name of the Service; see `Gap`."""

    reconnections: int
    """Number of times that the connection was made again."""


class ErrorCounts:
    """Counts the errors of requests by the name of their class; thread-safe.

    Attributes:
        counts: The numbers, by name.
    """

    __slots__ = ("_counted", "_lock", "counts")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._counted: WeakSet[NetworkError] | None = None
        """The errors that were counted, since one may be raised several times."""
        self._lock = threading.RLock()

    def count(self, error: E) -> E:
        """Count an error that a caller gets, unless it was counted before, and return it."""
        name = type(error).__name__
        try:
            with self._lock:
                if self._counted is None:
                    self._counted = WeakSet()
                if error not in self._counted:
                    self._counted.add(error)
                    self.counts[name] = self.counts.get(name, 0) + 1
        except BaseException:  # a signal handler may have raised it
            release_if_held(self._lock)
            raise
        return error


def collect(protocol: ClientProtocol, errors: ErrorCounts, mailboxes: Any, reconnections: int) -> Statistics:
    """Return the statistics of a client.

    Args:
        protocol: The protocol of the current or the last connection.
        errors: The errors of the client.
        mailboxes: The `Mailboxes` of the client.
        reconnections: Number of times that the connection was made again.
    """
    traffic = protocol.traffic
    buckets = dict(traffic.latencies.buckets)
    return Statistics(
        requests=traffic.requests + protocol.requests_written,
        open_requests=protocol.in_flight,
        unsent_bytes=protocol.outbox.unsent,
        errors=dict(errors.counts),
        late_replies=traffic.late_replies,
        bytes_sent=traffic.bytes_sent,
        bytes_received=traffic.bytes_received,
        latencies=quantiles(buckets, _SHARES),
        latency_samples=sum(buckets.values()),
        notifications=dict(mailboxes.numbers),
        dropped=dict(mailboxes.dropped),
        gaps=dict(mailboxes.gaps),
        reconnections=reconnections,
    )
