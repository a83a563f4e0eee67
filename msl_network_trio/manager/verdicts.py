"""What the Manager's protocol cannot decide by what it knows: the database knows, or the Manager does."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Any

import trio

from msl_network_trio.constants import SHUTDOWN_MANAGER
from msl_network_trio.exceptions import DatabaseError
from msl_network_trio.manager.admin import AdminRequests
from msl_network_trio.manager.database import ManagerDatabase, reason
from msl_network_trio.protocol.peer import Peer
from msl_network_trio.protocol.records import about, emit
from msl_network_trio.protocol.verdicts import AdminRequest, KnowUser, LogIn, TrustHost, Undecided
from msl_network_trio.visible import visible

logger = logging.getLogger(__name__)


class Verdicts:
    """Reaches the verdicts that peers wait for.

    Args:
        database: Who may connect.
        admin: Answers the requests of administrators.
        shutdown: Has the Manager end.
    """

    def __init__(self, database: ManagerDatabase, admin: AdminRequests, shutdown: Callable[[], None]) -> None:
        self._database = database
        self._admin = admin
        self._shutdown = shutdown

    async def reach(self, peer: Peer, question: Undecided) -> Any:
        """Find out what the protocol wants to know, or return the exception because of which nobody can."""
        try:
            return await self._look_up(peer, question)
        except DatabaseError as error:
            logger.error("%s waits for the database in vain: %s", visible(peer.name), error)  # noqa: TRY400 - no mistake of ours
            return error if isinstance(question, AdminRequest) else RuntimeError(reason(error))
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
            sqlite3.Error,
        ) as error:
            if not isinstance(question, AdminRequest):
                # A mistake of ours, of which the peer can make nothing. An administrator has made its own.
                logger.exception("%s waits for a verdict in vain", visible(peer.name))
            return error

    async def _look_up(self, peer: Peer, question: Undecided) -> Any:
        match question:
            case TrustHost():
                return await self._database.is_trusted(question)
            case KnowUser():
                return await self._database.is_known(question)
            case LogIn():
                return await self._database.log_in(question)
        if question.attribute == SHUTDOWN_MANAGER:
            text = "%s, an administrator, shuts down the Manager"
            emit(logging.INFO, "shutdown_requested", text, peer.name, **about(peer))
            self._shutdown()
            await trio.sleep_forever()  # until the shutdown has come to an end, and cancels this
        return await self._admin.answer(question)
