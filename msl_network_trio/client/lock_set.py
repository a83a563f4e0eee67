"""Locks on several Services at once, also of several Managers; belongs to the Trio thread.

A Manager grants an exclusive lock only to the sole client that is linked, and a client cannot link while
another one holds a lock. So two clients that acquire the same locks would deadlock. A `LockSet` prevents that
by a random backoff: after a refusal it releases and unlinks everything, waits, and starts again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import trio

from msl_network_trio.client.locks import Grant, HeldLock, LockScope
from msl_network_trio.client.reply import Reply
from msl_network_trio.client.session import Session, SessionLink
from msl_network_trio.client.task_requests import GOODBYE_TIMEOUT
from msl_network_trio.constants import MANAGER
from msl_network_trio.exceptions import LockLost, ManagerError, NetworkError, ReplyTimeout, Unanswered
from msl_network_trio.logger import get_logger

logger = get_logger(__name__)

_SHORTEST_WAIT = 0.05
_LONGEST_WAIT = 1.0
"""Bounds of the seconds to wait after a refusal."""

_TEMPORARY = ("cannot acquire an exclusive lock", "service is locked", "The maximum number of Clients")
"""Parts of the messages of refusals that other clients cause."""


class LockSet:
    """Locks on several Services, and links with them.

    Args:
        wanted: The clients, and the names of the Services.
        shared: Whether to acquire shared locks.

    Attributes:
        links: The links, in the order of the Services.
    """

    def __init__(self, wanted: Sequence[tuple[Session, str]], shared: bool) -> None:
        self._wanted = wanted
        self._shared = shared
        self.links: list[SessionLink] = []
        self._grants: list[Grant] = []
        self._suspended: list[tuple[Session, str]] = []
        """Services whose other links of the client are not linked meanwhile."""

    @trio.lowlevel.enable_ki_protection
    async def acquire(self, timeout: float | None) -> None:
        """Link with all Services, and lock them.

        There is no checkpoint after the last lock was checked, so a caller that adds its scope at once cannot
        miss a loss.

        Raises:
            ManagerError: A link or a lock is refused for another reason than other clients.
            ReplyTimeout: Not all locks could be acquired in time.
            Unanswered: A connection or a Service was lost, and the client does not reconnect.
            LockLost: The same, after the lock was acquired.
        """
        seconds = min(session.connection.requests.seconds(timeout) for session, _ in self._wanted)
        refusal: NetworkError | None = None
        try:
            with trio.move_on_after(seconds):
                while True:
                    refusal = await self._try(refusal)
                    if refusal is None:
                        return
                    await trio.sleep(random.uniform(_SHORTEST_WAIT, _LONGEST_WAIT))
        except BaseException:
            await self._give_up()
            raise
        await self._give_up()
        services = ", ".join(repr(service) for _, service in self._wanted)
        raise ReplyTimeout(
            f"The locks on {services} could not be acquired within {seconds:g} seconds",
            service=MANAGER,
            attribute="acquire_lock",
            seconds=seconds,
            may_have_run=False,
        ) from refusal

    @trio.lowlevel.enable_ki_protection
    def add_scope(self, scope: LockScope) -> None:
        """Add the scope that is cancelled if one of the locks is lost."""
        for grant in self._grants:
            grant.held.scopes.add(scope)

    @property
    def lost(self) -> HeldLock | None:
        """The first of the locks that is lost; None: none is."""
        return next((grant.held for grant in self._grants if grant.held.is_lost), None)

    @trio.lowlevel.enable_ki_protection
    async def leave(self, scope: LockScope | None = None) -> None:
        """Release the locks, and unlink. Shielded from cancellation, and raises nothing."""
        requests: list[Reply] = []
        grants, links, self._grants = self._grants, self.links, []
        while links:
            link = links.pop()
            session, service = self._wanted[len(links)]
            must_release = len(grants) > len(links) and session.locks.remove(grants.pop().held, scope)
            post = session.connection.requests.post
            if not session.links.forget(link):
                requests.append(post("unlink", service))  # which releases the lock as well
            elif must_release:
                requests.append(post("release_lock", service))
        await _answered(requests)

    async def _try(self, refusal: NetworkError | None) -> NetworkError | None:
        """Acquire everything once; return the reason why it has failed for now, None if it has not."""
        try:
            for session, service in self._wanted:
                link = await session.links.make(service, None)
                self.links.append(link)
                requests = link.lock_requests(session)
                self._grants.append(await session.locks.acquire(service, self._shared, None, False, requests))
            if (lost := self.lost) is not None:
                raise lost.error()
        except ManagerError as error:
            if error.type_name != "PermissionError" or not any(text in error.message for text in _TEMPORARY):
                raise
            refusal = error
        except (Unanswered, LockLost) as error:
            if not all(session.is_reconnecting for session, _ in self._wanted):
                raise
            refusal = error
        else:
            self._resume()
            return None
        await self._back_off()
        return refusal

    async def _back_off(self) -> None:
        """Release and unlink everything, also for other links of the clients with the Services."""
        tried = self._wanted[: len(self.links)]
        await self.leave()
        requests: list[Reply] = []
        for session, service in tried:
            if session.links.count(service) > 0 and not session.locks.is_held(service):
                session.presence.suspend(service)
                self._suspended.append((session, service))
                requests.append(session.connection.requests.post("unlink", service))
        await _answered(requests)

    async def _give_up(self) -> None:
        """Undo everything, and link again where links wait for that."""
        await self.leave()
        for session, service in set(self._suspended):
            if not session.is_reconnecting:
                with trio.move_on_after(GOODBYE_TIMEOUT, shield=True):
                    try:
                        session.links.forget(await session.links.make(service, None))
                    except NetworkError as error:
                        logger.debug("the link with %r is not restored: %s", service, error)
        self._resume()

    def _resume(self) -> None:
        for session, service in self._suspended:
            session.presence.resume(service)
        self._suspended.clear()


async def _answered(requests: Sequence[Reply]) -> None:
    """Wait a little for the answers at the end of a scope; see `TaskRequests.post_and_wait`."""
    with trio.move_on_after(GOODBYE_TIMEOUT, shield=True):
        for request in requests:
            try:
                await request
            except NetworkError as error:
                logger.debug("%s failed: %s", request.attribute, error)
