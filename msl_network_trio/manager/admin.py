"""Admin requests: their names, and how they are answered.

Runs in the Trio thread, in the task of the administrator; the database and large answers use worker threads.

Names, arguments and results are those of the attributes of msl-network 1.0.0's Manager, whose administrators
can reach whatever Python can. Left out is what is of no use from afar (streams, cursors), and what would harm
the Manager: SQL statements, and closing its database. ``disconnect_peer``, ``release_locks`` and ``status``
are additions.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import trio

from msl_network_trio.hidden import reveal
from msl_network_trio.manager.database import ManagerDatabase
from msl_network_trio.manager.large_answers import ListOfPages, Spool, encode_large, is_small
from msl_network_trio.manager.settings import ManagerSettings
from msl_network_trio.manager.status import Status
from msl_network_trio.manager.tables import ConnectionsTable, Database, Table
from msl_network_trio.protocol.manager.answers import Encoded
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.pending_check import AdminRequest
from msl_network_trio.protocol.manager.protocol import ManagerProtocol
from msl_network_trio.service.logging_level import set_logging_level

_PAGE: Final = 500
"""Rows of connections per page, which takes some milliseconds."""

_LARGE_ANSWERS: Final = 2
"""Maximum large answers that are encoded at the same time."""

_NAMES: Final = 2000
"""Names to collect before other tasks run."""

_TIMES: Final = inspect.Signature(
    list(inspect.signature(ConnectionsTable.connections).parameters.values())[1:]
)
"""The signature of `ConnectionsTable.connections`."""

_OF_EVERY_TABLE: Final = frozenset(
    {"NAME", "path", "tables", "table_info", "column_names", "column_datatypes"}
)

_TABLES: Final[dict[str, tuple[Callable[[Database], Table], frozenset[str]]]] = {
    "users_table": (
        lambda database: database.users,
        _OF_EVERY_TABLE
        | {
            "delete",
            "get_user",
            "insert",
            "is_admin",
            "is_password_valid",
            "is_user_registered",
            "records",
            "update",
            "usernames",
            "users",
        },
    ),
    "hostnames_table": (
        lambda database: database.hostnames,
        _OF_EVERY_TABLE | {"delete", "hostnames", "insert"},
    ),
    "connections_table": (
        lambda database: database.connections,
        _OF_EVERY_TABLE | {"connections"},
    ),
}

_NOT_TO_BE_SENT: Final = {
    "client_writers": "StreamWriter",
    "service_writers": "StreamWriter",
    "users_table": "UsersTable",
    "hostnames_table": "HostnamesTable",
    "connections_table": "ConnectionsTable",
}
"""Attributes of msl-network's Manager that cannot be sent, and their types, which the error names."""


