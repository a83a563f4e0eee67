"""Quota for incomplete input across connections; evicts the largest holder of the busiest host.

All methods are called in the Trio thread; there is no lock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

from msl_network_trio.limits.login_throttle import network_of

H = TypeVar("H")
"""The type of holders, such as connections."""


class Quota(Generic[H]):
    """A limit on the bytes of many holders, which evicts holders while their sum exceeds it.

    The largest holder of the host with the most bytes is evicted. So a host with many connections that each
    hold little cannot evict a single connection of another host that holds more than each of them. All
    addresses of an IPv6 network count as one host.

    Args:
        limit: Maximum bytes of all holders; None: no limit.
        host_of: Returns the IP address of a holder's host; holders without a known address share one.
        evict: Ends the connection of a holder. The bytes of the holder are released before the call.

    Attributes:
        size: Bytes held.
    """

    def __init__(self, limit: int | None, host_of: Callable[[H], str], evict: Callable[[H], None]) -> None:
        self.size = 0
        self._limit = math.inf if limit is None else limit
        self._host_of = host_of
        self._evict = evict
        self._sizes: dict[H, int] = {}

    def update(self, holder: H, size: int) -> None:
        """Set the bytes of a holder, and evict holders while the limit is exceeded."""
        self.release(holder)
        if size:
            self._sizes[holder] = size
            self.size += size
        while self.size > self._limit:
            largest = self._largest()
            self.release(largest)
            self._evict(largest)

    def release(self, holder: H) -> None:
        """Set the bytes of a holder to 0."""
        self.size -= self._sizes.pop(holder, 0)

    def _largest(self) -> H:
        """Return the largest holder of the host with the most bytes."""
        hosts: Counter[str] = Counter()
        largest: dict[str, H] = {}
        for holder, size in self._sizes.items():
            host = network_of(self._host_of(holder))
            hosts[host] += size
            if host not in largest or size > self._sizes[largest[host]]:
                largest[host] = holder
        ((host, _),) = hosts.most_common(1)
        return largest[host]
