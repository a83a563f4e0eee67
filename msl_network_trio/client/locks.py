"""Locks of one client on Services; belongs to the Trio thread.

A Manager keeps one lock for a client and a Service, so that the first release would release it for all that
hold it in the client. Hence its holders are counted here, and only the last one sends the release.

A lock is lost together with the connection or the Service, and is never acquired again silently. Holders with
a `LockScope` are cancelled. If there are holders without one, requests to the Service raise `LockLost`, see
`WithoutLock`, until these have let go of the lock, or it is released or acquired again.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import trio

from msl_network_trio.client.connection import Connection
from msl_network_trio.client.presence import Presence
from msl_network_trio.client.request_route import RequestRoute
from msl_network_trio.client.without_lock import WithoutLock
from msl_network_trio.constants import MANAGER
from msl_network_trio.exceptions import LockLost, ManagerError, NetworkError, ReplyTimeout
from msl_network_trio.logger import get_logger
from msl_network_trio.visible import visible

logger = get_logger(__name__)

_RETRY_DELAY = 0.05
"""Seconds before the first retry for a lock. The delay doubles, up to one second."""


class LockOwner(Protocol):
    """Owner of the locks; see `Session`."""

    connection: Connection
    presence: Presence

    @property
    def requests(self) -> RequestRoute:
        """Makes the requests to the Manager."""

    def lock_changed(self, service: str) -> None:
        """Set what requests to a Service go to anew, since `Locks.without_lock` has changed."""


class LockScope:
    """Cancel scope of a body that holds locks; cancelled when one of them is lost.

    Attributes:
        cancel_scope: The cancel scope.
        lost: The first lock that was lost; None: none was.
    """

    __slots__ = ("cancel_scope", "lost")

    def __init__(self) -> None:
        self.cancel_scope = trio.CancelScope()
        self.lost: HeldLock | None = None

    def lose(self, held: HeldLock) -> None:
        """Cancel the body, since a lock is lost."""
        if self.lost is None:
            self.lost = held
            self.cancel_scope.cancel()


class HeldLock:
    """A lock on one Service, from its grant until it is released or lost.

    Args:
        service: Name of the Service.

    Attributes:
        service: Name of the Service.
        holders: Number of holders.
        scopes: The scopes of those holders that have one.
        reason: Why the lock was lost; None: it was not.
    """

    __slots__ = ("holders", "reason", "scopes", "service")

    def __init__(self, service: str) -> None:
        self.service = service
        self.holders = 0
        self.scopes: set[LockScope] = set()
        self.reason: NetworkError | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the lock was lost."""
        return self.reason is not None

    def error(self) -> LockLost:
        """Return the error of a lock that was lost."""
        text = f"The lock on the {visible(self.service)!r} Service was lost: {self.reason}"
        error = LockLost(text, service=self.service)
        error.__cause__ = self.reason
        return error


class Grant(NamedTuple):
    """The result of acquiring a lock."""

    names: list[str]
    """The names of the clients that are linked with the Service."""

    held: HeldLock
    """The lock, of which the caller is a holder."""


class _Attempt:
    """A request for a lock whose caller has not continued yet."""

    __slots__ = ("lost", "lost_connection", "must_release", "service")

    def __init__(self, service: str) -> None:
        self.service = service
        self.lost: HeldLock | None = None
        self.lost_connection: Connection | None = None
        """The connection at the loss."""
        self.must_release = False
        """Whether to release the lock even if the Manager refuses it: an earlier grant was not released."""


