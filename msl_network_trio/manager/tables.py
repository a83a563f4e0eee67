"""The database of a Manager: users, trusted hosts, and a record of connections.

The SQLite file is that of msl-network 1.0.0, and both packages may use it at the same time. Methods have the
names, arguments and errors of msl-network, since administrators call them by name. All of them are blocking,
and are called by one thread at a time.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import socket
import sqlite3
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msl_network_trio.atomic_files import PRIVATE, write_new
from msl_network_trio.constants import database_file
from msl_network_trio.exceptions import DatabaseError
from msl_network_trio.manager.addresses import local_addresses
from msl_network_trio.manager.passwords import hash_password, is_password

IN_MEMORY = ":memory:"
"""The path of a database in memory, which exists until it is closed."""

User = tuple[int, str, bytes, bytes, bool]
"""A row of the table of users: number, name, key, salt, is_admin."""

_BUSY_TIMEOUT = 5.0
"""Maximum seconds to wait for locks of other programs."""

_COMPLETION_TIMEOUT = 0.2
"""Maximum seconds to wait for locks in tab completion."""

_DELETE_BATCH = 20_000
"""Maximum old records to delete at a time; more than are added at a time."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d")

_INVALID_USERNAME = re.compile(r":\d+$")


class Database:
    """An open database.

    Args:
        path: The file, made if it does not exist, readable only by its owner; None: the default one.

    Attributes:
        path: The file.
        users: The users.
        hostnames: The trusted hosts.
        connections: The record of connections.

    Raises:
        DatabaseError: The file cannot be opened, or is not a database of a Manager.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = str(database_file() if path is None else path)
        try:
            if self.path != IN_MEMORY:
                _make(Path(self.path))
            # Used by one thread at a time, but by different ones.
            self._connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise cannot_be_used(self.path, error) from error
        try:
            self.connections = ConnectionsTable(self.path, self._connection)
            self.hostnames = HostnamesTable(self.path, self._connection)
            self.users = UsersTable(self.path, self._connection)
        except sqlite3.Error as error:
            self._connection.close()
            raise cannot_be_used(self.path, error) from error

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Close the database.

        Raises:
            DatabaseError: The block has failed because of the database, for example because it is locked.
        """
        self.close()
        if isinstance(error, sqlite3.Error) and is_unusable(error):
            raise cannot_be_used(self.path, error) from error


def is_unusable(error: sqlite3.Error) -> bool:
    """Return whether an error is one of the database, and not of the code that uses it."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.ProgrammingError)


def cannot_be_used(path: str, error: Exception) -> DatabaseError:
    """Return the error for a database that cannot be used."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return DatabaseError(f"The database {path} cannot be used: {reason}")


def is_readable_by_others(path: str) -> bool:
    """Return whether other users may read the file. On Windows, the profile folder protects it."""
    return path != IN_MEMORY and sys.platform != "win32" and bool(Path(path).stat().st_mode & 0o077)


def glance(path: str | os.PathLike[str] | None, column: str, table: str) -> list[str]:
    """Return the values of a column, for tab completion; empty after an error or a short timeout.

    Args:
        path: The file; None: the default one.
        column: The name of the column.
        table: The name of the table.
    """
    file = database_file() if path is None else Path(path)
    try:
        uri = f"{file.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_COMPLETION_TIMEOUT)) as connection:
            return [str(value) for (value,) in connection.execute(f"SELECT {column} FROM {table};")]
    except (OSError, ValueError, sqlite3.Error):
        return []


class Table:
    """One table.

    Args:
        path: The file of the database.
        connection: The database.

    Attributes:
        path: The file of the database.
    """

    NAME = ""
    COLUMNS = ""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._change(f"CREATE TABLE IF NOT EXISTS {self.NAME} ({self.COLUMNS});")

    def tables(self) -> list[str]:
        """Return the names of all tables of the database."""
        rows = self._rows("SELECT name FROM sqlite_master WHERE type='table';")
        return sorted(name for (name,) in rows if name != "sqlite_sequence")

    def table_info(self, name: str) -> list[tuple[Any, ...]]:
        """Return the columns of a table.

        Returns:
            Tuples of number, name, type, not null, default, and primary key.
        """
        return self._rows("SELECT * FROM pragma_table_info(?);", name)

    def column_names(self, table_name: str) -> list[str]:
        """Return the names of the columns of a table."""
        return [column[1] for column in self.table_info(table_name)]

    def column_datatypes(self, table_name: str) -> list[str]:
        """Return the types of the columns of a table."""
        return [column[2] for column in self.table_info(table_name)]

    def _rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, parameters).fetchall()

    def _change(self, sql: str, *parameters: Any) -> int:
        """Execute a change and return the number of changed rows."""
        with self._connection:
            return self._connection.execute(sql, parameters).rowcount


