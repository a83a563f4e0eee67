"""Login throttle: bounds the failed logins of each host, and of each user of a host.

Only failures count. An attempt is looked at when it could fail without exceeding a limit, together with those
that are being looked at; else it waits in a queue. So many attempts at the same time are no way around the
limits, and right ones are never refused because of each other.

The memory is bounded: of a user name only a digest is kept, and the hosts that were quiet longest are
forgotten.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import lru_cache
from typing import Final

_HOSTS: Final = 10_000
"""Maximum number of hosts that are remembered."""

_ENTRIES: Final = 100_000
"""Maximum number of failures and users that are remembered, of all hosts together."""

_HOST_FACTOR: Final = 10
"""Failures of a host until its new users are refused, in units of those of one of its users."""

_REMEMBERED: Final = 100
"""Maximum number of failures that are remembered of a user of a host if any number is allowed."""

_USERS: Final = 1000
"""Maximum number of users of one host of whom it is remembered that they have logged in."""

_LONGEST_DELAY: Final = 5.0
"""Maximum number of seconds that an attempt is delayed."""

_SAME_NETWORK: Final = 64
"""Length in bits of the prefix of an IPv6 network, of which one host can have all addresses."""


class Outcome(Enum):
    """How an attempt has ended."""

    FAILED = auto()
    """The password is wrong, or there is no such user."""

    SUCCEEDED = auto()
    """The password is right."""

    UNDECIDED = auto()
    """Neither: only the user's name was looked at and it is right, or it could not be checked."""


class Attempt:
    """One attempt to log in, from its arrival to its outcome.

    Args:
        logins: The throttle.
        network: The network that it came from.
        user: The digest of the user's name.
        wake: Called once when the attempt no longer waits, if it had to.

    Attributes:
        is_looked_at: Whether it may be checked now; then `end` must be called.
        again: Seconds after which the next attempt may be made if this one is refused, else 0.
    """

    __slots__ = ("_logins", "again", "is_looked_at", "is_new", "network", "user", "wake")

    def __init__(self, logins: Logins, network: str, user: bytes, wake: Callable[[], None]) -> None:
        self._logins = logins
        self.network = network
        self.user = user
        self.wake = wake
        self.is_looked_at = False
        self.is_new = True
        """Whether no login of the user had succeeded from the host when this one began to be looked at."""
        self.again = 0

    @property
    def waits(self) -> bool:
        """Whether it is queued."""
        return not (self.is_looked_at or self.again)

    def end(self, outcome: Outcome) -> None:
        """Note the outcome; also of an attempt that is withdrawn while it waits."""
        self._logins._end(self, outcome)  # noqa: SLF001 - the two are one


class _Host:
    """What is known of the attempts of one host."""

    __slots__ = ("failed", "failed_users", "known", "looking", "looking_new", "waiting")

    def __init__(self) -> None:
        self.failed: deque[tuple[float, bytes]] = deque()
        """When an attempt has failed, and of which user, the oldest first."""
        self.failed_users: dict[bytes, deque[float]] = {}
        """The same by user."""
        self.known: dict[bytes, None] = {}
        """Users who have logged in, the latest last."""
        self.looking: dict[bytes, int] = {}
        """Number of attempts being looked at by user."""
        self.looking_new = 0
        """Number of those of users who were not known."""
        self.waiting: dict[bytes, deque[Attempt]] = {}

    def size(self) -> int:
        return len(self.failed) + len(self.known)

    def is_active(self) -> bool:
        return bool(self.looking or self.waiting)

    def forget(self, since: float) -> None:
        """Forget the failures until a time."""
        while self.failed and self.failed[0][0] <= since:
            self.forget_oldest()

    def forget_oldest(self) -> None:
        _, user = self.failed.popleft()
        times = self.failed_users[user]
        times.popleft()
        if not times:
            del self.failed_users[user]