class Locks:
    """The locks of one client, over all of its connections.

    Args:
        owner: Holds the current connection.
    """

    __slots__ = ("_attempts", "_held", "_lost", "_owner")

    def __init__(self, owner: LockOwner) -> None:
        self._owner = owner
        self._held: dict[str, HeldLock] = {}
        self._attempts: list[_Attempt] = []
        self._lost: dict[str, HeldLock] = {}
        """Lost locks with holders that have no scope, and have not let go of it."""

    def is_held(self, service: str) -> bool:
        """Return whether the client holds a lock on a Service."""
        return service in self._held

    def current(self, service: str) -> HeldLock | None:
        """Return the lock on a Service, also if it is lost; None: there is none."""
        return self._held.get(service) or self._lost.get(service)

    def without_lock(self, service: str) -> WithoutLock | None:
        """Return what requests to a Service go to whose lock is lost; None: its lock is not lost."""
        held = self._lost.get(service)
        return None if held is None else WithoutLock(held.error)

    # ---- acquiring and releasing ----

    def holds(self, service: str) -> bool:
        """Return whether a Service is locked, or a lock on it is being acquired."""
        return service in self._held

    @trio.lowlevel.enable_ki_protection
    async def acquire(
        self, service: str, shared: bool, timeout: float | None, wait: bool, requests: RequestRoute
    ) -> Grant:
        """Acquire a lock; see `Link.acquire_lock`.

        There is no checkpoint between the grant and the return, so a caller that adds its scope at once
        cannot miss a loss.

        Args:
            service: Name of the Service.
            shared: Whether to acquire a shared lock.
            timeout: Seconds to wait.
            wait: Whether to try again after a refusal.
            requests: Makes the request, once the client is linked.

        Raises:
            LockLost: It was granted, and lost directly afterwards.
        """
        seconds = self._owner.connection.requests.seconds(timeout)
        refusal: ManagerError | None = None
        delay = _RETRY_DELAY
        is_asked = False
        with trio.move_on_after(seconds if wait else math.inf):
            while True:
                is_asked = True
                try:
                    return await self._request(service, shared, timeout, requests)
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
        if self._forget_lost(service) and not self._owner.connection.is_open:
            await trio.lowlevel.checkpoint()
            return []  # the Manager has released it
        try:
            names: list[str] = await self._owner.requests.request(
                MANAGER, "release_lock", (service,), timeout=timeout
            )
        except (trio.Cancelled, KeyboardInterrupt, ReplyTimeout) as error:
            if getattr(error, "may_have_run", True):
                self.forget(service)
            raise
        self.forget(service)
        return names

    @trio.lowlevel.enable_ki_protection
    def remove(self, held: HeldLock, scope: LockScope | None = None) -> bool:
        """Remove a holder.

        Args:
            held: The lock.
            scope: The scope of the holder.

        Returns:
            Whether the lock is to be released: this was the last holder, and the lock was neither released
            nor lost before.
        """
        service = held.service
        held.holders -= 1
        held.scopes.discard(scope)
        if self._lost.get(service) is held and held.holders == len(held.scopes):
            self._forget_lost(service)
        if held.holders > 0 or self._held.get(service) is not held:
            return False
        del self._held[service]
        for attempt in self._attempts:
            if attempt.service == service:
                attempt.must_release = True  # this release could follow the grant
                return False
        return True

    @trio.lowlevel.enable_ki_protection
    async def leave(self, held: HeldLock, scope: LockScope | None = None) -> None:
        """Remove a holder; the last one releases the lock. Shielded from cancellation, and raises nothing."""
        if self.remove(held, scope):
            await self._owner.connection.requests.post_and_wait("release_lock", held.service)

    @trio.lowlevel.enable_ki_protection
    def forget(self, service: str) -> None:
        """Note that the client has released the lock, also for scopes that hold it."""
        self._held.pop(service, None)
        self._forget_lost(service)

    @trio.lowlevel.enable_ki_protection
    def forget_all(self) -> None:
        """Note that the client has released all locks, since it disconnects."""
        for service in {*self._held, *self._lost}:
            self.forget(service)

    # ---- losses, for the reader ----

    @trio.lowlevel.enable_ki_protection
    def lose(self, service: str, reason: NetworkError, *, is_final: bool = False) -> None:
        """Note that the lock on a Service is lost, if there is one, and report that to its holders.

        Must be called in the reader, in the order of the wire. May be called again.

        Args:
            service: Name of the Service.
            reason: The loss of the connection or of the Service.
            is_final: Whether the connection has ended for good, so that requests raise `ConnectionLost`.
        """
        held = self._held.pop(service, None)
        attempts = [attempt for attempt in self._attempts if attempt.service == service]
        if attempts:
            lost = held or HeldLock(service)
            lost.reason = reason
            for attempt in attempts:
                attempt.lost, attempt.lost_connection = lost, self._owner.connection
        if held is None:
            return
        held.reason = reason
        logger.warning("the lock on %r is lost: %s", service, reason)
        scopes = list(held.scopes)
        if held.holders > len(scopes) and not is_final:
            self._lost[service] = held
            self._owner.lock_changed(service)
        for scope in scopes:
            scope.lose(held)

    @trio.lowlevel.enable_ki_protection
    def lose_all(self, reason: NetworkError, *, is_final: bool = False) -> None:
        """Note that all locks are lost, with the connection; arguments as in `lose`."""
        for service in {*self._held, *(attempt.service for attempt in self._attempts)}:
            self.lose(service, reason, is_final=is_final)
        if is_final:
            for service in list(self._lost):
                self._forget_lost(service)

    # ---- inside ----

    @trio.lowlevel.enable_ki_protection
    async def _request(
        self, service: str, shared: bool, timeout: float | None, requests: RequestRoute
    ) -> Grant:
        attempt = _Attempt(service)
        self._attempts.append(attempt)
        try:
            names: list[str] = await requests.request(
                MANAGER, "acquire_lock", (service,), {"shared": shared}, timeout
            )
            if attempt.lost is not None and attempt.lost_connection is self._owner.connection:
                # It was lost after the grant. (A loss of an earlier connection was before the grant.)
                raise attempt.lost.error()
        except BaseException as error:
            self._attempts.remove(attempt)
            is_refused = isinstance(error, ManagerError) and not attempt.must_release
            if not is_refused and not self._is_used(service):
                # The Manager may have granted the lock all the same, and no scope would release it.
                self._owner.connection.requests.post("release_lock", service)
            raise
        self._attempts.remove(attempt)
        held = self._held.setdefault(service, HeldLock(service))
        held.holders += 1
        self._forget_lost(service)
        self._owner.presence.look_after()
        return Grant(names, held)

    def _is_used(self, service: str) -> bool:
        """Return whether the client holds a lock on a Service, or requests one."""
        return service in self._held or any(attempt.service == service for attempt in self._attempts)

    def _forget_lost(self, service: str) -> bool:
        """Accept requests to a Service again if its lock was lost, and return whether it was."""
        if self._lost.pop(service, None) is None:
            return False
        self._owner.lock_changed(service)
        return True
