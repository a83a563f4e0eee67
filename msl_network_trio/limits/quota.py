"""How much many connections hold together of what is not complete, and who has to go if it is too much."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

from msl_network_trio.limits.login_throttle import network_of

H = TypeVar("H")
"""Who holds something."""


class Holdings(Generic[H]):
    """Counts bytes. If there are too many, the one goes who holds most, of the host that holds most.

    So many connections that each hold a part cannot have somebody else dropped, who holds more than each of
    them. All of an IPv6 network count as one host.

    Args:
        most: How many bytes all may hold together; None: any number.
        host_of: Returns the IP address of the host of a holder; those of which it is not known count as one.
        drop: Ends the connection of a holder, of which nothing counts any more when this is called.

    Attributes:
        size: How many bytes are held.
    """

    def __init__(self, most: int | None, host_of: Callable[[H], str], drop: Callable[[H], None]) -> None:
        self.size = 0
        self._most = math.inf if most is None else most
        self._host_of = host_of
        self._drop = drop
        self._sizes: dict[H, int] = {}

    def hold(self, holder: H, size: int) -> None:
        """Note how many bytes somebody holds now; then it may be that somebody has to go."""
        self.let_go(holder)
        if size:
            self._sizes[holder] = size
            self.size += size
        while self.size > self._most:
            largest = self._largest()
            self.let_go(largest)
            self._drop(largest)

    def let_go(self, holder: H) -> None:
        """Note that somebody holds nothing any more; once more does no harm."""
        self.size -= self._sizes.pop(holder, 0)

    def _largest(self) -> H:
        hosts: Counter[str] = Counter()
        largest: dict[str, H] = {}
        for holder, size in self._sizes.items():
            host = network_of(self._host_of(holder))
            hosts[host] += size
            if host not in largest or size > self._sizes[largest[host]]:
                largest[host] = holder
        ((host, _),) = hosts.most_common(1)
        return largest[host]
