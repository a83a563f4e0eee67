"""The Manager: a hub that Services and clients connect to."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Collection
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, Unpack

import trio

from msl_network_trio import ended_managers
from msl_network_trio.constants import PORT
from msl_network_trio.dialing.local_identity import language, operating_system
from msl_network_trio.exception_groups import leave_nursery
from msl_network_trio.exceptions import AuthenticationError, CertificateError, ConnectionLost
from msl_network_trio.hidden import hide, reveal
from msl_network_trio.manager.acceptor import Acceptor
from msl_network_trio.manager.admin import AdminRequests
from msl_network_trio.manager.certificate_in_use import CertificateInUse, Pair, load
from msl_network_trio.manager.certificates import server_context
from msl_network_trio.manager.checks import Checks
from msl_network_trio.manager.database import ManagerDatabase
from msl_network_trio.manager.gateways import addresses_of
from msl_network_trio.manager.peer_loop import PeerLoops
from msl_network_trio.manager.replacing import Replacing
from msl_network_trio.manager.rights import Rights
from msl_network_trio.manager.settings import Limits, ManagerSettings
from msl_network_trio.manager.status import Status
from msl_network_trio.manager.tables import IN_MEMORY
from msl_network_trio.manager.unauthenticated import UnauthenticatedPool
from msl_network_trio.protocol.manager.admission import IDENTITY_LIMIT
from msl_network_trio.protocol.manager.event_log import emit
from msl_network_trio.protocol.manager.peer import Host, Peer
from msl_network_trio.protocol.manager.protocol import ManagerProtocol
from msl_network_trio.transport.listening import Listener, listen_tcp
from msl_network_trio.transport.memory import MemoryStream, memory_pair
from msl_network_trio.web.http_server import HttpServer

_LAST_WORDS = 0.5
"""How many seconds peers have at the end of the Manager to read what it says last."""


class Manager:
    """A Manager that runs, as `open_manager` gives it.

    Attributes:
        name: What it calls itself, ``"Manager[HOST:port]"``.
        port: The number of its port; 0 if it runs in memory.
        websocket_port: The number of its port for WebSocket and HTTP; None if it has none.
        certificate: The file with the certificate that clients have to trust; None without TLS.
        closed: Set when it has been shut down and nothing of it runs any more.
    """

    def __init__(  # noqa: PLR0917 - nobody else makes one
        self,
        settings: ManagerSettings,
        port: int,
        pair: Pair | None,
        database: ManagerDatabase,
        websocket_port: int | None = None,
        trusted_gateways: Collection[str] = (),
    ) -> None:
        self.name = f"Manager[{socket.gethostname()}:{port}]"
        self.port = port
        self.websocket_port = websocket_port
        self.certificate = None if pair is None else pair.path
        self._settings = settings
        self._memory_ports = count(1)
        # Shielded, since only shutdown() ends it: with what a cancellation from outside would raise here,
        # what the block of `open_manager` itself raises would be lost.
        self._scope = trio.CancelScope(shield=True)
        self._listening = trio.CancelScope()
        self._drain = settings.drain
        self._unauthenticated = UnauthenticatedPool(settings.max_unauthenticated)
        self._nursery: trio.Nursery
        self._started = trio.Event()
        self.closed = trio.Event()
        self._protocol = ManagerProtocol(
            self.name,
            {
                "hostname": socket.gethostname(),
                "port": port,
                "attributes": {"identity": "() -> dict", "link": "(service: str) -> bool"},
                "language": language(),
                "os": operating_system(),
            },
            authentication=settings.authentication,
            record=database.record,
            read_limit=settings.read_limit,
            max_backlog=settings.max_backlog,
            max_connections=settings.max_connections,
            max_links=settings.max_links,
            max_requests=settings.max_requests,
            notification_rate=settings.notification_rate,
            login_attempts=settings.login_attempts,
            login_memory=settings.login_memory,
            login_delay=settings.login_delay,
            replaces=settings.replace_after is not None,
            clock=trio.current_time,
        )
        self._database = database
        self._status = Status(settings, self._protocol, self._unauthenticated)
        admin = AdminRequests(
            settings,
            port,
            self._protocol,
            database,
            self._status,
            dismiss=self._dismiss,
            reload_certificate=self.reload_certificate,
        )
        replacing = Replacing(settings.replace_after, self._protocol, self._reset)
        self._rights = Rights(settings, self._protocol, database)
        self._checks = Checks(
            database, self._protocol.logins, self._rights, admin, replacing, shutdown=self.shutdown
        )
        self._peer_loops = PeerLoops(
            settings, self._protocol, self._unauthenticated, self._status, self._checks.run
        )
        context = None if pair is None else pair.context
        self._acceptor = Acceptor(
            self._protocol,
            self._unauthenticated,
            context,
            settings.tls_timeout,
            self._peer_loops.serve,
            trusted_gateways=trusted_gateways,
        )
        self._certificate = None
        if pair is not None:
            self._certificate = CertificateInUse(
                pair, partial(_make_context, settings), self._acceptor.use_context
            )

    async def _dismiss(self, peer: Peer, reason: str) -> None:
        await self._peer_loops.dismiss(peer, reason)

    async def _reset(self, peer: Peer, reason: str) -> None:
        await self._peer_loops.reset(peer, reason)

    @property
    def host(self) -> str:
        """The host at which it is reached from this computer."""
        host = self._settings.host
        return "localhost" if host in {None, "", "0.0.0.0", "::"} else str(host)

    def identity(self) -> dict[str, Any]:
        """Who it is and who is connected to it, as it answers the ``identity`` request."""
        return self._protocol.identity()

    def status(self) -> dict[str, Any]:
        """How it is doing, as it answers the admin request ``status``."""
        return self._status.tell()

    async def reload_certificate(self) -> dict[str, Any]:
        """Read key and certificate from their files again, and use them for new connections.

        Connections that are open go on with what they have.

        Returns:
            The file of the ``certificate``, its SHA-256 ``fingerprint``, and when it ``expires`` (ISO 8601).

        Raises:
            CertificateError: They cannot be used, and those that are in use stay so; or there is no TLS.
        """
        if self._certificate is None:
            raise CertificateError(f"{self.name} does without TLS, and has no certificate to load")
        return await self._certificate.reload()

    def connect_kwargs(self, transport: Literal["tcp", "websocket"] = "tcp") -> dict[str, Any]:
        """The arguments with which `connect` and `Service.run` reach it from this computer.

        Args:
            transport: By which of its ports.

        Raises:
            ValueError: It has no port for WebSocket.
        """
        kwargs: dict[str, Any] = {"host": self.host}
        if transport == "websocket":
            if self.websocket_port is None:
                raise ValueError(f"{self.name} has no websocket_port")
            kwargs.update(transport=transport, port=self.websocket_port)
        elif self._settings.in_memory:
            kwargs["transport"] = self.dial
        else:
            kwargs["port"] = self.port
        if self.certificate is None:
            kwargs["disable_tls"] = True
        else:
            kwargs["cert_file"] = str(self.certificate)
        if self._settings.auth_password is not None:
            kwargs["password_manager"] = reveal(self._settings.auth_password)
        return kwargs

    @trio.lowlevel.enable_ki_protection
    async def dial(self) -> MemoryStream:
        """Open a connection in memory; what ``connect(transport=manager.dial)`` calls.

        Raises:
            ConnectionLost: The Manager has been shut down.
        """
        await self._started.wait()
        if self._listening.cancel_called:
            raise ConnectionLost(f"{self.name} has been shut down")
        theirs, ours = memory_pair()
        theirs.port = next(self._memory_ports)
        host = Host(socket.gethostname(), "127.0.0.1", "localhost", "localhost")
        self._nursery.start_soon(self._peer_loops.serve, ours, host, theirs.port)
        return theirs

    def shutdown(self, drain: float | None = None) -> None:
        """End it: every peer is told so, and sees its connection closed. Calling it again does no harm.

        Args:
            drain: For how many seconds to wait, at the most, until no request waits for its answer; new ones
                are refused meanwhile. None: what `open_manager` was told.
        """
        if drain is not None:
            self._drain = drain
        self._peer_loops.is_ending = True
        self._listening.cancel()

    async def wait_closed(self) -> None:
        """Wait until it has been shut down and nothing of it runs any more."""
        await self.closed.wait()

    def __repr__(self) -> str:
        state = "closed" if self.closed.is_set() else f"{len(self._protocol.registry.peers)} peers"
        return f"<{self.name} {state}>"

    # ---- the tasks ----

    @trio.lowlevel.enable_ki_protection
    async def run(self, listeners: Collection[tuple[Listener, HttpServer | None]]) -> None:
        """Serve peers until `shutdown`.

        Args:
            listeners: The listeners, each with the HTTP server of its WebSockets; None: its connections are
                used as they are.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    self._started.set()
                    self._status.begin()
                    self._nursery.start_soon(self._database.keep_records)
                    self._database.checks.open(self._nursery)
                    self._nursery.start_soon(self._rights.enforce, self._peer_loops.flush)
                    self._peer_loops.open(self._nursery)
                    if self._certificate is not None:
                        self._nursery.start_soon(self._certificate.report_expiry)
                    with self._listening:
                        async with trio.open_nursery() as listening:
                            for listener, http_server in listeners:
                                accept = partial(self._acceptor.accept, self._nursery, http_server)
                                listening.start_soon(listener.serve, accept, self._nursery)
                            await trio.sleep_forever()  # in memory there is nothing to listen to
                    await self._end()
                    self._nursery.cancel_scope.cancel()
        finally:
            self._protocol.event_log.close()
            await self._database.close()
            self.closed.set()

    async def _end(self) -> None:
        """Let requests that wait be answered, and say goodbye."""
        protocol = self._protocol
        if self._drain and not protocol.is_quiet:
            emit(
                logging.INFO,
                "draining",
                "waiting for open requests to be answered, for %g s at the most",
                self._drain,
                seconds=self._drain,
            )
            quiet = trio.Event()
            protocol.refuse_requests(quiet.set)
            with trio.move_on_after(self._drain):
                await quiet.wait()
        services = protocol.registry.services.values()
        ended_managers.add(self.name, [peer.name for peer in services])
        protocol.say_goodbye()
        self._unauthenticated.close(f"{self.name} is shutting down")
        self._peer_loops.flush()
        await self._peer_loops.wait_none_left(_LAST_WORDS)


