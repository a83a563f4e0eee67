"""Acceptor: takes new connections through TLS, WebSocket and the lookup of their host.

Runs in the Trio thread, in one task per connection until the peer loop begins.
"""

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
        protocol: The Manager's protocol, for its log and its counters.
        unauthenticated: The connections of peers that are not admitted yet.
        context: The TLS context; None: there is no TLS.
        tls_timeout: Maximum seconds of a TLS handshake.
        serve: Serves a peer by its stream, host, port and entry among the unauthenticated connections.
        trusted_gateways: The IP addresses of hosts that are trusted to state the address of the peers behind
            them: gateways in the first line of a connection, proxies of WebSockets in ``X-Forwarded-For``.
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
        """Use another TLS context for the connections that are accepted from now on."""
        assert self._tls is not None  # else there is no certificate
        self._tls.context = context

    @trio.lowlevel.enable_ki_protection
    async def accept(
        self, nursery: trio.Nursery, http_server: HttpServer | None, incoming: IncomingConnection
    ) -> None:
        """Open a connection and start its peer loop.

        Args:
            nursery: Runs the peer loop.
            http_server: Upgrades the connection to a WebSocket; None: it is used as it is.
            incoming: The connection.
        """
        try:
            await self._accept(nursery, http_server, incoming)
        except Exception:
            # An error of this program. It must not cost other peers their connections.
            logger.exception("a connection failed before it was served")

    async def _accept(
        self, nursery: trio.Nursery, http_server: HttpServer | None, incoming: IncomingConnection
    ) -> None:
        address = incoming.address
        with trio.CancelScope() as handshake:
            entry = self._unauthenticated.add(address, lambda _reason: handshake.cancel())
            host = upgrade = None
            try:
                stream: Stream | None = await self._open(incoming)
                if stream is not None and http_server is not None:
                    upgrade = await http_server.read_upgrade(stream)
                    if upgrade is None:
                        return
                    stream = await http_server.open_websocket(stream, address, upgrade, nursery.start_soon)
                if stream is not None:
                    host = await self._host_of(stream, address, incoming.own_address)
                    if host.address in self._trusted_gateways:
                        # A proxy forwards a WebSocket as it is: no line in it states an address.
                        is_gateway = attrs.evolve(host, is_gateway=True)
                        host = is_gateway if upgrade is None else host.behind(upgrade.forwarded_for)
                    # A task of its own, whose stack does not keep that of the handshake.
                    nursery.start_soon(self._serve, stream, host, incoming.port, entry)
            finally:
                if host is None:
                    self._unauthenticated.remove(entry)

    async def _host_of(self, stream: Stream, address: str, own_address: str) -> Host:
        """Return the host at the other end; the stream is closed if that fails."""
        try:
            return await self._hostnames.host(address, own_address)
        except BaseException:
            stream.close()
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
