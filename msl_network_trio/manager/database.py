"""Access of a running Manager to its database.

Calls run in worker threads, one at a time, and time out after `WAIT` seconds. Everything else runs in the
Trio thread; only the queue of records is used by both.
"""

from __future__ import annotations

import datetime as dt
import math
import os
import shlex
import sqlite3
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import trio

from msl_network_trio.exceptions import DatabaseError
from msl_network_trio.logger import get_logger
from msl_network_trio.manager.password_checks import PasswordChecks
from msl_network_trio.manager.tables import (
    IN_MEMORY,
    Database,
    User,
    cannot_be_used,
    is_readable_by_others,
    is_unusable,
)
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.pending_check import HostCheck, LoginCheck, UserCheck

logger = get_logger(__name__)

T = TypeVar("T")

WAIT = 10.0
"""Maximum seconds to wait for the database."""

_CLOSE_TIMEOUT = 3.0
"""Maximum seconds to wait for the database when the Manager ends."""

_REPORT_INTERVAL = 60.0
"""Seconds between reports of records that cannot be written."""

_RECORD_LIMIT = 10_000
"""Maximum records that wait to be written; beyond it the oldest are dropped."""


class ManagerDatabase:
    """Users, trusted hosts and the record of connections of a Manager.

    Args:
        path: The file; None: the default one; `IN_MEMORY`: none.
        max_records: Maximum records of connections to keep; None: all.

    Attributes:
        checks: Checks passwords.
    """

    def __init__(self, path: str | os.PathLike[str] | None, max_records: int | None = None) -> None:
        self._path = path
        self._max_records = max_records
        self._database: Database | None = None
        self._limiter = trio.CapacityLimiter(1)
        self.checks = PasswordChecks()
        self._keeps_records = path != IN_MEMORY
        self._records: deque[tuple[str, str, str, int, str]] = deque(maxlen=_RECORD_LIMIT)
        self._has_records = trio.Event()
        self._dropped = 0
        self._is_failing = False
        self._reported = -math.inf
        self._is_used = False
        self._is_closing = False

    async def open(self) -> None:
        """Open the database and make it if it does not exist.

        Raises:
            DatabaseError: It cannot be used.
        """
        path = await self.call(lambda database: database.path)
        logger.info("loaded the database %s", path)
        if await self.call(lambda database: is_readable_by_others(database.path)):
            logger.warning(
                "other users of this computer may read the database %s, including the hashes of passwords. "
                "To change that: chmod 600 %s",
                path,
                shlex.quote(path),
            )

    async def call(self, function: Callable[[Database], T]) -> T:
        """Call a function with the database in the worker thread.

        If the caller is cancelled or times out, the function may still be executed.

        Args:
            function: The function.

        Raises:
            DatabaseError: The database does not answer, or cannot be opened.
            Exception: An exception of the function.
        """

        def work() -> T:
            if self._is_closing:
                raise DatabaseError("the Manager has been shut down")
            if self._database is None:
                self._database = Database(self._path)
            try:
                return function(self._database)
            except sqlite3.Error as error:
                if is_unusable(error):
                    raise cannot_be_used(self._database.path, error) from error
                raise
            finally:
                if self._is_closing:  # close() may have timed out
                    self._close()

        self._is_used = True
        with trio.move_on_after(WAIT):
            return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
        raise DatabaseError(f"the database does not answer within {WAIT:g} seconds")

    async def close(self) -> None:
        """Write the records that wait, and close the database."""
        self._is_closing = True
        if not self._is_used:
            return  # no thread is started, which the clock of a test would not wait for
        with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            try:
                await trio.to_thread.run_sync(self._close, abandon_on_cancel=True, limiter=self._limiter)
            except sqlite3.Error as error:
                self._fail(error)

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            try:
                self._write_records(database)
            finally:
                database.close()

    # ---- authentication ----

    async def is_trusted(self, question: HostCheck) -> bool:
        """See `HostCheck`."""
        return await self.call(lambda database: database.hostnames.is_trusted(question.hostname))

    async def is_known(self, question: UserCheck, host: str) -> bool:
        """See `UserCheck`. For unknown users it takes as long as a password check.

        Args:
            question: The check.
            host: The IP address of the peer.

        Raises:
            DatabaseError: The database does not answer, or cannot be used.
            TryAgain: Too many password checks wait.
        """
        try:
            known = await self.call(lambda database: database.users.is_user_registered(question.username))
        except UnicodeEncodeError:
            known = False
        if not known:
            await self.checks.is_right(host, "", "", None, None)
        return known

    async def log_in(self, question: LoginCheck, host: str) -> User | None:
        """Return the user if the password is right, else None; raises errors as `is_known`."""
        user = await self.user(question.username)
        _, name, key, salt, _ = user or (0, "", None, None, False)
        return user if await self.checks.is_right(host, name, question.password, key, salt) else None

    async def user(self, username: str) -> User | None:
        """Return a user as stored now; None if there is no such user.

        Raises:
            DatabaseError: The database does not answer, or cannot be used.
        """
        return await self.call(lambda database: database.users.get_user(username))

    async def has_users(self) -> bool:
        """Return whether there are users."""
        return bool(await self.call(lambda database: database.users.usernames()))

    # ---- the record of connections ----

    def record(self, peer: Peer, message: str) -> None:
        """Record an event of a connection; it is written later.

        Args:
            peer: The peer.
            message: The event.
        """
        if not self._keeps_records:
            return
        now = dt.datetime.now().replace(microsecond=0).isoformat()
        if len(self._records) == _RECORD_LIMIT:
            self._dropped += 1
        self._records.append((now, peer.host.address, peer.host.domain, peer.port, message))
        self._has_records.set()

    async def write_records(self) -> None:
        """Write the records that wait.

        Raises:
            DatabaseError: The database does not answer, or cannot be written to.
        """
        await self.call(self._write_records)

    async def keep_records(self) -> None:
        """Write records as they are added; runs until cancelled."""
        while True:
            await self._has_records.wait()
            self._has_records = trio.Event()
            try:
                await self.write_records()
            except DatabaseError as error:
                self._fail(error)
            else:
                if self._is_failing:
                    text = "connections are recorded in the database again, %d records are lost"
                    logger.warning(text, self._dropped)
                self._is_failing, self._dropped = False, 0

    def _write_records(self, database: Database) -> None:
        # Taken in the thread, so that no record is lost if the caller is cancelled before it starts.
        records = []
        while self._records:
            records.append(self._records.popleft())
        if not records:
            return
        try:
            database.connections.insert_all(records, self._max_records)
        except sqlite3.Error:
            # Kept for the next attempt, within the limit.
            too_many = max(0, len(self._records) + len(records) - _RECORD_LIMIT)
            self._dropped += too_many
            self._records.extendleft(reversed(records[too_many:]))
            raise

    def _fail(self, error: Exception) -> None:
        now = trio.current_time()
        if not self._is_failing or now >= self._reported + _REPORT_INTERVAL:
            logger.error("connections cannot be recorded in the database: %s", error)
            self._reported = now
        self._is_failing = True


def reason(error: DatabaseError) -> str:
    """Return the reason of an error without the path of the database, for unauthenticated peers."""
    return str(error) if error.__cause__ is None else f"the database cannot be used: {error.__cause__}"