class ManagerOpening:
    """What `open_manager` returns, to be entered with ``async with``."""

    def __init__(self, settings: ManagerSettings) -> None:
        self._settings = settings
        self._manager: Manager | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Manager:
        settings = self._settings
        http_server = HttpServer(
            origins=settings.websocket_origins,
            read_limit=settings.read_limit,
            buffer_limit=2 * IDENTITY_LIMIT,  # until a peer has said who it is, see PeerLoops
        )
        listener = None if settings.in_memory else await listen_tcp(settings.host, settings.port)
        web_listener: Listener | None = None
        database = ManagerDatabase(_database(settings), settings.max_records)
        try:
            if settings.websocket_port is not None:
                web_listener = await listen_tcp(settings.host, settings.websocket_port)
            gateways = await addresses_of(settings.trusted_gateways)
            pair = await self._secure()
            await _open(database, settings)
        except BaseException:
            for opened in (listener, web_listener):
                if opened is not None:
                    opened.close()
            await database.close()
            raise
        listeners: list[tuple[Listener, HttpServer | None]] = []
        if listener is not None:
            listeners.append((listener, None))
        if web_listener is not None:
            listeners.append((web_listener, http_server))
        port = 0 if listener is None else listener.port
        websocket_port = None if web_listener is None else web_listener.port
        self._manager = Manager(settings, port, pair, database, websocket_port, gateways)
        # Not with 'async with', so that what the body raises comes out as it is, in no group.
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        nursery.start_soon(self._manager.run, listeners, name=self._manager.name)
        return self._manager

    async def _secure(self) -> Pair | None:
        if self._settings.disable_tls or self._settings.in_memory:
            return None
        return await trio.to_thread.run_sync(load, partial(_make_context, self._settings))

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, *_: object) -> None:
        assert self._manager is not None
        self._manager.shutdown()
        await leave_nursery(self._nursery)


