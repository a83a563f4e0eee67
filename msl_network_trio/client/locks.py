"""Locks on Services: one for a client and a Service, however many scopes hold it."""

from __future__ import annotations

import math
from collections import Counter

import trio

from msl_network_trio.client.connection import Connection
from msl_network_trio.constants import MANAGER
from msl_network_trio.exceptions import ManagerError, ReplyTimeout

_RETRY = 0.05
"""How many seconds to wait before asking for a lock again the first time; then it doubles, up to one."""


class Locks:
    """The locks of one client.

    A Manager keeps one lock for a client and a Service, so the first release would free it for all who
    think that they hold it. Hence they are counted here, and only the last one sends the release.

    Args:
        connection: The client's.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held: Counter[str] = Counter()  # also those that are being acquired

    @trio.lowlevel.enable_ki_protection
    async def acquire(self, service: str, shared: bool, timeout: float | None, wait: bool) -> list[str]:
        """Acquire a lock; see `Link.acquire_lock`."""
        seconds = self._connection.seconds(timeout)
        refusal: ManagerError | None = None
        delay = _RETRY
        asked = False
        with trio.move_on_after(seconds if wait else math.inf):
            while True:
                asked = True
                try:
                    return await self._try(service, shared, timeout)
                except ManagerError as error:
                    if not wait or "cannot acquire an exclusive lock" not in error.message:
                        raise
                    refusal = error
                asked = False
                await trio.sleep(delay)
                delay = min(2 * delay, 1.0)
        raise ReplyTimeout(
            f"The lock on {service!r} could not be acquired within {seconds:g} seconds",
            service=MANAGER,
            attribute="acquire_lock",
            seconds=seconds,
            may_have_run=asked,
        ) from refusal

    @trio.lowlevel.enable_ki_protection
    async def release(self, service: str, timeout: float | None) -> list[str]:
        """Release a lock at once; see `Link.release_lock`."""
        try:
            names: list[str] = await self._connection.request(
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
        """End a scope that holds a lock."""
        if not self._release_count(service):
            await self._connection.say("release_lock", service)

    @trio.lowlevel.enable_ki_protection
    def forget(self, service: str) -> None:
        """Note that the lock is released, whoever thinks that he holds it."""
        del self._held[service]

    @trio.lowlevel.enable_ki_protection
    async def _try(self, service: str, shared: bool, timeout: float | None) -> list[str]:
        self._held[service] += 1
        try:
            names: list[str] = await self._connection.request(
                MANAGER, "acquire_lock", (service,), {"shared": shared}, timeout
            )
        except BaseException as error:
            if not self._release_count(service) and not isinstance(error, ManagerError):
                # The Manager may have granted it all the same, and nobody would release it.
                self._connection.post("release_lock", service)
            raise
        return names

    def _release_count(self, service: str) -> bool:
        """Count one less, and return whether there is another one, or had been none."""
        if service not in self._held:
            return True
        self._held[service] -= 1
        if self._held[service] > 0:
            return True
        del self._held[service]
        return False
