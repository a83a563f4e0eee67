"""Pool of unauthenticated connections: a bounded number, of which each may send little.

Runs in the Trio thread. To open a connection takes no password, so this is what must not be exhausted. Only
connections from which the Manager waits for an answer hold one of the slots. The others wait for the Manager:
for TLS, for the name of their host, for a slot, for a database or the hash of a password. Of all together
there may be `_WAITING_FACTOR` times as many, and only what exceeds that is evicted.

If all slots are taken, the connection that has held its slot for longest is evicted, of the host that holds
the most slots. A host that holds fewer slots than another one gets one at once; else the new connection waits
until the answer is `GRACE` seconds late, so that after a storm of reconnections all peers are admitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import trio

from msl_network_trio.limits.login_throttle import network_of
from msl_network_trio.limits.quota import Quota
from msl_network_trio.manager.open_files import open_files_limit

_MAX_BYTES: Final = 64 * 1024 * 1024
"""Maximum bytes received from all unauthenticated connections together."""

_WAITING_FACTOR: Final = 10
"""Maximum number of connections, as a multiple of the number of slots."""

_OPEN_FILES: Final = 0.75
"""Maximum share of the open files of the process."""

GRACE: Final = 1.0
"""Seconds in which a connection with a slot is not evicted in favour of one of the same host."""


class PoolEntry:
    """One connection that is not admitted yet.

    Args:
        host: The IP address of its host. All of an IPv6 network count as one.
        evict: Closes the connection, for a reason.

    Attributes:
        host: The host or IPv6 network.
        evict: See above.
        size: Bytes received.
        since: Time at which it got its slot.
        slot: Set when it gets a slot, or is removed; None: it does not wait for one.
    """

    __slots__ = ("evict", "host", "since", "size", "slot")

    def __init__(self, host: str, evict: Callable[[str], None]) -> None:
        self.host = network_of(host)
        self.evict = evict
        self.size = 0
        self.since = 0.0
        self.slot: trio.Event | None = None


class _Group:
    """Entries by host, the oldest first."""

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
        """Remove an entry, and return whether it was in the group."""
        if entry not in self:
            return False
        entries = self._hosts[entry.host]
        del entries[entry]
        if not entries:
            del self._hosts[entry.host]
        self.count -= 1
        return True

    def of_host(self, host: str) -> int:
        """Return the number of entries of a host."""
        return len(self._hosts.get(host, ()))

    def hosts(self) -> Iterable[str]:
        """Return the hosts that have entries."""
        return self._hosts

    def oldest_of(self, host: str) -> PoolEntry:
        """Return the oldest entry of a host."""
        return next(iter(self._hosts[host]))

    def oldest(self) -> PoolEntry:
        """Return the oldest entry of the host that has the most."""
        return self.oldest_of(max(self._hosts, key=self.of_host))


class UnauthenticatedPool:
    """The connections that are not admitted yet.

    Args:
        capacity: Number of slots; None: no limit.

    Attributes:
        evicted: Number of connections that were evicted.
    """

    def __init__(self, capacity: int | None) -> None:
        self._capacity = math.inf if capacity is None else capacity
        self._most = max(
            self._capacity, min(_WAITING_FACTOR * self._capacity, _OPEN_FILES * open_files_limit())
        )
        self._all = _Group()  # may be evicted; some are in one of the next two
        self._slots = _Group()
        self._queue = _Group()  # waits for a slot
        self._served = _Group()
        self._received: Quota[PoolEntry] = Quota(
            _MAX_BYTES,
            lambda entry: entry.host,
            lambda entry: self._evict(entry, "they have sent too much"),
        )
        self.evicted = 0

    def __len__(self) -> int:
        return self._all.count + self._served.count

    def __contains__(self, entry: PoolEntry) -> bool:
        return entry in self._all or entry in self._served

    def add(self, host: str, evict: Callable[[str], None]) -> PoolEntry:
        """Add a connection that has no slot yet; arguments as for `PoolEntry`."""
        entry = PoolEntry(host, evict)
        self._all.add(entry)
        while len(self) > self._most:
            self._evict(self._all.oldest(), "max_unauthenticated")
        return entry

    async def acquire_slot(self, entry: PoolEntry) -> None:
        """Wait for a slot for a connection from which the Manager waits for an answer now.

        Returns at once if it holds one already, and when it is evicted.
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
                    # In this order, so that no other queued entry gets the slot, too.
                    self._queue.discard(entry)
                    self._take_slot(entry)
                    self._evict(oldest, "max_unauthenticated")
                    return
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
        """Release the slot of a connection that waits for the Manager now; it is not evicted meanwhile."""
        if entry in self:
            self._all.discard(entry)
            self._served.add(entry)
            self._free_slot(entry)

    def _free_slot(self, entry: PoolEntry) -> None:
        """Free the slot of a connection, and give it to the queued one whose host holds the fewest."""
        if self._slots.discard(entry) and self._queue.count and self._slots.count < self._capacity:
            following = self._queue.oldest_of(min(self._queue.hosts(), key=self._slots.of_host))
            self._queue.discard(following)
            self._take_slot(following)
            assert following.slot is not None
            following.slot.set()

    def count_received(self, entry: PoolEntry, size: int) -> None:
        """Count bytes received; if they are too many, the largest sender of the busiest host is evicted."""
        entry.size += size
        if entry in self:
            self._received.update(entry, entry.size)

    def remove(self, entry: PoolEntry) -> None:
        """Remove a connection that was admitted or has ended; further calls have no effect."""
        if not (self._all.discard(entry) or self._served.discard(entry)):
            return
        self._received.release(entry)
        entry.evict = _ignore
        if entry.slot is not None:
            entry.slot.set()
            self._queue.discard(entry)
        self._free_slot(entry)

    def evict_all(self, reason: str) -> None:
        """Evict all connections."""
        for entry in [*self._all, *self._served]:
            evict = entry.evict
            self.remove(entry)
            evict(reason)

    def _evict(self, entry: PoolEntry, why: str) -> None:
        evict = entry.evict
        self.remove(entry)
        self.evicted += 1
        evict(f"Too many connections have not completed the handshake ({why})")


def _ignore(_reason: str) -> None:
    """Replace `PoolEntry.evict` of an entry that was removed, which keeps the connection alive."""
