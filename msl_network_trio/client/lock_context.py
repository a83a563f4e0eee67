"""Acquiring of a lock, to be awaited or entered; belongs to the Trio thread.

`Link.acquire_lock` returns a `LockContext`. The functions of this module end the scope of any lock.
"""

from __future__ import annotations

from types import TracebackType

import trio

from msl_network_trio import arguments
from msl_network_trio.client.awaitable_context import AwaitableContext
from msl_network_trio.client.locks import Grant, LockScope
from msl_network_trio.client.session import SessionLink
from msl_network_trio.exceptions import LockLost


class LockContext(AwaitableContext[list[str]]):
    """Awaitable and context manager that acquires a lock; `Link.acquire_lock` returns it."""

    def __init__(self, link: SessionLink, name: str, shared: bool, timeout: float | None, wait: bool) -> None:
        self._link = link
        self._shared = arguments.flag("shared", shared)
        self._timeout = timeout
        self._wait = arguments.flag("wait", wait)
        super().__init__(name)

    @trio.lowlevel.enable_ki_protection
    async def _open(self) -> list[str]:
        return (await self._acquire()).names

    @trio.lowlevel.enable_ki_protection
    async def _enter(self) -> list[str]:
        grant = await self._acquire()
        self._held = grant.held
        self._scope = scope = LockScope()
        grant.held.scopes.add(scope)  # no checkpoint since the grant
        scope.cancel_scope.__enter__()
        return grant.names

    async def _acquire(self) -> Grant:
        link = self._link
        session = link.require_session("acquire_lock")
        self._locks = session.locks  # kept for the end of the scope, when the link may be broken
        return await self._locks.acquire(
            link.service_name, self._shared, self._timeout, self._wait, link.lock_requests(session)
        )

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            leave_scope(self._scope, exception)
        finally:
            await self._exit()

    @trio.lowlevel.enable_ki_protection
    async def _exit(self) -> None:
        await self._locks.leave(self._held, self._scope)


@trio.lowlevel.enable_ki_protection
def leave_scope(scope: LockScope, exception: BaseException | None) -> None:
    """Close the cancel scope of a body, and report a lock that was lost.

    Args:
        scope: The scope.
        exception: The exception that the body has raised.

    Raises:
        LockLost: A lock was lost, and the body was cancelled for that, or has ended.
        BaseException: What is left of the exception of the body without the cancellation, if that is part of
            a group.
    """
    traceback = None if exception is None else exception.__traceback__
    try:
        is_caught = scope.cancel_scope.__exit__(type(exception) if exception else None, exception, traceback)
    except BaseException as rest:
        if scope.lost is not None:
            note_lost(rest, scope.lost.error())
        raise
    if scope.lost is None:
        return
    if exception is None or is_caught:
        raise scope.lost.error()
    note_lost(exception, scope.lost.error())


def note_lost(exception: BaseException, lost: LockLost) -> None:
    """Add the loss of a lock to another exception, which says more; not to that of a loss itself."""
    if not isinstance(exception, LockLost | trio.Cancelled):
        exception.add_note(str(lost))
