"""Locks on several Services in the blocking API; may be used from any thread."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from msl_network_trio.client.acquire_locks import lock_set
from msl_network_trio.client.link import Link as AsyncLink
from msl_network_trio.client.lock_context import note_lost
from msl_network_trio.client.lock_set import LockSet
from msl_network_trio.portal.portal import Portal
from msl_network_trio.sync.client import Client
from msl_network_trio.sync.link import Link
from msl_network_trio.sync.wrapped import Entering, named, portal_of, unwrap

if TYPE_CHECKING:
    from msl_network_trio.sync.linked_client import LinkedClient


class Locks(list[Link]):
    """The links with Services that are locked; ``with`` releases the locks at the end."""

    _lock_set: LockSet
    _portal: Portal

    @classmethod
    def of(cls, lock_set: LockSet, portal: Portal) -> Locks:
        """Return the links of locks that are held; in the Trio thread."""
        locks = cls(AsyncLink(state).sync for state in lock_set.links)
        locks._lock_set, locks._portal = lock_set, portal
        return locks

    __enter__ = Entering(weakref.ref)

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lost = self._lock_set.lost
        self._portal.end(self.leave)
        if lost is not None:
            if exception is None:
                raise lost.error()
            note_lost(exception, lost.error())

    async def leave(self) -> None:
        """Release the locks, and unlink; in the Trio thread."""
        await self._lock_set.leave()


def acquire_locks(
    *services: tuple[Client | LinkedClient, str], shared: bool = False, timeout: float | None = None
) -> Locks:
    """Link with several Services and lock them all; see `msl_network_trio.acquire_locks`.

    Args:
        *services: Tuples of a client and the name of a Service. All clients must have been connected by the
            blocking API, or in the same Trio run.
        shared: Whether to acquire shared locks.
        timeout: Seconds for all locks together.

    Returns:
        The links. Entered with ``with``, the locks are released at the end of the block.
    """
    wanted: Sequence[Any] = [*map(_unwrapped, services)]
    locks = lock_set(wanted, shared)
    portals = {portal_of(client) for client, _ in services}
    if len(portals) > 1:
        raise ValueError("The clients of acquire_locks belong to different Trio runs")
    portal = portals.pop()

    async def acquire() -> Locks:
        await locks.acquire(timeout)
        return Locks.of(locks, portal)

    return portal.open(named("acquire_locks", acquire), Locks.leave)


def _unwrapped(each: Any) -> Any:
    """Return a tuple with the client of the async API; anything else as it is, for `lock_set` to refuse."""
    if isinstance(each, tuple) and each and hasattr(each[0], "_wrapped_async"):
        return unwrap(each[0]), *each[1:]
    return each
