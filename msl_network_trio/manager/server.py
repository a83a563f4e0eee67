"""The Manager: assembles protocol, peer loops and database, and runs their tasks until the shutdown.

Runs in the Trio thread.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Collection
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import trio

from msl_network_trio import ended_managers
from msl_network_trio.dialing.local_identity import language, operating_system
from msl_network_trio.exceptions import CertificateError, ConnectionLost
from msl_network_trio.hidden import reveal
from msl_network_trio.manager.acceptor import Acceptor
from msl_network_trio.manager.admin import AdminRequests
from msl_network_trio.manager.certificate_in_use import CertificateInUse, LoadedCertificate
from msl_network_trio.manager.certificates import server_context
from msl_network_trio.manager.checks import Checks
from msl_network_trio.manager.database import ManagerDatabase
from msl_network_trio.manager.peer_loop import PeerLoops
from msl_network_trio.manager.replacing import Replacing
from msl_network_trio.manager.rights import Rights
from msl_network_trio.manager.settings import ManagerSettings
from msl_network_trio.manager.status import Status
from msl_network_trio.manager.unauthenticated import UnauthenticatedPool
from msl_network_trio.protocol.manager.event_log import emit
from msl_network_trio.protocol.manager.peer import Host, Peer
from msl_network_trio.protocol.manager.protocol import ManagerProtocol
from msl_network_trio.transport.listening import Listener
from msl_network_trio.transport.memory import MemoryStream, memory_pair
from msl_network_trio.web.http_server import HttpServer

_FLUSH_TIMEOUT = 0.5
"""Seconds for peers to read the last lines at the end of the Manager."""


class Manager:
    """A running Manager, see `open_manager`.

    Attributes:
        name: Its network name, ``"Manager[HOST:port]"``.
        port: Its port; 0 if it is in memory.
        websocket_port: Its port for WebSocket and HTTP; None if it has none.
        certificate: The file with the certificate that clients have to trust; None without TLS.
        closed: Set when it is shut down and all its tasks have ended.
    """

    def __init__(  # noqa: PLR0917 - called by ManagerOpening only
        self,
        settings: ManagerSettings,
        port: int,
        pair: LoadedCertificate | None,
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
        # Shielded, since only shutdown() ends it: the exception of a cancellation from outside would replace
        # that of the block of `open_manager`.
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
                pair, partial(make_context, settings), self._acceptor.use_context
            )

    async def _dismiss(self, peer: Peer, reason: str) -> None:
        await self._peer_loops.dismiss(peer, reason)

    async def _reset(self, peer: Peer, reason: str) -> None:
        await self._peer_loops.reset(peer, reason)

    @property
    def host(self) -> str:
        """The host to reach it from this computer."""
        host = self._settings.host
        return "localhost" if host in {None, "", "0.0.0.0", "::"} else str(host)

    def identity(self) -> dict[str, Any]:
        """Return its identity with its clients and Services, as it answers the ``identity`` request."""
        return self._protocol.identity()

    def status(self) -> dict[str, Any]:
        """Return its status, as it answers the admin request ``status``."""
        return self._status.tell()

    async def reload_certificate(self) -> dict[str, Any]:
        """Read key and certificate from their files again, and use them for new connections.

        Open connections are not affected.

        Returns:
            The file of the ``certificate``, its SHA-256 ``fingerprint``, and when it ``expires`` (ISO 8601).

        Raises:
            CertificateError: They cannot be used, and the previous ones stay in use; or there is no TLS.
        """
        if self._certificate is None:
            raise CertificateError(f"{self.name} does without TLS, and has no certificate to load")
        return await self._certificate.reload()

    def connect_kwargs(self, transport: Literal["tcp", "websocket"] = "tcp") -> dict[str, Any]:
        """Return the arguments of `connect` and `Service.run` to reach it from this computer.

        Args:
            transport: The kind of its port.

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
        """Open a connection in memory, as ``connect(transport=manager.dial)`` does.

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
        """Shut the Manager down: every peer gets a last line, and its connection is closed. Idempotent.

        Args:
            drain: Maximum seconds to wait until no request is open; new ones are refused meanwhile. None: the
                argument of `open_manager`.
        """
        if drain is not None:
            self._drain = drain
        self._peer_loops.is_ending = True
        self._listening.cancel()

    async def wait_closed(self) -> None:
        """Wait until it is shut down and all its tasks have ended."""
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
                            await trio.sleep_forever()  # in memory there are no listeners
                    await self._end()
                    self._nursery.cancel_scope.cancel()
        finally:
            self._protocol.event_log.close()
            await self._database.close()
            self.closed.set()

    async def _end(self) -> None:
        """Wait for open requests, and close all connections."""
        protocol = self._protocol
        if self._drain and not protocol.is_quiet:
            emit(
                logging.INFO,
                "draining",
                "waiting at most %g s for the replies to open requests",
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
        self._unauthenticated.evict_all(f"{self.name} is shutting down")
        self._peer_loops.flush()
        await self._peer_loops.wait_none_left(_FLUSH_TIMEOUT)


def make_context(settings: ManagerSettings) -> tuple[ssl.SSLContext, Path]:
    """Load key and certificate of a Manager; blocking."""
    return server_context(
        host=settings.host,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
        key_file_password=settings.key_file_password,
    )
