"""Login throttle: bounds the failed logins of each host, and of each user of a host.

Only failures count. An attempt is admitted if its failure, together with those of the attempts in progress,
would not exceed a limit; otherwise it is queued. So parallel attempts cannot evade the limits, and right
passwords are never refused because of each other.

Memory is bounded: only a digest of a user's name is kept, and the hosts with the oldest attempts are evicted.

All methods are called in the Trio thread; there is no lock.
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
"""Maximum number of hosts in memory."""

_ENTRIES: Final = 100_000
"""Maximum number of failures and users in memory, over all hosts."""

_HOST_FACTOR: Final = 10
"""Limit of the failures of a host, as a multiple of the limit of one user."""

_REMEMBERED: Final = 100
"""Maximum number of failures kept for each user of a host if there is no limit."""

_USERS: Final = 1000
"""Maximum number of users kept for each host that have logged in."""

_LONGEST_DELAY: Final = 5.0
"""Maximum seconds by which an attempt is delayed."""

_SAME_NETWORK: Final = 64
"""Bits of the prefix of an IPv6 network. One host may own all addresses of such a network."""


class Outcome(Enum):
    """The outcome of an attempt."""

    FAILED = auto()
    """The password is wrong, or there is no such user."""

    SUCCEEDED = auto()
    """The password is right."""

    UNKNOWN = auto()
    """The check was not completed, or only the user's name was checked and it exists."""


class Attempt:
    """One attempt to log in, from its arrival to its outcome.

    Args:
        throttle: The throttle that admits it.
        network: The network of the host, see `network_of`.
        user: The digest of the user's name.
        wake: Called once when a queued attempt is admitted or refused.

    Attributes:
        is_admitted: Whether the password may be checked now; `end` must be called then.
        is_new: Whether the user had no successful login from the host when the attempt was admitted.
        retry_after: Seconds until the next attempt may be made if this one is refused, else 0.
    """

    __slots__ = ("_throttle", "is_admitted", "is_new", "network", "retry_after", "user", "wake")

    def __init__(self, throttle: LoginThrottle, network: str, user: bytes, wake: Callable[[], None]) -> None:
        self._throttle = throttle
        self.network = network
        self.user = user
        self.wake = wake
        self.is_admitted = False
        self.is_new = True
        self.retry_after = 0

    @property
    def is_queued(self) -> bool:
        """Whether it is neither admitted nor refused yet."""
        return not (self.is_admitted or self.retry_after)

    def end(self, outcome: Outcome) -> None:
        """Record the outcome; also withdraws a queued attempt."""
        self._throttle._end(self, outcome)  # noqa: SLF001 - the two classes are one unit


class _Host:
    """The attempts of one host.

    Attributes:
        failed: The failures as pairs of time and user, the oldest first.
        failed_users: The times of the same failures by user.
        known: Users that have logged in, the latest last.
        in_progress: Number of admitted attempts by user.
        new_in_progress: Number of those by users that were not known.
        queued: Queued attempts by user.
    """

    __slots__ = ("failed", "failed_users", "in_progress", "known", "new_in_progress", "queued")

    def __init__(self) -> None:
        self.failed: deque[tuple[float, bytes]] = deque()
        self.failed_users: dict[bytes, deque[float]] = {}
        self.known: dict[bytes, None] = {}
        self.in_progress: dict[bytes, int] = {}
        self.new_in_progress = 0
        self.queued: dict[bytes, deque[Attempt]] = {}

    def size(self) -> int:
        """Return the number of failures and users in memory."""
        return len(self.failed) + len(self.known)

    def is_active(self) -> bool:
        """Return whether an attempt is in progress or queued."""
        return bool(self.in_progress or self.queued)

    def expire(self, until: float) -> None:
        """Forget the failures up to a time."""
        while self.failed and self.failed[0][0] <= until:
            self.forget_oldest()

    def forget_oldest(self) -> None:
        """Forget the oldest failure."""
        _, user = self.failed.popleft()
        times = self.failed_users[user]
        times.popleft()
        if not times:
            del self.failed_users[user]


