"""What the Manager's protocol cannot decide by what it knows: the database knows, or the Manager does."""

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
"""Requests that change who may do what."""


class Checks:
    """Reaches the verdicts that peers wait for.

    Args:
        database: Who may connect.
        logins: The login throttle.
        rights: What those who have logged in may do.
        admin: Answers the requests of administrators.
        replacing: Replaces peers that are gone.
        shutdown: Has the Manager end.
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

    async def run(self, peer: Peer, question: PendingCheck) -> Any:
        """Find out what the protocol wants to know, or return the exception because of which nobody can."""
        try:
            return await self._look_up(peer, question)
        except (TryAgain, Revoked) as error:
            return error
        except DatabaseError as error:
            logger.error("%s waits for the database in vain: %s", visible(peer.name), error)  # noqa: TRY400 - no mistake of ours
            return error if isinstance(question, AdminRequest) else RuntimeError(reason(error))
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
            if not isinstance(question, AdminRequest):
                # A mistake of ours, of which the peer can make nothing. An administrator has made its own.
                logger.exception("%s waits for a verdict in vain", visible(peer.name))
            return error

    async def _look_up(self, peer: Peer, question: PendingCheck) -> Any:
        match question:
            case HostCheck():
                return await self._database.is_trusted(question)
            case UserCheck():
                return await self._in_turn(peer, question.username, partial(self._know, peer, question))
            case LoginCheck():
                # Not for the name as well: a right login of a client must not take longer than it waits.
                if delay := self._logins.delay(peer.host.address, question.username):
                    await trio.sleep(delay)
                return await self._in_turn(peer, question.username, partial(self._log_in, peer, question))
            case ReplaceCheck():
                return await self._replacing.replace(peer, question.holder)
        if question.attribute != SHUTDOWN_MANAGER and isinstance(peer.route, PeerConnection):
            await (
                peer.route.wait_drained()
            )  # an answer may be large, and the next one needs not be made before
        # Not before that wait, in which the rights may be taken away.
        await self._rights.check_admin(peer)
        if question.attribute == SHUTDOWN_MANAGER:
            text = "%s, an administrator, shuts down the Manager"
            emit(logging.INFO, "shutdown_requested", text, peer.name, **about(peer))
            self._shutdown()
            await trio.sleep_forever()  # until the shutdown has come to an end, and cancels this
        result = await self._admin.answer(question, peer)
        if question.attribute in _CHANGE_RIGHTS:
            await self._change_rights(peer, question)
        return result

    async def _in_turn(
        self, peer: Peer, username: str, look: Callable[[], Awaitable[tuple[T, Outcome]]]
    ) -> T:
        """Check an attempt to log in when the throttle admits it.

        Args:
            peer: The peer.
            username: As whom it wants to log in.
            look: Returns the verdict and the outcome.

        Raises:
            Throttled: Too many logins have failed.
        """
        its_turn = trio.Event()
        attempt = self._logins.begin(peer.host.address, username, its_turn.set)
        outcome = Outcome.UNKNOWN
        try:
            if attempt.is_queued:
                await its_turn.wait()
            if attempt.retry_after:
                raise Throttled(peer.host.name, attempt.retry_after)
            verdict, outcome = await look()
            return verdict
        finally:
            attempt.end(outcome)

    async def _know(self, peer: Peer, question: UserCheck) -> tuple[bool, Outcome]:
        known = await self._database.is_known(question, peer.host.address)
        return known, Outcome.UNKNOWN if known else Outcome.FAILED

    async def _log_in(self, peer: Peer, question: LoginCheck) -> tuple[bool | None, Outcome]:
        user = await self._database.log_in(question, peer.host.address)
        if user is None:
            return None, Outcome.FAILED
        self._rights.grant(peer, user)
        return bool(user[4]), Outcome.SUCCEEDED

    async def _change_rights(self, peer: Peer, request: AdminRequest) -> None:
        """Apply a change of users or hosts to the connections that are open."""
        username = request.args[0] if request.args else request.kwargs.get("username")
        if request.attribute == "users_table.update" and username == peer.user:
            await self._rights.renew(peer)
        self._rights.change()