class AdminRequests:
    """Answers admin requests.

    Args:
        settings: The settings of the Manager.
        port: The port of the Manager.
        protocol: The Manager's protocol.
        database: The database.
        status: The status of the Manager.
        reload_certificate: Loads key and certificate again.
        dismiss: Closes the connection of a peer, for a reason, and waits until it is disconnected.
    """

    def __init__(
        self,
        settings: ManagerSettings,
        port: int,
        protocol: ManagerProtocol,
        database: ManagerDatabase,
        status: Status,
        *,
        reload_certificate: Callable[[], Awaitable[Any]],
        dismiss: Callable[[Peer, str], Awaitable[None]],
    ) -> None:
        self._dismiss = dismiss
        self._database = database
        self._values: dict[str, Callable[[], Any]] = {
            "clients": lambda: protocol.identity()["clients"],
            "login": lambda: settings.auth_login or None,
            "password": lambda: reveal(settings.auth_password),
            "port": lambda: port,
            "services": lambda: protocol.identity()["services"],
            "status": status.tell,
        }
        self._awaited: dict[str, Callable[[], Awaitable[Any]]] = {
            "hostnames": self._hostnames,
            "reload_certificate": reload_certificate,
            "service_links": self._service_links,
            "service_locks": self._service_locks,
        }
        self._actions: dict[str, Callable[..., Any]] = {
            "release_locks": protocol.registry.release_locks,
            "set_logging_level": set_logging_level,
        }
        self._uses_hostnames = settings.auth_hostname
        self._registry = protocol.registry
        self._large = trio.CapacityLimiter(_LARGE_ANSWERS)

    async def answer(self, request: AdminRequest, asking: Peer) -> Any:
        """Return the result of a request, `Encoded` if it is large.

        Args:
            request: The request.
            asking: The peer of the administrator.

        Raises:
            AttributeError: There is no such request.
            TypeError: The value cannot be sent.
            Exception: Any other error of the request.
        """
        result = await self._find(request, asking)
        if isinstance(result, Encoded) or is_small(result):
            return result
        return await trio.to_thread.run_sync(
            encode_large, result, abandon_on_cancel=True, limiter=self._large
        )

    async def _find(self, request: AdminRequest, asking: Peer) -> Any:
        owner, _, name = request.attribute.partition(".")
        if name and owner in _TABLES:
            return await self._of_table(owner, name, request)
        if request.attribute in self._values:
            return self._values[request.attribute]()
        if request.attribute == "disconnect_peer":
            return await self._disconnect_peer(asking, *request.args, **request.kwargs)
        if request.attribute in self._awaited:
            return await self._awaited[request.attribute]()
        if request.attribute in self._actions:
            return self._actions[request.attribute](*request.args, **request.kwargs)
        if request.attribute in _NOT_TO_BE_SENT:
            kind = _NOT_TO_BE_SENT[request.attribute]
            raise TypeError(f"Object of type {kind} is not JSON serializable")
        raise AttributeError(f"'Manager' object has no attribute {request.attribute!r}")

    async def _disconnect_peer(self, asking: Peer, peer: str) -> list[str]:
        """Close the connection of a peer, and return its network name.

        Args:
            asking: The peer of the administrator.
            peer: The network name or address of the peer, or the name of a Service.

        Raises:
            TypeError: It is no text.
            ValueError: There is no such peer, or it is the one that asks.
        """
        if not isinstance(peer, str):
            raise TypeError(f"The peer must be text, not {type(peer).__name__}")
        found = [
            each
            for each in self._registry.peers.values()
            if each.is_called(peer) or (each.service and each.service == peer)
        ]
        if not found:
            raise ValueError(
                f"No peer is connected as {peer!r}: give name[HOST:port], HOST:port or a Service"
            )
        if asking in found:
            raise ValueError(f"{peer!r} is the connection of this request; it can be closed without one")
        for each in found:
            await self._dismiss(each, f"{asking.name}, an administrator, has closed this connection")
        return [each.name for each in found]

    async def _service_links(self) -> dict[str, list[str]]:
        return await self._names_by_service(lambda service: service.links)

    async def _service_locks(self) -> dict[str, list[str]]:
        return await self._names_by_service(lambda service: service.locks)

    async def _hostnames(self) -> list[str] | None:
        if not self._uses_hostnames:
            return None
        return await self._database.call(lambda database: database.hostnames.hostnames())

    async def _of_table(self, owner: str, name: str, request: AdminRequest) -> Any:
        get_table, names = _TABLES[owner]
        if owner == "connections_table":
            await self._database.write_records()
        if request.attribute == "connections_table.connections":
            return await self._connections(request)

        def answer(database: Database) -> Any:
            table = get_table(database)
            if name not in names:
                raise AttributeError(f"{type(table).__name__!r} object has no attribute {name!r}")
            attribute = getattr(table, name)
            result = attribute(*request.args, **request.kwargs) if callable(attribute) else attribute
            if request.attribute == "users_table.get_user":
                return result and _without_secrets(result)
            if request.attribute == "users_table.records":
                return [_without_secrets(user) for user in result]
            return result

        return await self._database.call(answer)

    async def _connections(self, request: AdminRequest) -> Encoded:
        """Return the rows of connections, of which there may be a million.

        They are read and encoded page by page in the worker thread of the database, which is free for others
        after each page.
        """
        try:
            times = _TIMES.bind(*request.args, **request.kwargs).kwargs
        except TypeError as error:
            raise TypeError(f"ConnectionsTable.connections(): {error}") from None
        last = await self._database.call(lambda database: database.connections.last_number())
        spool = Spool()
        rows = ListOfPages(spool)

        def add_page(database: Database) -> int:
            page = database.connections.page(after, last, _PAGE, **times)
            rows.add(page)
            return page[-1][0] if len(page) == _PAGE else last

        async with self._large:
            try:
                after = 0
                while True:
                    after = await self._database.call(add_page)
                    if after >= last:
                        break
                rows.end()
                return spool.take()
            except BaseException:
                spool.close()
                raise

    async def _names_by_service(self, peers: Callable[[Peer], Iterable[Peer]]) -> dict[str, list[str]]:
        """Return the names of peers by Service. There may be millions, so other tasks run meanwhile."""
        result: dict[str, list[str]] = {}
        count = 0
        for name, service in [*self._registry.services.items()]:
            result[name] = sorted(peer.name for peer in peers(service))
            count += 1 + len(result[name])
            if count > _NAMES:
                count = 0
                await trio.lowlevel.checkpoint()
        return result


def _without_secrets(user: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a user without key and salt, which are bytes: msl-network answers with an error instead."""
    number, username, _, _, is_admin = user
    return number, username, None, None, bool(is_admin)
