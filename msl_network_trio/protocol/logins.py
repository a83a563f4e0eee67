"""Failed logins, by the host that they came from: who guesses passwords has to wait longer and longer.

An attempt counts as failed from its beginning until it has succeeded, so that many at the same time are no
way around the limit. Nobody else waits, and the memory that it takes is bounded.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Final

_HOSTS: Final = 10_000
"""Of how many hosts to remember that logins have failed; then those are forgotten who failed first."""

_LONGEST_DELAY: Final = 5.0
"""How many seconds to wait at the most before an attempt is looked at."""

_SAME_NETWORK: Final = 64
"""How many bits the addresses of one IPv6 network have in common, of which one host can have all."""


class Logins:
    """The attempts to log in that have failed lately.

    Args:
        attempts: How many may fail at once, before the host has to wait; None: any number.
        seconds: After how many seconds one that failed is forgotten.
        delay: For how many seconds an attempt waits for each one that failed before it.
        clock: Gives the time in seconds, of which only differences count.

    Attributes:
        refused: How many attempts were not even looked at.
    """

    def __init__(
        self, attempts: int | None, seconds: float, delay: float, clock: Callable[[], float]
    ) -> None:
        self._attempts = math.inf if attempts is None else attempts
        self._seconds = seconds
        self._delay = delay
        self._clock = clock
        self._failed: dict[str, list[float]] = {}
        self.refused = 0

    def delay(self, address: str) -> float:
        """Return for how many seconds an attempt of a host has to wait before it is looked at."""
        failed = len(self._of(network_of(address)))
        return min(failed * self._delay, _LONGEST_DELAY) if failed < self._attempts else 0.0

    def begin(self, address: str) -> int:
        """Count an attempt, or return in how many seconds there may be another one; 0: it is counted."""
        network = network_of(address)
        failed = self._of(network)
        now = self._clock()
        if len(failed) >= self._attempts:
            self.refused += 1
            return math.ceil(failed[0] + self._seconds - now)
        if len(failed) < self._remembered:
            failed.append(now)
        self._failed.pop(network, None)
        self._failed[network] = failed  # behind all others
        if len(self._failed) > _HOSTS:
            del self._failed[next(iter(self._failed))]
        return 0

    def succeeded(self, address: str) -> None:
        """Note that an attempt has not failed."""
        failed = self._failed.get(network_of(address))
        if failed:
            failed.pop()

    @property
    def _remembered(self) -> int:
        """How many attempts of one host are worth to be remembered."""
        return 100 if self._attempts == math.inf else int(self._attempts)

    def _of(self, network: str) -> list[float]:
        failed = self._failed.get(network, [])
        since = self._clock() - self._seconds
        while failed and failed[0] <= since:
            del failed[0]
        if not failed:
            self._failed.pop(network, None)
        return failed


@lru_cache(maxsize=1000)
def network_of(address: str) -> str:
    """Return what tells hosts apart: the IPv4 address, or the IPv6 network."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, _SAME_NETWORK), strict=False))
