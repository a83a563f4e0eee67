"""Latencies of a client: a histogram of the seconds between requests and their replies, from a sample.

Measuring every request would cost several percent of a call. One request in 16 is measured on average,
chosen at random, which costs less than 1 %.

Used with the connection's lock held or, as long as threads do not use the connection, in the Trio thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate
from math import ceil, frexp, ldexp
from random import getrandbits
from time import perf_counter
from typing import Final

from msl_network_trio.constants import MANAGER
from msl_network_trio.protocol.requests import SETTLED, Line, Request

LONGEST: Final = 60.0
"""Seconds that the histogram distinguishes; longer latencies count as this one."""

_MAX_OPEN: Final = 8
"""Maximum number of requests that are measured at the same time."""

_BITS: Final = 5
"""Bits of the random number of lines between two measured ones: 1 to 32, so 16.5 on average."""

_STEPS: Final = 16
"""Buckets per factor of two, of which the upper half is used: each is 6 to 12 % wide."""


class Latencies:
    """Measures a sample of requests, and keeps a histogram of their latencies.

    Args:
        clock: Returns the time in seconds.

    Attributes:
        open: The requests that are being measured, with the times at which they were written, by uid.
        buckets: Number of measured requests by bucket.
    """

    __slots__ = ("_clock", "buckets", "open")

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self.open: dict[str, tuple[Request, float]] = {}
        self.buckets: dict[int, int] = {}

    def begin(self, line: Line) -> int:
        """Begin to measure a line that is being written, if it is a request to a Service.

        May be repeated, after an exception has interrupted it.

        Returns:
            Number of lines after which another one is to be measured.
        """
        if isinstance(line, Request) and line.service != MANAGER:
            now = self._clock()
            if len(self.open) >= _MAX_OPEN:
                self._expire(now)
            if len(self.open) < _MAX_OPEN:
                self.open[line.uid] = (line, now)
        return 1 + getrandbits(_BITS)

    def end(self) -> None:
        """Record the requests that have been settled, and drop those that were abandoned."""
        now = self._clock()
        for uid, (request, began) in [*self.open.items()]:
            if request.phase >= SETTLED:
                self.open.pop(uid, None)
                if request.phase is SETTLED:
                    self._record(now - began)

    def _expire(self, now: float) -> None:
        """Record the requests that are open for so long that their exact latency does not matter."""
        for uid, (_, began) in [*self.open.items()]:
            if now - began >= LONGEST:
                self.open.pop(uid, None)
                self._record(LONGEST)

    def _record(self, seconds: float) -> None:
        mantissa, exponent = frexp(min(seconds, LONGEST))
        bucket = exponent * _STEPS + int(mantissa * _STEPS)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1


def quantiles(buckets: dict[int, int], shares: tuple[float, ...]) -> dict[float, float]:
    """Return latencies in seconds, within 7 %.

    Args:
        buckets: A copy of `Latencies.buckets`.
        shares: Shares of the requests, from 0 to 1.

    Returns:
        For each share, the latency that is not exceeded by this share of the requests; empty without any.
    """
    ordered = sorted(buckets)
    ranks = [*accumulate(buckets[bucket] for bucket in ordered)]
    found = {}
    for share in shares if ranks else ():
        bucket = ordered[bisect_left(ranks, max(1, ceil(share * ranks[-1])))]
        exponent, step = divmod(bucket, _STEPS)
        found[share] = min(LONGEST, ldexp((step + 0.5) / _STEPS, exponent))
    return found
