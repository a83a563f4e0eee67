"""Locks on several Services, to be entered with ``async with``; belongs to the Trio thread."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import trio

from msl_network_trio import arguments
from msl_network_trio.client.client import Client, client_session
from msl_network_trio.client.link import Link
from msl_network_trio.client.linked_client import LinkedClient, linked_state
from msl_network_trio.client.lock_context import leave_scope
from msl_network_trio.client.lock_set import LockSet
from msl_network_trio.client.locks import LockScope
from msl_network_trio.client.session import Session


class LocksContext:
    """Async context manager that holds locks on several Services; `acquire_locks` makes it."""

    def __init__(self, lock_set: LockSet, timeout: float | None) -> None:
        self._lock_set = lock_set
        self._timeout = timeout
        self._scope: LockScope | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> tuple[Link, ...]:
        if self._scope is not None:
            raise RuntimeError("acquire_locks was used already; each 'async with' takes a new one")
        self._scope = scope = LockScope()
        await self._lock_set.acquire(self._timeout)
        self._lock_set.add_scope(scope)
        scope.cancel_scope.__enter__()
        return tuple(map(Link, self._lock_set.links))

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._scope is not None
        try:
            leave_scope(self._scope, exception)
        finally:
            await self._lock_set.leave(self._scope)


def lock_set(wanted: Sequence[Any], shared: bool) -> LockSet:
    """Return the locks that are to be acquired, checked; see `acquire_locks`."""
    if not wanted:
        raise ValueError("acquire_locks needs at least one tuple of a client and the name of a Service")
    sessions: list[tuple[Session, str]] = []
    for each in wanted:
        if not (isinstance(each, tuple) and len(each) == 2 and isinstance(each[1], str) and each[1]):
            raise TypeError(f"Each lock is a tuple of a client and the name of a Service, not {each!r:.80}")
        client, service = each
        if isinstance(client, LinkedClient):
            client = linked_state(client).require_client()
        elif not isinstance(client, Client):
            raise TypeError(f"Each lock is a tuple of a client and the name of a Service, not {each!r:.80}")
        sessions.append((client_session(client), service))
    if len({(session.settings.manager, service) for session, service in sessions}) < len(sessions):
        raise ValueError("acquire_locks was given the same Service more than once")
    return LockSet(sessions, arguments.flag("shared", shared))


def acquire_locks(
    *services: tuple[Client | LinkedClient, str], shared: bool = False, timeout: float | None = None
) -> LocksContext:
    """Link with several Services and lock them all, also at several Managers.

    ::

        async with acquire_locks((client, "Supply"), (client, "Meter"), timeout=60) as (supply, meter):
            await supply.set_voltage(5)

    The links are made here. A Manager grants an exclusive lock only to the sole client that is linked. So if
    one is refused because of another client, everything is released and unlinked, and acquired again after a
    random time between 50 ms and 1 s: programs that need the same Services do not wait for each other for
    ever. Links with these Services that a client has already are unlinked meanwhile and linked again, with a
    `Gap` in their notifications.

    At the end of the block the locks are released and the links are broken. If a lock is lost, the block is
    cancelled and raises `LockLost`.

    Args:
        *services: Tuples of a client and the name of a Service.
        shared: Whether to acquire shared locks; see `Link.acquire_lock`.
        timeout: Seconds for all locks together; None: the shortest ``request_timeout`` of the clients.

    Returns:
        An object to be entered with ``async with``, which yields the links in the order of the arguments.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: There is no Service, or one twice.
        ManagerError: A link or a lock is refused for another reason than other clients.
        ReplyTimeout: Not all locks could be acquired in time.
    """
    return LocksContext(lock_set(services, shared), timeout)
