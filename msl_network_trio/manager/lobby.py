"""Those who have connected and have not said yet who they are: few at a time, and with little to say.

Whoever connects needs nothing to get here, so this is what must not be exhausted. If it is full, the one goes
who has been here longest of those from the host that has the most here; and if they have sent too much, who
has sent most of the host that has: who fills it is in his own way only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from msl_network_trio.protocol.holdings import Holdings
from msl_network_trio.protocol.logins import network_of

_BYTES: Final = 64 * 1024 * 1024
"""How many bytes those in the lobby may have sent together."""


class Visitor:
    """One connection that is yet to be admitted.

    Args:
        host: Where it comes from: its IP address. All of an IPv6 network count as one.
        leave: Ends the connection; is given the reason.
    """

    __slots__ = ("host", "leave", "size")

    def __init__(self, host: str, leave: Callable[[str], None]) -> None:
        self.host = network_of(host)
        self.leave = leave
        self.size = 0


class Lobby:
    """The connections that are yet to be admitted.

    Args:
        capacity: How many there may be; None: any number.

    Attributes:
        evicted: How many had to go before their time.
    """

    def __init__(self, capacity: int | None) -> None:
        self._capacity = math.inf if capacity is None else capacity
        self._hosts: dict[str, dict[Visitor, None]] = {}
        self._count = 0
        self._said: Holdings[Visitor] = Holdings(
            _BYTES,
            lambda visitor: visitor.host,
            lambda visitor: self._evict(visitor, "they have sent too much"),
        )
        self.evicted = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, visitor: Visitor) -> bool:
        return visitor in self._hosts.get(visitor.host, {})

    def enter(self, host: str, leave: Callable[[str], None]) -> Visitor:
        """Let somebody in; for the arguments see `Visitor`."""
        while self._count >= self._capacity:
            visitors = max(self._hosts.values(), key=len)
            self._evict(next(iter(visitors)), "max_unauthenticated")
        visitor = Visitor(host, leave)
        self._hosts.setdefault(visitor.host, {})[visitor] = None
        self._count += 1
        return visitor

    def receive(self, visitor: Visitor, size: int) -> None:
        """Note how many bytes somebody has sent; then it may be that somebody has to go."""
        visitor.size += size
        if visitor in self:
            self._said.hold(visitor, visitor.size)

    def leave(self, visitor: Visitor) -> None:
        """Note that somebody has been admitted, or has gone; once more does no harm."""
        if visitor not in self:
            return
        visitors = self._hosts[visitor.host]
        del visitors[visitor]
        if not visitors:
            del self._hosts[visitor.host]
        self._count -= 1
        self._said.let_go(visitor)
        visitor.leave = _nobody_is_here

    def close(self, reason: str) -> None:
        """Have everybody go."""
        for visitor in [each for visitors in self._hosts.values() for each in visitors]:
            tell = visitor.leave
            self.leave(visitor)
            tell(reason)

    def _evict(self, visitor: Visitor, why: str) -> None:
        tell = visitor.leave
        self.leave(visitor)
        self.evicted += 1
        tell(f"Too many connections have not said yet who they are ({why})")


def _nobody_is_here(_reason: str) -> None:
    """Take the place of what would end the connection of somebody who has left, and need not be kept."""