class LoginThrottle:
    """A throttle that admits, queues, delays or refuses attempts to log in.

    Args:
        attempts: Maximum number of failures of one user of a host within `seconds`; None: no limit. After
            ten times as many failures of the host, new users are refused and known users are delayed.
        seconds: Seconds until a failure is forgotten.
        delay: Seconds of delay per failure before an attempt is checked.
        clock: Returns the time in seconds; only differences are used.

    Attributes:
        refused: Number of attempts that were refused without a check of the password.
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
        """Return the seconds by which to delay an attempt; arguments as for `begin`."""
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
        """Begin an attempt, which is admitted, queued or refused.

        Args:
            address: The IP address of the host.
            user: The user's name; None: the password is that of the Manager.
            wake: Called once when a queued attempt is admitted or refused.
        """
        network = network_of(address)
        host = self._find(network) or _Host()
        self._hosts.pop(network, None)
        self._hosts[network] = host  # the order of eviction
        attempt = Attempt(self, network, _digest(user), wake)
        if attempt.user in host.queued or not self._try(host, attempt):
            host.queued.setdefault(attempt.user, deque()).append(attempt)
        self._evict()
        return attempt

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        host = self._hosts.get(attempt.network)
        if attempt.retry_after or host is None:
            return
        if not attempt.is_admitted:
            queue = host.queued[attempt.user]
            queue.remove(attempt)
            if not queue:
                del host.queued[attempt.user]
            return
        self._leave_progress(host, attempt)
        before = host.size()
        host.expire(self._clock() - self._seconds)
        if outcome is Outcome.FAILED:
            self._fail(host, attempt.user)
        elif outcome is Outcome.SUCCEEDED:
            host.known.pop(attempt.user, None)
            host.known[attempt.user] = None
            if len(host.known) > _USERS:
                del host.known[next(iter(host.known))]
        self._size += host.size() - before
        self._admit_queued(host, attempt)
        self._drop_if_empty(attempt.network, host)
        self._evict()

    def _leave_progress(self, host: _Host, attempt: Attempt) -> None:
        attempt.is_admitted = False
        host.new_in_progress -= attempt.is_new
        host.in_progress[attempt.user] -= 1
        if not host.in_progress[attempt.user]:
            del host.in_progress[attempt.user]

    def _fail(self, host: _Host, user: bytes) -> None:
        now = self._clock()
        if len(host.failed_users.get(user, ())) < self._remembered:
            host.failed.append((now, user))
            host.failed_users.setdefault(user, deque()).append(now)
        if len(host.failed) > _HOST_FACTOR * self._remembered * 2:  # failures of known users
            host.forget_oldest()

    def _admit_queued(self, host: _Host, ended: Attempt) -> None:
        """Admit or refuse queued attempts after an attempt has ended."""
        self._admit_of(host, ended.user)
        if ended.is_new:
            for user in list(host.queued):
                if self._is_full(host):
                    break
                self._admit_of(host, user)

    def _admit_of(self, host: _Host, user: bytes) -> None:
        queue = host.queued.get(user)
        while queue and self._try(host, queue[0]):
            queue.popleft().wake()
        if queue is not None and not queue:
            del host.queued[user]

    def _is_full(self, host: _Host) -> bool:
        """Return whether attempts of new users of a host are queued."""
        return len(host.failed) < self._host_attempts <= len(host.failed) + host.new_in_progress

    def _try(self, host: _Host, attempt: Attempt) -> bool:
        """Admit or refuse an attempt; return False if it must be queued."""
        user = attempt.user
        if retry_after := self._refusal(host, user):
            self.refused += 1
            attempt.retry_after = retry_after
            return True
        is_new = user not in host.known
        failed = len(host.failed_users.get(user, ()))
        if failed + host.in_progress.get(user, 0) >= self._attempts or (is_new and self._is_full(host)):
            return False
        attempt.is_admitted, attempt.is_new = True, is_new
        host.in_progress[user] = host.in_progress.get(user, 0) + 1
        host.new_in_progress += is_new
        return True

    def _refusal(self, host: _Host, user: bytes) -> int:
        """Return the seconds until a refused user of a host may log in; 0: the user is not refused."""
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
        """Return the record of a host without expired failures; None if there is none."""
        host = self._hosts.get(network)
        if host is not None:
            before = host.size()
            host.expire(self._clock() - self._seconds)
            self._size += host.size() - before
            self._drop_if_empty(network, host)
        return self._hosts.get(network)

    def _drop_if_empty(self, network: str, host: _Host) -> None:
        if not (host.size() or host.is_active()):
            self._hosts.pop(network, None)

    def _evict(self) -> None:
        """Evict hosts, those with the oldest attempts first, until the limits hold."""
        while len(self._hosts) > _HOSTS or self._size > _ENTRIES:
            idle = (network for network, host in self._hosts.items() if not host.is_active())
            network = next(idle, None)
            if network is None:
                return
            self._size -= self._hosts.pop(network).size()


def _digest(user: str | None) -> bytes:
    if user is None:
        return b""
    return hashlib.blake2b(user.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@lru_cache(maxsize=1000)
def network_of(address: str) -> str:
    """Return the identifier of a host: its IPv4 address, or its IPv6 network."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, _SAME_NETWORK), strict=False))
