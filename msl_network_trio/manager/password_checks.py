"""Password checks: hashes in a few threads, shared by equal attempts, and cached for a minute.

Runs in the Trio thread; only the hashes are computed in worker threads. A hash is slow on purpose, therefore

- hosts are served round-robin: the queue of one does not delay the others;
- equal concurrent attempts share one hash;
- a right password is cached for a minute, as an HMAC with a key of this process. It includes hash and salt of
  the database, so that a change of the password invalidates the cache.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import deque
from typing import Final

import trio

from msl_network_trio.limits.login_throttle import network_of
from msl_network_trio.manager.passwords import is_password
from msl_network_trio.protocol.manager.pending_check import TryAgain

_THREADS: Final = 2
"""Maximum concurrent hashes."""

_CACHE_SECONDS: Final = 60.0
"""Seconds for which a right password is cached."""

_CACHE_SIZE: Final = 10_000
"""Maximum cached passwords."""

_WAIT: Final = 60.0
"""Maximum seconds that an attempt waits for its hash."""

_RETRY_AFTER: Final = 10
"""Seconds until the next attempt that is suggested after a timeout."""


class _Check:
    """One hash and the attempts that wait for it."""

    def __init__(self, host: str, password: str, key: bytes | None, salt: bytes | None) -> None:
        self.host = host
        self.arguments = (password, key, salt)
        self.waiters = 0
        self.has_begun = False
        self.done = trio.Event()
        self.is_right = False
        self.error: Exception | None = None


class PasswordChecks:
    """Queue and cache of the password checks of a Manager."""

    def __init__(self) -> None:
        self._secret = os.urandom(32)
        self._limiter = trio.CapacityLimiter(_THREADS)
        self._nursery: trio.Nursery | None = None
        self._workers = 0
        self._checks: dict[bytes, _Check] = {}
        """Unfinished checks by the digest of their arguments."""
        self._queues: dict[str, deque[bytes]] = {}
        """Digests of checks that have not begun, by host; the host that is served next is the first."""
        self._right: dict[bytes, float] = {}
        """Expiry times of right passwords by digest, the oldest first."""

    def open(self, nursery: trio.Nursery) -> None:
        """Enable checks, by tasks in a nursery that run only while checks wait."""
        self._nursery = nursery

    def forget(self) -> None:
        """Clear the cache of right passwords."""
        self._right.clear()

    async def is_right(
        self, host: str, user: str, password: str, key: bytes | None, salt: bytes | None
    ) -> bool:
        """Return whether a password matches a hash and its salt.

        Args:
            host: The IP address of the peer. All addresses of an IPv6 network count as one host.
            user: The name of the user.
            password: The password.
            key: The hash in the database; None: there is no such user, which takes as long.
            salt: The salt in the database.

        Raises:
            TryAgain: Too many checks wait.
        """
        digest = self._digest(user, password, key, salt)
        if self._right.get(digest, 0.0) > trio.current_time():
            return True
        check = self._checks.get(digest)
        if check is None:
            network = network_of(host)
            check = self._checks[digest] = _Check(network, password, key, salt)
            self._queues.setdefault(network, deque()).append(digest)
            self._start_worker()
        check.waiters += 1
        try:
            with trio.move_on_after(_WAIT):
                await check.done.wait()
        finally:
            check.waiters -= 1
            if not (check.waiters or check.has_begun):
                self._withdraw(digest, check)
        if not check.done.is_set():
            raise TryAgain(
                f"too many passwords are to be checked, this one was not within {_WAIT:g} s", _RETRY_AFTER
            )
        if check.error is not None:
            raise check.error
        return check.is_right

    def _digest(self, *parts: str | bytes | None) -> bytes:
        mac = hmac.new(self._secret, digestmod=hashlib.sha256)
        for part in parts:
            data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part or b""
            mac.update(b"%d:" % len(data) + data)
        return mac.digest()

    def _withdraw(self, digest: bytes, check: _Check) -> None:
        """Remove a check from the queue after the cancellation of its last waiter."""
        del self._checks[digest]
        queue = self._queues[check.host]
        queue.remove(digest)
        if not queue:
            del self._queues[check.host]

    def _start_worker(self) -> None:
        if self._workers < _THREADS:
            assert self._nursery is not None
            self._workers += 1
            self._nursery.start_soon(self._work)

    async def _work(self) -> None:
        """Compute hashes until no check waits."""
        try:
            while self._queues:
                host = next(iter(self._queues))
                queue = self._queues.pop(host)
                digest = queue.popleft()
                if queue:
                    self._queues[host] = queue  # behind the other hosts
                await self._compute(digest)
        finally:
            self._workers -= 1

    async def _compute(self, digest: bytes) -> None:
        check = self._checks[digest]
        check.has_begun = True
        try:
            check.is_right = await trio.to_thread.run_sync(
                is_password, *check.arguments, abandon_on_cancel=True, limiter=self._limiter
            )
        except Exception as error:  # noqa: BLE001 - raised and logged by the waiting tasks
            check.error = error
        except BaseException:
            # Otherwise waiters outside of the cancelled scope would treat the password as wrong.
            check.error = TryAgain("the password was not checked, since the Manager ends", _RETRY_AFTER)
            raise
        finally:
            del self._checks[digest]
            check.done.set()
        if check.is_right:
            self._remember(digest)

    def _remember(self, digest: bytes) -> None:
        self._right.pop(digest, None)
        self._right[digest] = trio.current_time() + _CACHE_SECONDS
        now = trio.current_time()
        while self._right:
            oldest = next(iter(self._right))
            if len(self._right) <= _CACHE_SIZE and self._right[oldest] > now:
                break
            del self._right[oldest]
