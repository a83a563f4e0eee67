"""Unauthenticated connections: a bounded number, of which each may send little.

A connection needs nothing to get here, so this is what must not be exhausted. Only those that owe the
Manager an answer count towards the capacity. The others wait for the Manager: for TLS, for the name of their
host, for a place, for a database or the hash of a password. Of all together there may be `PATIENT` times as
many, and only what exceeds that is evicted.

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
from msl_network_trio.limits.quota import Holdings
from msl_network_trio.manager.open_files import open_files_limit

_BYTES: Final = 64 * 1024 * 1024
"""Maximum bytes that all unauthenticated connections together may have sent."""

PATIENT: Final = 10
"""Maximum number of connections that wait for the Manager, as a multiple of the capacity."""

_OPEN_FILES: Final = 0.75
"""Maximum share of the open files of the process."""

GRACE: Final = 1.0
"""Seconds in which a connection that owes an answer is not evicted in favour of one of the same host."""


class Visitor:
    """One connection that is yet to be admitted.

    Args:
        host: Where it comes from: its IP address. All of an IPv6 network count as one.
        leave: Ends the connection; is given the reason.

    Attributes:
        since: When it began to owe an answer, by Trio's clock.
        place: Set when it has got a place, or has left; None: it does not wait for one.
    """

    __slots__ = ("host", "leave", "place", "since", "size")

    def __init__(self, host: str, leave: Callable[[str], None]) -> None:
        self.host = network_of(host)
        self.leave = leave
        self.size = 0
        self.since = 0.0
        self.place: trio.Event | None = None


class _Group:
    """Visitors by host, the oldest first."""

    def __init__(self) -> None:
        self.count = 0
        self._hosts: dict[str, dict[Visitor, None]] = {}

    def __contains__(self, visitor: Visitor) -> bool:
        return visitor in self._hosts.get(visitor.host, {})

    def __iter__(self) -> Iterator[Visitor]:
        return (visitor for visitors in self._hosts.values() for visitor in visitors)

    def add(self, visitor: Visitor) -> None:
        self._hosts.setdefault(visitor.host, {})[visitor] = None
        self.count += 1

    def discard(self, visitor: Visitor) -> bool:
        """Return whether the visitor was here."""
        if visitor not in self:
            return False
        visitors = self._hosts[visitor.host]
        del visitors[visitor]
        if not visitors:
            del self._hosts[visitor.host]
        self.count -= 1
        return True

    def of_host(self, host: str) -> int:
        """Return how many visitors a host has here."""
        return len(self._hosts.get(host, ()))

    def hosts(self) -> Iterable[str]:
        """Return the hosts that have visitors here."""
        return self._hosts

    def oldest_of(self, host: str) -> Visitor:
        """Return the oldest visitor of a host."""
        return next(iter(self._hosts[host]))

    def oldest(self) -> Visitor:
        """Return the oldest visitor of the host that has the most here."""
        return self.oldest_of(max(self._hosts, key=self.of_host))


class Lobby:
    """The connections that are yet to be admitted.

    Args:
        capacity: Maximum number of connections that owe an answer; None: no limit.

    Attributes:
        evicted: Number of connections that were evicted.
    """

    def __init__(self, capacity: int | None) -> None:
        self._capacity = math.inf if capacity is None else capacity
        self._most = max(self._capacity, min(PATIENT * self._capacity, _OPEN_FILES * open_files_limit()))
        self._all = _Group()  # those that may be evicted, of whom some are in one of the next two
        self._owing = _Group()
        self._line = _Group()  # waits for a place in `_owing`
        self._ours = _Group()
        self._said: Holdings[Visitor] = Holdings(
            _BYTES,
            lambda visitor: visitor.host,
            lambda visitor: self._evict(visitor, "they have sent too much"),
        )
        self.evicted = 0

    def __len__(self) -> int:
        return self._all.count + self._ours.count

    def __contains__(self, visitor: Visitor) -> bool:
        return visitor in self._all or visitor in self._ours

    def enter(self, host: str, leave: Callable[[str], None]) -> Visitor:
        """Add a connection, which waits for the Manager until `owe`; for the arguments see `Visitor`."""
        visitor = Visitor(host, leave)
        self._all.add(visitor)
        while len(self) > self._most:
            self._evict(self._all.oldest(), "max_unauthenticated")
        return visitor

    async def owe(self, visitor: Visitor) -> None:
        """Note that a connection owes the Manager an answer; wait for a place for it.

        Returns at once if it owes one already, and when it is evicted.
        """
        if visitor not in self or visitor in self._owing:
            return
        if self._ours.discard(visitor):
            self._all.add(visitor)
        visitor.place = trio.Event()
        self._line.add(visitor)
        try:
            while self._owing.count >= self._capacity:
                oldest = self._owing.oldest()
                share = self._owing.of_host(oldest.host)
                if (
                    self._owing.of_host(visitor.host) < share - 1
                    or trio.current_time() >= oldest.since + GRACE
                ):
                    self._line.discard(visitor)  # else the place could be another one's
                    self._evict(oldest, "max_unauthenticated")
                    break
                with trio.move_on_at(oldest.since + GRACE):
                    await visitor.place.wait()
                if visitor.place.is_set():
                    return
        finally:
            visitor.place = None
            self._line.discard(visitor)
        if visitor in self:
            self._take_place(visitor)

    def _take_place(self, visitor: Visitor) -> None:
        visitor.since = trio.current_time()
        self._owing.add(visitor)

    def wait_for_us(self, visitor: Visitor) -> None:
        """Note that a connection has answered and waits for the Manager; it is not evicted meanwhile."""
        if visitor in self:
            self._all.discard(visitor)
            self._ours.add(visitor)
            self._free_place(visitor)

    def _free_place(self, visitor: Visitor) -> None:
        """Free the place of a connection, and give it to the queued one whose host has the fewest."""
        if self._owing.discard(visitor) and self._line.count and self._owing.count < self._capacity:
            following = self._line.oldest_of(min(self._line.hosts(), key=self._owing.of_host))
            self._line.discard(following)
            self._take_place(following)
            assert following.place is not None
            following.place.set()

    def receive(self, visitor: Visitor, size: int) -> None:
        """Note bytes that a connection has sent; the largest sender is evicted if they are too many."""
        visitor.size += size
        if visitor in self:
            self._said.hold(visitor, visitor.size)

    def leave(self, visitor: Visitor) -> None:
        """Remove a connection that was admitted or has ended; again does no harm."""
        if not (self._all.discard(visitor) or self._ours.discard(visitor)):
            return
        self._said.let_go(visitor)
        visitor.leave = _nobody_is_here
        if visitor.place is not None:
            visitor.place.set()
            self._line.discard(visitor)
        self._free_place(visitor)

    def close(self, reason: str) -> None:
        """Evict all connections."""
        for visitor in [*self._all, *self._ours]:
            tell = visitor.leave
            self.leave(visitor)
            tell(reason)

    def _evict(self, visitor: Visitor, why: str) -> None:
        tell = visitor.leave
        self.leave(visitor)
        self.evicted += 1
        tell(f"Too many connections have not said yet who they are ({why})")


def _nobody_is_here(_reason: str) -> None:
    """Stand in for `Visitor.leave` once it has left, so that the original is not kept alive."""
