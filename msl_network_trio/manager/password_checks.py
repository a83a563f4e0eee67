"""Checking the passwords of users: hashes in a few threads, shared, remembered for a minute.

Runs in the Trio thread; only the hashes themselves are computed in others. A hash is slow on purpose, so

- hosts take turns: the queue of one does not delay the others;
- equal attempts at the same time share one hash;
- a password that was right is remembered for a minute, as an HMAC under a key that only this process has. It
  covers the key and salt that the database has, too: when these change, nothing that is remembered counts.
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
"""Maximum number of hashes computed at the same time."""

_REMEMBERED_FOR: Final = 60.0
"""Seconds for which a right password is remembered."""

_REMEMBERED: Final = 10_000
"""Maximum number of passwords that are remembered."""

_WAIT: Final = 60.0
"""Maximum number of seconds that an attempt waits for its hash."""

_AGAIN: Final = 10
"""Seconds after which to try again if the hash was not computed in time."""


class _Check:
    """One hash, and those that wait for it."""

    def __init__(self, host: str, password: str, key: bytes | None, salt: bytes | None) -> None:
        self.host = host
        self.arguments = (password, key, salt)
        self.waiters = 0
        self.has_begun = False
        self.done = trio.Event()
        self.is_right = False
        self.error: Exception | None = None


class PasswordChecks:
    """Checks passwords of users."""

    def __init__(self) -> None:
        self._secret = os.urandom(32)
        self._limiter = trio.CapacityLimiter(_THREADS)
        self._nursery: trio.Nursery | None = None
        self._workers = 0
        self._checks: dict[bytes, _Check] = {}
        """Those that are not done, by the digest of what they are about."""
        self._queues: dict[str, deque[bytes]] = {}
        """Those that have not begun by host; the host whose turn it is comes first."""
        self._right: dict[bytes, float] = {}
        """Until when passwords that were right are remembered, the oldest first."""

    def open(self, nursery: trio.Nursery) -> None:
        """Begin to check, with tasks in a nursery that run only while there is something to do."""
        self._nursery = nursery

    def forget(self) -> None:
        """Forget all passwords that were right."""
        self._right.clear()

    async def is_right(
        self, host: str, user: str, password: str, key: bytes | None, salt: bytes | None
    ) -> bool:
        """Return whether a password is the one that key and salt were made of.

        Args:
            host: Where the attempt comes from: its IP address. All of an IPv6 network have one turn.
            user: The user's name.
            password: The password.
            key: The key that the database has; None: there is no such user, which takes as long.
            salt: The salt.

        Raises:
            TryAgain: Too many passwords are to be checked.
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
                f"too many passwords are to be checked, this one was not within {_WAIT:g} s", _AGAIN
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
        """Remove a check from the queue when its last waiter was cancelled."""
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
        """Compute hashes until none is to be computed."""
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
        except Exception as error:  # noqa: BLE001 - raised, and logged, where it is waited for
            check.error = error
        except BaseException:
            # Else those that wait outside of what is cancelled would take the password for wrong.
            check.error = TryAgain("the password was not checked, since the Manager ends", _AGAIN)
            raise
        finally:
            del self._checks[digest]
            check.done.set()
        if check.is_right:
            self._remember(digest)

    def _remember(self, digest: bytes) -> None:
        self._right.pop(digest, None)
        self._right[digest] = trio.current_time() + _REMEMBERED_FOR
        now = trio.current_time()
        while self._right:
            oldest = next(iter(self._right))
            if len(self._right) <= _REMEMBERED and self._right[oldest] > now:
                break
            del self._right[oldest]