def _make_context(settings: ManagerSettings) -> tuple[ssl.SSLContext, Path]:
    """Load key and certificate; blocking."""
    return server_context(
        host=settings.host,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
        key_file_password=settings.key_file_password,
    )


def _database(settings: ManagerSettings) -> str | os.PathLike[str] | None:
    """The database of a Manager. One in memory leaves nothing behind, unless it was told to."""
    return IN_MEMORY if settings.in_memory and settings.database is None else settings.database


async def _open(database: ManagerDatabase, settings: ManagerSettings) -> None:
    if settings.in_memory and settings.database is None and not settings.auth_login:
        return  # it is opened when it is needed
    await database.open()
    if settings.auth_login and not await database.has_users():
        raise AuthenticationError(
            "The 'auth_users' table of the database is empty, no one could log in. "
            'To add a user run the "msl-network-trio user" command.'
        )


def open_manager(
    *,
    host: str | None = None,
    port: int = PORT,
    websocket_port: int | None = None,
    websocket_origins: Collection[str] = (),
    auth_hostname: bool = False,
    auth_login: bool = False,
    auth_password: str | None = None,
    database: str | os.PathLike[str] | None = None,
    disable_tls: bool = False,
    cert_file: str | os.PathLike[str] | None = None,
    key_file: str | os.PathLike[str] | None = None,
    key_file_password: str | None = None,
    in_memory: bool = False,
    alone: bool = False,
    trusted_gateways: Collection[str] = (),
    drain: float = 0.0,
    **limits: Unpack[Limits],
) -> ManagerOpening:
    """Run a Manager for the length of an ``async with`` block, at whose end every connection is closed.

    Args:
        host: The host name or address at which to listen; None: at all addresses of this computer.
        port: The port at which to listen; 0: any free one.
        websocket_port: The port at which to listen for WebSocket, and to show a page to browsers; 0: any free
            one; None: none. Whoever connects there is served like those at the other port.
        websocket_origins: The origins, such as ``"https://lab.example"``, whose pages may connect, besides
            those of the host and port that they connect to; ``"*"``: all of them.
        auth_hostname: Whether only trusted hosts may connect: those in the database.
        auth_login: Whether who connects has to log in as a user that is in the database.
        auth_password: The password that every peer has to know; None: none. Without any of these three there
            is no authentication.
        database: The file of the database, which is made if it does not exist; None: the one in the folder
            that is shared with msl-network, or, if the Manager is in memory, none.
        disable_tls: Whether to do without TLS.
        cert_file: The certificate (PEM). If neither it nor `key_file` is given, key and certificate are kept
            in the folder that is shared with msl-network, and made there if they do not exist.
        key_file: The private key (PEM) of the certificate.
        key_file_password: What the private key is encrypted with, or a file with that in its first line.
        in_memory: Whether to have no network at all: peers connect with ``transport=manager.dial``.
        alone: Whether nothing else runs in this event loop. Then the Manager is faster: it may stop the loop
            for up to three milliseconds while it waits for the next line.
        trusted_gateways: The hosts, by name or address, whose word counts for the address of who is behind
            them: gateways (see `open_gateway`), and proxies in front of `websocket_port`, which have to set
            ``X-Forwarded-For``.
        drain: For how many seconds to wait at the end, at the most, until no request waits for its answer.
        limits: What to put up with, see `Limits`.

    Raises:
        OSError: The port is in use, the host is none of this computer, or a file cannot be used.
        AuthenticationError: Users have to log in, and there are none.
        ValueError: An argument makes no sense.
    """
    # So that a traceback with the values of variables, as crash reports have it, shows no secrets.
    auth_password, key_file_password = hide(auth_password), hide(key_file_password)
    return ManagerOpening(
        ManagerSettings(
            host=host,
            port=port,
            websocket_port=websocket_port,
            websocket_origins=websocket_origins,
            auth_hostname=auth_hostname,
            auth_login=auth_login,
            auth_password=auth_password,
            database=database,
            disable_tls=disable_tls,
            cert_file=cert_file,
            key_file=key_file,
            key_file_password=key_file_password,
            in_memory=in_memory,
            alone=alone,
            trusted_gateways=trusted_gateways,
            drain=drain,
            **limits,
        )
    )
