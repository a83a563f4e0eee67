"""Unauthenticated connections: a bounded number, of which each may send little.

A connection needs nothing to get here, so this is what must not be exhausted. Only those that owe the
Manager an answer count towards the capacity. The others wait for the Manager: for TLS, for the name of their
host, for a place, for a database or the hash of a password. Of all together there may be
`_WAITING_FACTOR` times as many, and only what exceeds that is evicted.

If all places are taken, the connection that has owed its answer for longest is evicted, of the host that has
the most places. A host that has fewer places than another one gets one at once; else the newcomer waits until
the answer is `GRACE` seconds late, so that in a storm of reconnections all of them get in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import trio

from msl_network_trio.limits.login_throttle import network_of
from msl_network_trio.limits.quota import Quota
from msl_network_trio.manager.open_files import open_files_limit

_BYTES: Final = 64 * 1024 * 1024
"""Maximum bytes that all unauthenticated connections together may have sent."""

_WAITING_FACTOR: Final = 10
"""Maximum number of connections that wait for the Manager, as a multiple of the capacity."""

_OPEN_FILES: Final = 0.75
"""Maximum share of the open files of the process."""

GRACE: Final = 1.0
"""Seconds in which a connection that owes an answer is not evicted in favour of one of the same host."""


class PoolEntry:
    """One connection that is yet to be admitted.

    Args:
        host: Where it comes from: its IP address. All of an IPv6 network count as one.
        leave: Ends the connection; is given the reason.

    Attributes:
        since: When it began to owe an answer, by Trio's clock.
        place: Set when it has got a place, or has left; None: it does not wait for one.
    """

    __slots__ = ("host", "leave", "since", "size", "slot")

    def __init__(self, host: str, leave: Callable[[str], None]) -> None:
        self.host = network_of(host)
        self.leave = leave
        self.size = 0
        self.since = 0.0
        self.slot: trio.Event | None = None


class _Group:
    """Visitors by host, the oldest first."""

    def __init__(self) -> None:
        self.count = 0
        self._hosts: dict[str, dict[PoolEntry, None]] = {}

    def __contains__(self, entry: PoolEntry) -> bool:
        return entry in self._hosts.get(entry.host, {})

    def __iter__(self) -> Iterator[PoolEntry]:
        return (entry for entries in self._hosts.values() for entry in entries)

    def add(self, entry: PoolEntry) -> None:
        self._hosts.setdefault(entry.host, {})[entry] = None
        self.count += 1

    def discard(self, entry: PoolEntry) -> bool:
        """Return whether the entry was here."""
        if entry not in self:
            return False
        entries = self._hosts[entry.host]
        del entries[entry]
        if not entries:
            del self._hosts[entry.host]
        self.count -= 1
        return True

    def of_host(self, host: str) -> int:
        """Return how many entries a host has here."""
        return len(self._hosts.get(host, ()))

    def hosts(self) -> Iterable[str]:
        """Return the hosts that have entries here."""
        return self._hosts

    def oldest_of(self, host: str) -> PoolEntry:
        """Return the oldest entry of a host."""
        return next(iter(self._hosts[host]))

    def oldest(self) -> PoolEntry:
        """Return the oldest entry of the host that has the most here."""
        return self.oldest_of(max(self._hosts, key=self.of_host))


class UnauthenticatedPool:
    """The connections that are yet to be admitted.

    Args:
        capacity: Maximum number of connections that owe an answer; None: no limit.

    Attributes:
        evicted: Number of connections that were evicted.
    """

    def __init__(self, capacity: int | None) -> None:
        self._capacity = math.inf if capacity is None else capacity
        self._most = max(
            self._capacity, min(_WAITING_FACTOR * self._capacity, _OPEN_FILES * open_files_limit())
        )
        self._all = _Group()  # those that may be evicted, of whom some are in one of the next two
        self._slots = _Group()
        self._queue = _Group()  # waits for a place in `_slots`
        self._served = _Group()
        self._said: Quota[PoolEntry] = Quota(
            _BYTES,
            lambda entry: entry.host,
            lambda entry: self._evict(entry, "they have sent too much"),
        )
        self.evicted = 0

    def __len__(self) -> int:
        return self._all.count + self._served.count

    def __contains__(self, entry: PoolEntry) -> bool:
        return entry in self._all or entry in self._served

    def enter(self, host: str, leave: Callable[[str], None]) -> PoolEntry:
        """Add a connection that has no slot yet; arguments as for `PoolEntry`."""
        entry = PoolEntry(host, leave)
        self._all.add(entry)
        while len(self) > self._most:
            self._evict(self._all.oldest(), "max_unauthenticated")
        return entry

    async def acquire_slot(self, entry: PoolEntry) -> None:
        """Note that a connection owes the Manager an answer; wait for a place for it.

        Returns at once if it owes one already, and when it is evicted.
        """
        if entry not in self or entry in self._slots:
            return
        if self._served.discard(entry):
            self._all.add(entry)
        entry.slot = trio.Event()
        self._queue.add(entry)
        try:
            while self._slots.count >= self._capacity:
                oldest = self._slots.oldest()
                share = self._slots.of_host(oldest.host)
                if self._slots.of_host(entry.host) < share - 1 or trio.current_time() >= oldest.since + GRACE:
                    self._queue.discard(entry)  # else the place could be another one's
                    self._evict(oldest, "max_unauthenticated")
                    break
                with trio.move_on_at(oldest.since + GRACE):
                    await entry.slot.wait()
                if entry.slot.is_set():
                    return
        finally:
            entry.slot = None
            self._queue.discard(entry)
        if entry in self:
            self._take_slot(entry)

    def _take_slot(self, entry: PoolEntry) -> None:
        entry.since = trio.current_time()
        self._slots.add(entry)

    def release_slot(self, entry: PoolEntry) -> None:
        """Note that a connection has answered and waits for the Manager; it is not evicted meanwhile."""
        if entry in self:
            self._all.discard(entry)
            self._served.add(entry)
            self._free_slot(entry)

    def _free_slot(self, entry: PoolEntry) -> None:
        """Free the place of a connection, and give it to the queued one whose host has the fewest."""
        if self._slots.discard(entry) and self._queue.count and self._slots.count < self._capacity:
            following = self._queue.oldest_of(min(self._queue.hosts(), key=self._slots.of_host))
            self._queue.discard(following)
            self._take_slot(following)
            assert following.slot is not None
            following.slot.set()

    def receive(self, entry: PoolEntry, size: int) -> None:
        """Note bytes that a connection has sent; the largest sender is evicted if they are too many."""
        entry.size += size
        if entry in self:
            self._said.update(entry, entry.size)

    def leave(self, entry: PoolEntry) -> None:
        """Remove a connection that was admitted or has ended; again does no harm."""
        if not (self._all.discard(entry) or self._served.discard(entry)):
            return
        self._said.release(entry)
        entry.leave = _nobody_is_here
        if entry.slot is not None:
            entry.slot.set()
            self._queue.discard(entry)
        self._free_slot(entry)

    def close(self, reason: str) -> None:
        """Evict all connections."""
        for entry in [*self._all, *self._served]:
            tell = entry.leave
            self.leave(entry)
            tell(reason)

    def _evict(self, entry: PoolEntry, why: str) -> None:
        tell = entry.leave
        self.leave(entry)
        self.evicted += 1
        tell(f"Too many connections have not said yet who they are ({why})")


def _nobody_is_here(_reason: str) -> None:
    """Stand in for `PoolEntry.leave` once it has left, so that the original is not kept alive."""
