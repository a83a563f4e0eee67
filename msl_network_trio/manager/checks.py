"""Checks that the Manager's protocol cannot make itself: by the database, and of other connections.

Runs in the Trio thread, in the task of the peer that waits for the check; the database uses worker threads.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import trio

from msl_network_trio.constants import SHUTDOWN_MANAGER
from msl_network_trio.exceptions import CertificateError, DatabaseError
from msl_network_trio.limits.login_throttle import LoginThrottle, Outcome
from msl_network_trio.logger import get_logger
from msl_network_trio.manager.admin import AdminRequests
from msl_network_trio.manager.connection import PeerConnection
from msl_network_trio.manager.database import ManagerDatabase, reason
from msl_network_trio.manager.replacing import Replacing
from msl_network_trio.manager.rights import Rights
from msl_network_trio.protocol.manager.event_log import about, emit
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.pending_check import (
    AdminRequest,
    HostCheck,
    LoginCheck,
    PendingCheck,
    ReplaceCheck,
    Revoked,
    Throttled,
    TryAgain,
    UserCheck,
)
from msl_network_trio.visible import visible

logger = get_logger(__name__)

T = TypeVar("T")

_CHANGE_RIGHTS = frozenset(
    {
        "hostnames_table.delete",
        "hostnames_table.insert",
        "users_table.delete",
        "users_table.insert",
        "users_table.update",
    }
)
"""Admin requests that change the rights of peers."""


class Checks:
    """Makes the pending checks of peers.

    Args:
        database: The database, with users and trusted hosts.
        logins: The login throttle.
        rights: The rights of connected users.
        admin: Answers admin requests.
        replacing: Replaces dead peers.
        shutdown: Shuts the Manager down.
    """

    def __init__(
        self,
        database: ManagerDatabase,
        logins: LoginThrottle,
        rights: Rights,
        admin: AdminRequests,
        replacing: Replacing,
        *,
        shutdown: Callable[[], None],
    ) -> None:
        self._database = database
        self._logins = logins
        self._rights = rights
        self._replacing = replacing
        self._admin = admin
        self._shutdown = shutdown

    async def run(self, peer: Peer, check: PendingCheck) -> Any:
        """Make a check, and return its result or the exception because of which there is none."""
        try:
            return await self._make(peer, check)
        except (TryAgain, Revoked) as error:
            return error
        except DatabaseError as error:
            text = "a check of %s was not made, since the database is not available: %s"
            logger.error(text, visible(peer.name), error)  # noqa: TRY400 - no error of this program
            return error if isinstance(check, AdminRequest) else RuntimeError(reason(error))
        except (
            ArithmeticError,
            AttributeError,
            CertificateError,
            LookupError,
            OSError,
            TypeError,
            ValueError,
            sqlite3.Error,
        ) as error:
            if not isinstance(check, AdminRequest):
                # An error of this program, unless it is that of an administrator.
                logger.exception("a check of %s has failed", visible(peer.name))
            return error

    async def _make(self, peer: Peer, check: PendingCheck) -> Any:
        match check:
            case HostCheck():
                return await self._database.is_trusted(check)
            case UserCheck():
                return await self._throttled(peer, check.username, partial(self._find_user, peer, check))
            case LoginCheck():
                # Not for the name as well: a right login must not take longer than a client waits.
                if delay := self._logins.delay(peer.host.address, check.username):
                    await trio.sleep(delay)
                return await self._throttled(peer, check.username, partial(self._log_in, peer, check))
            case ReplaceCheck():
                return await self._replacing.replace(peer, check.holder)
        if check.attribute != SHUTDOWN_MANAGER and isinstance(peer.route, PeerConnection):
            await peer.route.wait_drained()  # the answer may be large, and so may be the one before
        # After that wait, in which the rights may be revoked.
        await self._rights.check_admin(peer)
        if check.attribute == SHUTDOWN_MANAGER:
            text = "%s, an administrator, shuts down the Manager"
            emit(logging.INFO, "shutdown_requested", text, peer.name, **about(peer))
            self._shutdown()
            await trio.sleep_forever()  # until the end of the shutdown, which cancels this
        result = await self._admin.answer(check, peer)
        if check.attribute in _CHANGE_RIGHTS:
            await self._change_rights(peer, check)
        return result

    async def _throttled(
        self, peer: Peer, username: str, look: Callable[[], Awaitable[tuple[T, Outcome]]]
    ) -> T:
        """Check a login when the throttle admits it.

        Args:
            peer: The peer.
            username: The name of the user.
            look: Returns the result and the outcome.

        Raises:
            Throttled: Too many logins have failed.
        """
        admitted = trio.Event()
        attempt = self._logins.begin(peer.host.address, username, admitted.set)
        outcome = Outcome.UNKNOWN
        try:
            if attempt.is_queued:
                await admitted.wait()
            if attempt.retry_after:
                raise Throttled(peer.host.name, attempt.retry_after)
            result, outcome = await look()
            return result
        finally:
            attempt.end(outcome)

    async def _find_user(self, peer: Peer, check: UserCheck) -> tuple[bool, Outcome]:
        known = await self._database.is_known(check, peer.host.address)
        return known, Outcome.UNKNOWN if known else Outcome.FAILED

    async def _log_in(self, peer: Peer, check: LoginCheck) -> tuple[bool | None, Outcome]:
        user = await self._database.log_in(check, peer.host.address)
        if user is None:
            return None, Outcome.FAILED
        self._rights.grant(peer, user)
        return bool(user[4]), Outcome.SUCCEEDED

    async def _change_rights(self, peer: Peer, request: AdminRequest) -> None:
        """Apply a change of users or hosts to the open connections."""
        username = request.args[0] if request.args else request.kwargs.get("username")
        if request.attribute == "users_table.update" and username == peer.user:
            await self._rights.renew(peer)
        self._rights.change()