class Logins:
    """Throttle of the attempts to log in.

    Args:
        attempts: Maximum number of failures of one user of a host within `seconds`. After ten times as many
            of the host, users who have not logged in from there before are refused, and others are delayed.
            None: any number.
        seconds: Seconds after which a failure is forgotten.
        delay: Seconds of delay for each failure before an attempt is looked at.
        clock: Returns the time in seconds, of which only differences count.

    Attributes:
        refused: Number of attempts that were refused without being looked at.
    """

    def __init__(
        self, attempts: int | None, seconds: float, delay: float, clock: Callable[[], float]
    ) -> None:
        self._attempts = math.inf if attempts is None else attempts
        self._host_attempts = self._attempts * _HOST_FACTOR
        self._remembered = _REMEMBERED if attempts is None else attempts
        self._seconds = seconds
        self._delay = delay
        self._clock = clock
        self._hosts: dict[str, _Host] = {}
        self._size = 0
        """Sum of the sizes of the hosts."""
        self.refused = 0

    def delay(self, address: str, user: str | None = None) -> float:
        """Return the number of seconds to wait before an attempt is made; arguments as for `begin`."""
        host = self._find(network_of(address))
        if host is None:
            return 0.0
        digest = _digest(user)
        if self._refusal(host, digest):
            return 0.0
        failed = len(host.failed_users.get(digest, ()))
        if len(host.failed) >= self._host_attempts:
            failed = len(host.failed)
        return min(failed * self._delay, _LONGEST_DELAY)

    def begin(
        self, address: str, user: str | None = None, wake: Callable[[], None] = lambda: None
    ) -> Attempt:
        """Begin an attempt: it may be looked at, has to wait, or is refused.

        Args:
            address: The IP address of the host.
            user: The user's name; None: the password is not one of a user.
            wake: Called once when the attempt no longer waits, if it has to.
        """
        network = network_of(address)
        host = self._find(network) or _Host()
        self._hosts.pop(network, None)
        self._hosts[network] = host  # behind all others
        attempt = Attempt(self, network, _digest(user), wake)
        if attempt.user in host.waiting or not self._try(host, attempt):
            host.waiting.setdefault(attempt.user, deque()).append(attempt)
        self._forget_quiet()
        return attempt

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        host = self._hosts.get(attempt.network)
        if attempt.again or host is None:
            return
        if not attempt.is_looked_at:
            waiting = host.waiting[attempt.user]
            waiting.remove(attempt)
            if not waiting:
                del host.waiting[attempt.user]
            return
        self._stop_looking(host, attempt)
        before = host.size()
        host.forget(self._clock() - self._seconds)
        if outcome is Outcome.FAILED:
            self._fail(host, attempt.user)
        elif outcome is Outcome.SUCCEEDED:
            host.known.pop(attempt.user, None)
            host.known[attempt.user] = None
            if len(host.known) > _USERS:
                del host.known[next(iter(host.known))]
        self._size += host.size() - before
        self._admit_waiting(host, attempt)
        self._drop_if_empty(attempt.network, host)
        self._forget_quiet()

    def _stop_looking(self, host: _Host, attempt: Attempt) -> None:
        attempt.is_looked_at = False
        host.looking_new -= attempt.is_new
        host.looking[attempt.user] -= 1
        if not host.looking[attempt.user]:
            del host.looking[attempt.user]

    def _fail(self, host: _Host, user: bytes) -> None:
        now = self._clock()
        if len(host.failed_users.get(user, ())) < self._remembered:
            host.failed.append((now, user))
            host.failed_users.setdefault(user, deque()).append(now)
        if len(host.failed) > _HOST_FACTOR * self._remembered * 2:  # of users who are known
            host.forget_oldest()

    def _admit_waiting(self, host: _Host, ended: Attempt) -> None:
        """Look at those that have waited for the end of an attempt, or refuse them."""
        self._admit_of(host, ended.user)
        if ended.is_new:
            for user in list(host.waiting):
                if self._is_full(host):
                    break
                self._admit_of(host, user)

    def _admit_of(self, host: _Host, user: bytes) -> None:
        waiting = host.waiting.get(user)
        while waiting and self._try(host, waiting[0]):
            waiting.popleft().wake()
        if waiting is not None and not waiting:
            del host.waiting[user]

    def _is_full(self, host: _Host) -> bool:
        """Return whether new users of a host have to wait."""
        return len(host.failed) < self._host_attempts <= len(host.failed) + host.looking_new

    def _try(self, host: _Host, attempt: Attempt) -> bool:
        """Look at an attempt or refuse it; False if it has to wait."""
        user = attempt.user
        if again := self._refusal(host, user):
            self.refused += 1
            attempt.again = again
            return True
        is_new = user not in host.known
        failed = len(host.failed_users.get(user, ()))
        if failed + host.looking.get(user, 0) >= self._attempts or (is_new and self._is_full(host)):
            return False
        attempt.is_looked_at, attempt.is_new = True, is_new
        host.looking[user] = host.looking.get(user, 0) + 1
        host.looking_new += is_new
        return True

    def _refusal(self, host: _Host, user: bytes) -> int:
        """Return the seconds until a user of a host may log in; 0: now."""
        since = 0.0
        times: Sequence[float] = host.failed_users.get(user, ())
        if len(times) >= self._attempts:
            since = times[0]
        elif len(host.failed) >= self._host_attempts and user not in host.known:
            since = host.failed[len(host.failed) - int(self._host_attempts)][0]
        else:
            return 0
        return max(1, math.ceil(since + self._seconds - self._clock()))

    def _find(self, network: str) -> _Host | None:
        """Return what is known of a host that has not been forgotten."""
        host = self._hosts.get(network)
        if host is not None:
            before = host.size()
            host.forget(self._clock() - self._seconds)
            self._size += host.size() - before
            self._drop_if_empty(network, host)
        return self._hosts.get(network)

    def _drop_if_empty(self, network: str, host: _Host) -> None:
        if not (host.size() or host.is_active()):
            self._hosts.pop(network, None)

    def _forget_quiet(self) -> None:
        """Forget hosts, those that were quiet longest first, until there are no more than there may be."""
        while len(self._hosts) > _HOSTS or self._size > _ENTRIES:
            quiet = (network for network, host in self._hosts.items() if not host.is_active())
            network = next(quiet, None)
            if network is None:
                return
            self._size -= self._hosts.pop(network).size()


def _digest(user: str | None) -> bytes:
    if user is None:
        return b""
    return hashlib.blake2b(user.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@lru_cache(maxsize=1000)
def network_of(address: str) -> str:
    """Return what tells hosts apart: the IPv4 address, or the IPv6 network."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, _SAME_NETWORK), strict=False))