class ConnectionsTable(Table):
    """The record of connections."""

    NAME = "connections"
    COLUMNS = (
        "pid INTEGER PRIMARY KEY AUTOINCREMENT, datetime DATETIME NOT NULL, ip_address TEXT NOT NULL, "
        "domain TEXT NOT NULL, port INTEGER NOT NULL, message TEXT NOT NULL"
    )

    def insert_all(
        self, records: Iterable[tuple[str, str, str, int, str]], at_most: int | None = None
    ) -> None:
        """Add records.

        Args:
            records: Tuples of date and time, IP address, full host name, port number, message.
            at_most: Maximum records to keep, the latest ones; None: all. Excess records are deleted in
                batches, so that a table that is very large already causes no long wait.
        """
        with self._connection:
            self._connection.executemany(
                f"INSERT INTO {self.NAME} VALUES(NULL, ?, ?, ?, ?, ?);",
                records,
            )
            if at_most is not None:
                # Numbers only increase and are never reused.
                self._connection.execute(
                    f"DELETE FROM {self.NAME} WHERE pid IN (SELECT pid FROM {self.NAME} WHERE pid <= "
                    f"(SELECT max(pid) FROM {self.NAME}) - ? ORDER BY pid LIMIT {_DELETE_BATCH});",
                    (at_most,),
                )

    def connections(
        self, *, start: dt.datetime | str | None = None, end: dt.datetime | str | None = None
    ) -> list[tuple[Any, ...]]:
        """Return the records of a period.

        Args:
            start: The first date and time, as text ``yyyy-mm-dd`` or ``yyyy-mm-ddTHH:MM:SS``; None: no limit.
            end: The last date and time, like `start`; a date alone is the beginning of that day.

        Returns:
            Tuples of number, date and time, IP address, full host name, port number, message.
        """
        return self.page(0, self.last_number(), -1, start=start, end=end)

    def last_number(self) -> int:
        """Return the number of the latest record; 0 if there is none."""
        [(number,)] = self._rows(f"SELECT max(pid) FROM {self.NAME};")
        return number or 0

    def page(
        self,
        after: int,
        last: int,
        count: int,
        *,
        start: dt.datetime | str | None = None,
        end: dt.datetime | str | None = None,
    ) -> list[tuple[Any, ...]]:
        """Return some records of a period, the oldest first.

        Args:
            after: Number of the record before the first one.
            last: Maximum number of a record.
            count: Maximum records; -1: all.
            start: See `connections`.
            end: See `connections`.
        """
        sql = f"SELECT * FROM {self.NAME} WHERE pid > ? AND pid <= ?"
        parameters: list[Any] = [after, last]
        for limit, comparison in ((start, ">="), (end, "<=")):
            if limit is not None:
                sql += f" AND datetime {comparison} ?"
                text = limit.isoformat() if isinstance(limit, dt.datetime) else _text(limit, "time")
                parameters.append(f"{text}T00:00:00" if _DATE.fullmatch(text) else text)
        return self._rows(f"{sql} ORDER BY pid LIMIT ?;", *parameters, count)


class HostnamesTable(Table):
    """The trusted hosts."""

    NAME = "auth_hostnames"
    COLUMNS = "hostname TEXT NOT NULL, UNIQUE(hostname)"

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        super().__init__(path, connection)
        if not self.hostnames():
            with self._connection:
                self._connection.executemany(
                    f"INSERT OR IGNORE INTO {self.NAME} VALUES(?);",
                    [(hostname,) for hostname in _names_of_this_computer()],
                )

    def insert(self, hostname: str) -> None:
        """Trust a host; idempotent.

        Raises:
            ValueError: The name is empty.
        """
        if not _text(hostname, "hostname"):
            raise ValueError("A hostname must not be empty")
        self._change(f"INSERT OR IGNORE INTO {self.NAME} VALUES(?);", hostname)

    def delete(self, hostname: str) -> None:
        """Remove a host from the trusted ones.

        Raises:
            ValueError: It is not trusted.
        """
        if not self._change(f"DELETE FROM {self.NAME} WHERE hostname = ?;", hostname):
            raise ValueError(f"Cannot delete {hostname!r}. This hostname is not in the table.")

    def hostnames(self) -> list[str]:
        """Return the names of the hosts that are trusted."""
        return sorted(name for (name,) in self._rows(f"SELECT hostname FROM {self.NAME};"))

    def is_trusted(self, hostname: str) -> bool:
        """Return whether a host is trusted."""
        return bool(self._rows(f"SELECT 1 FROM {self.NAME} WHERE hostname = ?;", hostname))


