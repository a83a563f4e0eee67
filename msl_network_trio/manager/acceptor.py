"""How peers come in by the network: TLS, WebSocket, and the name of their host."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Collection
from typing import Any

import attrs
import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.logger import get_logger
from msl_network_trio.manager.hostnames import Hostnames
from msl_network_trio.manager.unauthenticated import PoolEntry, UnauthenticatedPool
from msl_network_trio.protocol.manager.peer import Host, Peer
from msl_network_trio.protocol.manager.protocol import ManagerProtocol
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.listening import IncomingConnection
from msl_network_trio.transport.tls_handshake import HandshakeTimeout, TlsServer
from msl_network_trio.web.http_server import HttpServer

logger = get_logger(__name__)


class Acceptor:
    """Accepts connections.

    Args:
        protocol: The Manager's conversations, for what there is to log and to count.
        unauthenticated: Where peers are until they are admitted.
        context: With what connections are secured; None: there is no TLS.
        tls_timeout: How many seconds a TLS handshake may take.
        serve: Serves a peer: a transport, the host, the port, and who it is in the unauthenticated.
        trusted_gateways: The IP addresses of hosts that tell the address of who is behind them: gateways, in
            the first line of a connection, and proxies of WebSockets, in ``X-Forwarded-For``.
    """

    def __init__(
        self,
        protocol: ManagerProtocol,
        unauthenticated: UnauthenticatedPool,
        context: ssl.SSLContext | None,
        tls_timeout: float,
        serve: Callable[[Stream, Host, int, PoolEntry], Any],
        *,
        trusted_gateways: Collection[str] = (),
    ) -> None:
        self._trusted_gateways = trusted_gateways
        self._protocol = protocol
        self._unauthenticated = unauthenticated
        self._tls = None if context is None else TlsServer(context, tls_timeout)
        self._serve = serve
        self._hostnames = Hostnames()

    def use_context(self, context: ssl.SSLContext) -> None:
        """Secure the connections that are accepted from now on with another context."""
        assert self._tls is not None  # else there is no certificate
        self._tls.context = context

    @trio.lowlevel.enable_ki_protection
    async def accept(
        self, nursery: trio.Nursery, http_server: HttpServer | None, incoming: IncomingConnection
    ) -> None:
        """Let a connection in that was accepted.

        Args:
            nursery: Where it is served.
            http_server: Through which it comes, if by WebSocket.
            incoming: The connection.
        """
        try:
            await self._let_in(nursery, http_server, incoming)
        except Exception:
            # A mistake of ours. It must not cost other peers their connections.
            logger.exception("a connection failed before it was served")

    async def _let_in(
        self, nursery: trio.Nursery, http_server: HttpServer | None, incoming: IncomingConnection
    ) -> None:
        address = incoming.address
        with trio.CancelScope() as entering:
            entry = self._unauthenticated.enter(address, lambda _reason: entering.cancel())
            host = upgrade = None
            try:
                transport: Stream | None = await self._open(incoming)
                if transport is not None and http_server is not None:
                    upgrade = await http_server.read_upgrade(transport)
                    if upgrade is None:
                        return
                    transport = await http_server.open_websocket(
                        transport, address, upgrade, nursery.start_soon
                    )
                if transport is not None:
                    host = await self._host_of(transport, address, incoming.own_address)
                    if host.address in self._trusted_gateways:
                        # A proxy passes on what is said in a WebSocket as it is: no line of it counts.
                        is_gateway = attrs.evolve(host, is_gateway=True)
                        host = is_gateway if upgrade is None else host.behind(upgrade.forwarded_for)
                    # In a task of its own: what has led here need not be kept, nor gone through every time.
                    nursery.start_soon(self._serve, transport, host, incoming.port, entry)
            finally:
                if host is None:
                    self._unauthenticated.leave(entry)

    async def _host_of(self, transport: Stream, address: str, own_address: str) -> Host:
        """Return the computer at the other end; the transport is closed if that fails."""
        try:
            return await self._hostnames.host(address, own_address)
        except BaseException:
            transport.close()
            raise

    async def _open(self, incoming: IncomingConnection) -> Stream | None:
        try:
            return await incoming.open(self._tls)
        except ConnectionLost as error:
            address = incoming.address
            nobody = Peer(Host(address, address, address, address), incoming.port)
            text, why = "no TLS connection with %s: %s", str(error)
            if isinstance(error, HandshakeTimeout):
                why += " (tls_timeout)"
                self._protocol.hits["tls_timeout"] += 1
            self._protocol.event_log.write(
                nobody, logging.INFO, "no_tls", text, nobody.address, why, reason=why
            )
            return None
