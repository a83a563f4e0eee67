"""Rights of connected peers, which are revoked when the database changes.

Runs in the Trio thread, in one task. The rights of a login hold as long as the user's row in the database is
the one of the login: a user who was deleted, or whose password was changed, has to log in again. The row is
checked before each admin request. Connections that were admitted by a login or a trusted host are closed
when the user is deleted or the host is no longer trusted: soon after an admin request has changed the
database, and within `_INTERVAL` seconds after another program has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

import trio

from msl_network_trio.exceptions import DatabaseError
from msl_network_trio.logger import get_logger
from msl_network_trio.manager.database import ManagerDatabase
from msl_network_trio.manager.settings import ManagerSettings
from msl_network_trio.manager.tables import Database, User
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.pending_check import Revoked
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.protocol import ManagerProtocol

logger = get_logger(__name__)

_INTERVAL: Final = 5.0
"""Seconds between checks of the database, which other programs may change."""


class Rights:
    """Revocation of rights that peers got by a login or by a trusted host.

    Args:
        settings: The settings of the Manager.
        protocol: The Manager's protocol.
        database: The database.
    """

    def __init__(
        self, settings: ManagerSettings, protocol: ManagerProtocol, database: ManagerDatabase
    ) -> None:
        self._settings = settings
        self._protocol = protocol
        self._database = database
        self._users: WeakKeyDictionary[Peer, User] = WeakKeyDictionary()
        """The rows of the users that have logged in, by peer."""
        self._wakeup = trio.Event()
        self._has_changed = False

    def grant(self, peer: Peer, user: User) -> None:
        """Set the user of a peer that has logged in."""
        self._users[peer] = user
        self._wakeup.set()

    def change(self) -> None:
        """Check all rights soon, since an administrator has changed users or hosts."""
        self._database.checks.forget()
        self._has_changed = True
        self._wakeup.set()

    async def check_admin(self, peer: Peer) -> None:
        """Check that a peer that has logged in as an administrator still is one.

        Raises:
            Revoked: It is none any more.
            DatabaseError: The database does not answer, or cannot be used.
        """
        if reason := _lost(self._users[peer], await self._database.user(peer.user)):
            raise Revoked(reason)

    async def renew(self, peer: Peer) -> None:
        """Keep the rights of a peer that has changed its own user.

        Raises:
            DatabaseError: The database does not answer, or cannot be used.
        """
        user = await self._database.user(peer.user)
        if user is not None and user[0] == self._users[peer][0]:
            self._users[peer] = user

    async def enforce(self, flush: Callable[[], None]) -> None:
        """Revoke rights in a loop until cancelled.

        Args:
            flush: Sends what the protocol has queued.
        """
        next_check = trio.current_time() + _INTERVAL
        while True:
            # Without rights that could be revoked no thread is needed.
            with trio.move_on_at(next_check if self._is_needed() else math.inf):
                await self._wakeup.wait()
                self._wakeup = trio.Event()
            if not self._has_changed and trio.current_time() < next_check:
                continue
            self._has_changed = False
            try:
                await self._enforce()
            except DatabaseError as error:
                logger.debug("the rights of peers cannot be looked up: %s", error)
            flush()
            next_check = trio.current_time() + _INTERVAL

    def _is_needed(self) -> bool:
        return self._settings.auth_hostname or bool(self._users)

    async def _enforce(self) -> None:
        def look_up(database: Database) -> tuple[dict[str, User], set[str] | None]:
            users = {user[1]: user for user in database.users.records()}
            hosts = set(database.hostnames.hostnames()) if self._settings.auth_hostname else None
            return users, hosts

        # Before the lookup: rights granted during it may rest on rows that it has not read.
        granted = {peer: self._users.get(peer) for peer in self._protocol.registry.peers.values()}
        users, hosts = await self._database.call(look_up)
        for peer, then in granted.items():
            if peer.phase is Phase.CLOSING or self._users.get(peer) is not then:
                continue
            if then is not None:
                self._check_user(peer, then, users.get(peer.user))
            # Not an administrator, who must be able to correct a mistake.
            if hosts is not None and not peer.is_admin and peer.host.hostname not in hosts:
                text = f"{peer.host.hostname!r} is not a trusted hostname any more"
                self._protocol.reject(peer, ValueError(text))

    def _check_user(self, peer: Peer, then: User, now: User | None) -> None:
        if reason := _lost(then, now):
            peer.is_admin = False
        if self._settings.auth_login and (now is None or now[0] != then[0]):
            self._protocol.reject(peer, ConnectionAbortedError(reason))


def _lost(then: User, now: User | None) -> str:
    """Return the reason why admin rights have ended; empty: they have not."""
    number, username, key, salt, _ = then
    if now is None or now[0] != number:
        return f"the user {username!r} was deleted"
    if not now[4]:
        return f"{username!r} is no administrator any more"
    if (now[2], now[3]) != (key, salt):
        return f"the password of {username!r} was changed, log in again"
    return ""