class UsersTable(Table):
    """The users."""

    NAME = "auth_users"
    COLUMNS = (
        "pid INTEGER PRIMARY KEY AUTOINCREMENT, username TEXT NOT NULL, key BLOB NOT NULL, "
        "salt BLOB NOT NULL, is_admin BOOLEAN NOT NULL, UNIQUE(username)"
    )

    def insert(self, username: str, password: str, is_admin: bool) -> None:
        """Add a user.

        Raises:
            ValueError: The user exists already, the name is invalid, or the password is empty.
        """
        _check_username(username)
        key, salt = hash_password(_checked_password(username, password))
        try:
            self._change(
                f"INSERT INTO {self.NAME} VALUES(NULL, ?, ?, ?, ?);", username, key, salt, bool(is_admin)
            )
        except sqlite3.IntegrityError:
            raise ValueError(f"A user with the name {username!r} already exists") from None

    def update(self, username: str, *, password: str | None = None, is_admin: bool | None = None) -> None:
        """Change the password or the administrator rights of a user.

        Raises:
            ValueError: There is no such user, nothing to change, or the password is empty.
        """
        self._check_exists(username, "update")
        if password is None and is_admin is None:
            raise ValueError("Must specify either the password and/or the admin rights when updating")
        changes: dict[str, Any] = {}
        if password is not None:
            changes["key"], changes["salt"] = hash_password(_checked_password(username, password))
        if is_admin is not None:
            changes["is_admin"] = bool(is_admin)
        columns = ", ".join(f"{column}=?" for column in changes)
        self._change(f"UPDATE {self.NAME} SET {columns} WHERE username=?;", *changes.values(), username)

    def delete(self, username: str) -> None:
        """Remove a user.

        Raises:
            ValueError: There is no such user.
        """
        self._check_exists(username, "delete")
        self._change(f"DELETE FROM {self.NAME} WHERE username = ?;", username)

    def get_user(self, username: str) -> User | None:
        """Return a user; None if there is no such user."""
        rows = self._rows(f"SELECT * FROM {self.NAME} WHERE username = ?;", username)
        return rows[0] if rows else None

    def records(self) -> list[User]:
        """Return all users."""
        return self._rows(f"SELECT * FROM {self.NAME};")

    def usernames(self) -> list[str]:
        """Return the names of all users."""
        return [name for (name,) in self._rows(f"SELECT username FROM {self.NAME};")]

    def users(self) -> list[tuple[str, bool]]:
        """Return the names of all users, each with is_admin."""
        rows = self._rows(f"SELECT username, is_admin FROM {self.NAME};")
        return sorted((name, bool(is_admin)) for name, is_admin in rows)

    def is_user_registered(self, username: str) -> bool:
        """Return whether there is such a user."""
        return self.get_user(username) is not None

    def is_password_valid(self, username: str, password: str) -> bool:
        """Return whether a password is that of a user."""
        user = self.get_user(username)
        _, _, key, salt, _ = user or (0, "", None, None, False)
        return is_password(_text(password, "password"), key, salt)

    def is_admin(self, username: str) -> bool:
        """Return whether a user exists and is an administrator."""
        user = self.get_user(username)
        return user is not None and bool(user[4])

    def check_can_be(self, username: str, *, is_new: bool) -> None:
        """Check that a user can be added, or exists.

        Args:
            username: The name of the user.
            is_new: Whether the user is to be added.

        Raises:
            ValueError: The user cannot be added, or does not exist.
        """
        if is_new:
            _check_username(username)
            if self.is_user_registered(username):
                raise ValueError(f"A user with the name {username!r} already exists")
        else:
            self._check_exists(username, "update")

    def _check_exists(self, username: str, action: str) -> None:
        if not self.is_user_registered(username):
            raise ValueError(f"Cannot {action} {username!r}. This user is not in the table.")


def _make(path: Path) -> None:
    """Make an empty file that only its owner may read."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, b"", mode=PRIVATE)


def _names_of_this_computer() -> set[str]:
    """Return the names and addresses of this computer in connections to itself."""
    hostname = socket.gethostname()
    return {
        hostname,
        "localhost",
        "127.0.0.1",
        "::1",
        "1." + "0." * 31 + "ip6.arpa",
        "1.0.0.127.in-addr.arpa",
        *(str(address) for address in local_addresses(hostname) if address.version == 4),
    }


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"A {what} is text, not {type(value).__name__}")
    return value


def _check_username(username: str) -> None:
    if not _text(username, "username"):
        raise ValueError("A username must not be empty")
    if _INVALID_USERNAME.search(username):
        raise ValueError('A username cannot end with ":<integer>"')


def _checked_password(username: str, password: str) -> str:
    if not password:
        raise ValueError(f"You must specify a password for {username!r}")
    return _text(password, "password")
