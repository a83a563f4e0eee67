"""Locks of one client on Services; belongs to the Trio thread."""

from __future__ import annotations

import math
from collections import Counter
from typing import Protocol

import trio

from msl_network_trio.client.connection import Connection
from msl_network_trio.constants import MANAGER
from msl_network_trio.exceptions import ManagerError, ReplyTimeout

_RETRY_DELAY = 0.05
"""Seconds before the first retry for a lock. The delay doubles, up to one second."""


class HasConnection(Protocol):
    """Owner of the locks; see `Session`."""

    connection: Connection


class Locks:
    """The locks of one client.

    A Manager keeps one lock for a client and a Service, so that the first release would release it for all
    scopes that hold it. Hence the scopes are counted here, and only the last one sends the release.

    Args:
        owner: Holds the current connection.
    """

    def __init__(self, owner: HasConnection) -> None:
        self._owner = owner
        self._held: Counter[str] = Counter()
        """Number of locks on each Service, including those that are being acquired."""

    @trio.lowlevel.enable_ki_protection
    async def acquire(self, service: str, shared: bool, timeout: float | None, wait: bool) -> list[str]:
        """Acquire a lock; see `Link.acquire_lock`."""
        seconds = self._owner.connection.requests.seconds(timeout)
        refusal: ManagerError | None = None
        delay = _RETRY_DELAY
        is_asked = False
        with trio.move_on_after(seconds if wait else math.inf):
            while True:
                is_asked = True
                try:
                    return await self._request(service, shared, timeout)
                except ManagerError as error:
                    if not wait or "cannot acquire an exclusive lock" not in error.message:
                        raise
                    refusal = error
                is_asked = False
                await trio.sleep(delay)
                delay = min(2 * delay, 1.0)
        raise ReplyTimeout(
            f"The lock on {service!r} could not be acquired within {seconds:g} seconds",
            service=MANAGER,
            attribute="acquire_lock",
            seconds=seconds,
            may_have_run=is_asked,
        ) from refusal

    @trio.lowlevel.enable_ki_protection
    async def release(self, service: str, timeout: float | None) -> list[str]:
        """Release a lock at once, also for scopes that hold it; see `Link.release_lock`."""
        try:
            names: list[str] = await self._owner.connection.requests.request(
                MANAGER, "release_lock", (service,), timeout=timeout
            )
        except (trio.Cancelled, KeyboardInterrupt, ReplyTimeout) as error:
            if getattr(error, "may_have_run", True):
                self.forget(service)
            raise
        self.forget(service)
        return names

    @trio.lowlevel.enable_ki_protection
    async def leave(self, service: str) -> None:
        """End a scope that holds a lock. Shielded from cancellation, and raises nothing."""
        if not self._decrement(service):
            await self._owner.connection.requests.post_and_wait("release_lock", service)

    @trio.lowlevel.enable_ki_protection
    def forget(self, service: str) -> None:
        """Note that the Manager has released the lock, also for scopes that hold it."""
        del self._held[service]

    @trio.lowlevel.enable_ki_protection
    async def _request(self, service: str, shared: bool, timeout: float | None) -> list[str]:
        self._held[service] += 1
        requests = self._owner.connection.requests
        try:
            names: list[str] = await requests.request(
                MANAGER, "acquire_lock", (service,), {"shared": shared}, timeout
            )
        except BaseException as error:
            if not self._decrement(service) and not isinstance(error, ManagerError):
                # The Manager may have granted the lock all the same, and no scope would release it.
                requests.post("release_lock", service)
            raise
        return names

    def _decrement(self, service: str) -> bool:
        """Decrement the number of scopes that hold a lock.

        Returns:
            Whether to send no release: other scopes hold the lock, or it was released already.
        """
        if service not in self._held:
            return True
        self._held[service] -= 1
        if self._held[service] > 0:
            return True
        del self._held[service]
        return False
