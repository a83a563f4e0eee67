"""The database of a Manager that runs: used by a worker thread, one call after the other.

Nobody waits for it longer than `WAIT`, and what goes wrong with it is told to whom it concerns.
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
"""For how many seconds to wait for the database before who needs it is told that it does not answer."""

_LAST_WAIT = 3.0
"""The same when the Manager ends, in seconds."""

_REPORT_EVERY = 60.0
"""Seconds between reports that records cannot be written."""

_MOST_RECORDS = 10_000
"""How many records may wait to be written; then the oldest are dropped."""


class ManagerDatabase:
    """What a Manager looks up, and what it keeps.

    Args:
        path: The file; None: the default one; `IN_MEMORY`: none.
        max_records: How many rows to keep of who has connected; None: all.

    Attributes:
        checks: Checks passwords.
    """

    def __init__(self, path: str | os.PathLike[str] | None, max_records: int | None = None) -> None:
        self._path = path
        self._max_records = max_records
        self._database: Database | None = None
        self._one_at_a_time = trio.CapacityLimiter(1)
        self.checks = PasswordChecks()
        self._keeps_records = path != IN_MEMORY
        self._records: deque[tuple[str, str, str, int, str]] = deque(maxlen=_MOST_RECORDS)
        self._news = trio.Event()
        self._dropped = 0
        self._is_failing = False
        self._reported = -math.inf
        self._is_used = False
        self._is_closing = False

    async def open(self) -> None:
        """Open the database, which is made if it does not exist.

        Raises:
            DatabaseError: It cannot be used.
        """
        path = await self.call(lambda database: database.path)
        logger.info("loaded the database %s", path)
        if await self.call(lambda database: is_readable_by_others(database.path)):
            logger.warning(
                "other users of this computer may read the database %s, with all that it has of passwords. "
                "To change that: chmod 600 %s",
                path,
                shlex.quote(path),
            )

    async def call(self, function: Callable[[Database], T]) -> T:
        """Have the worker thread do something.

        If the caller is cancelled, or has waited too long, it may still be done.

        Args:
            function: What to do.

        Raises:
            DatabaseError: The database does not answer, or cannot be opened.
            Exception: What the function has raised.
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
                if self._is_closing:  # and perhaps nobody waits any more for this to have an end
                    self._close()

        self._is_used = True
        with trio.move_on_after(WAIT):
            return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._one_at_a_time)
        raise DatabaseError(f"the database does not answer within {WAIT:g} seconds")

    async def close(self) -> None:
        """Write what is to be kept, and close the database."""
        self._is_closing = True
        if not self._is_used:
            return  # without a thread, of which the clocks of tests know nothing
        with trio.move_on_after(_LAST_WAIT, shield=True):
            try:
                await trio.to_thread.run_sync(
                    self._close, abandon_on_cancel=True, limiter=self._one_at_a_time
                )
            except sqlite3.Error as error:
                self._fail(error)

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            try:
                self._write_records(database)
            finally:
                database.close()

    # ---- who is let in ----

    async def is_trusted(self, question: HostCheck) -> bool:
        """See `HostCheck`."""
        return await self.call(lambda database: database.hostnames.is_trusted(question.hostname))

    async def is_known(self, question: UserCheck, host: str) -> bool:
        """See `UserCheck`. It takes as long for those who are not known as to check a password.

        Args:
            question: What to find out.
            host: Where the question comes from: its IP address.

        Raises:
            DatabaseError: The database does not answer, or cannot be used.
            TryAgain: Too many passwords are to be checked.
        """
        try:
            known = await self.call(lambda database: database.users.is_user_registered(question.username))
        except UnicodeEncodeError:
            known = False
        if not known:
            await self.checks.is_right(host, "", "", None, None)
        return known

    async def log_in(self, question: LoginCheck, host: str) -> User | None:
        """Return the user if the password is right, else None; else as `is_known`."""
        user = await self.user(question.username)
        _, name, key, salt, _ = user or (0, "", None, None, False)
        return user if await self.checks.is_right(host, name, question.password, key, salt) else None

    async def user(self, username: str) -> User | None:
        """Return what the database says now of a user; None: there is none of that name.

        Raises:
            DatabaseError: The database does not answer, or cannot be used.
        """
        return await self.call(lambda database: database.users.get_user(username))

    async def has_users(self) -> bool:
        """Return whether anybody can log in."""
        return bool(await self.call(lambda database: database.users.usernames()))

    # ---- what is kept of connections ----

    def record(self, peer: Peer, message: str) -> None:
        """Keep what happened to a peer when it connected; it is written soon, and this does not wait for it.

        Args:
            peer: The peer.
            message: What happened.
        """
        if not self._keeps_records:
            return
        now = dt.datetime.now().replace(microsecond=0).isoformat()
        if len(self._records) == _MOST_RECORDS:
            self._dropped += 1
        self._records.append((now, peer.host.address, peer.host.domain, peer.port, message))
        self._news.set()

    async def write_records(self) -> None:
        """Write what is to be kept.

        Raises:
            DatabaseError: The database does not answer, or cannot be written to.
        """
        await self.call(self._write_records)

    async def keep_records(self) -> None:
        """Write what is to be kept whenever there is something, for ever."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
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
        # Taken here, in the thread, so that none is lost if who waits for this is cancelled before it begins.
        records = []
        while self._records:
            records.append(self._records.popleft())
        if not records:
            return
        try:
            database.connections.insert_all(records, self._max_records)
        except sqlite3.Error:
            # They are for the next time, unless there are too many.
            too_many = max(0, len(self._records) + len(records) - _MOST_RECORDS)
            self._dropped += too_many
            self._records.extendleft(reversed(records[too_many:]))
            raise

    def _fail(self, error: Exception) -> None:
        now = trio.current_time()
        if not self._is_failing or now >= self._reported + _REPORT_EVERY:
            logger.error("connections cannot be recorded in the database: %s", error)
            self._reported = now
        self._is_failing = True


def reason(error: DatabaseError) -> str:
    """Return what is wrong with a database, without where it is: for peers that are not let in yet."""
    return str(error) if error.__cause__ is None else f"the database cannot be used: {error.__cause__}"
