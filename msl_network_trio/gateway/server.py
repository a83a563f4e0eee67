"""The gateway server: a WebSocket front end of a Manager, with one upstream connection per WebSocket.

All tasks run in one Trio loop, and share no state but counters and throttles: no lock is needed, but for TLS
handshakes, of which one runs at a time.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path

import trio

from msl_network_trio.constants import PORT, WEBSOCKET_PORT
from msl_network_trio.dialing.prompts import TerminalPrompts
from msl_network_trio.dialing.trust import Certificate, open_trusted
from msl_network_trio.exception_groups import leave_nursery
from msl_network_trio.exceptions import CertificateError, ConnectionLost, ConnectTimeout, NetworkError
from msl_network_trio.gateway.handshake_proxy import HandshakeProxy
from msl_network_trio.gateway.relay import relay
from msl_network_trio.gateway.settings import READ_LIMIT, STALLED_AFTER, GatewaySettings, split_address
from msl_network_trio.hidden import hide
from msl_network_trio.limits.login_throttle import LoginThrottle
from msl_network_trio.logger import get_logger
from msl_network_trio.manager.certificates import server_context
from msl_network_trio.manager.gateways import addresses_of, plain
from msl_network_trio.manager.unauthenticated import UnauthenticatedPool
from msl_network_trio.protocol.manager.admission import FULL_RETRY_AFTER, IDENTITY_LIMIT
from msl_network_trio.protocol.manager.peer import Host
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.listening import IncomingConnection, Listener, listen_tcp
from msl_network_trio.transport.tcp_connect import open_tcp
from msl_network_trio.transport.tls_handshake import TlsServer
from msl_network_trio.web.http_server import HttpServer, Upgrade

logger = get_logger(__name__)

_TLS_TIMEOUT = 10.0
"""Maximum seconds for a TLS handshake."""

_CONNECT_TIMEOUT = 10.0
"""Maximum seconds to connect to the Manager."""

_FIRST_LINE_LIMIT = 65_536
"""Bytes after which the search for the first line of a Manager ends."""

_UNAUTHENTICATED_LIMIT = 200
"""Maximum connections without a WebSocket yet, as in a Manager."""

_CONNECTION_LIMIT = 5_000
"""Maximum connections to the Manager, equal to the default ``max_connections`` of a Manager."""

_LOGIN_ATTEMPTS = 10
"""Maximum failed logins per user and host, as in a Manager."""

_LOGIN_MEMORY = 60.0
"""Seconds after which a failed login is forgotten."""


class Gateway:
    """A running gateway, as `open_gateway` returns it.

    Attributes:
        manager: The address of the Manager, ``"host:port"``.
        port: The port on which the gateway listens.
        certificate: The file with the certificate that clients must trust; None without TLS.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        port: int,
        context: ssl.SSLContext | None,
        certificate: Path | None,
        trusted_proxies: Collection[str],
    ) -> None:
        self._trusted_proxies = trusted_proxies
        self.port = port
        self.certificate = certificate
        self._settings = settings
        self._tls = None if context is None else TlsServer(context, _TLS_TIMEOUT)
        host, self._manager_port = split_address(settings.manager, PORT)
        self._manager_host = host or "localhost"
        self.manager = f"{self._manager_host}:{self._manager_port}"
        self._http_server = HttpServer(
            origins=settings.origins,
            read_limit=settings.read_limit,
            buffer_limit=2 * IDENTITY_LIMIT,  # until the end of the handshake; relay() lifts it
        )
        self._unauthenticated = UnauthenticatedPool(_UNAUTHENTICATED_LIMIT)
        self._logins = LoginThrottle(_LOGIN_ATTEMPTS, _LOGIN_MEMORY, 0, trio.current_time)
        self._connected = 0
        self._may_ask = True
        # Shielded, as in Manager: only shutdown() ends it.
        self._scope = trio.CancelScope(shield=True)
        self._nursery: trio.Nursery

    @trio.lowlevel.enable_ki_protection
    async def check_manager(self) -> None:
        """Connect to the Manager once at start, and report what would not work.

        A Manager that cannot be reached is logged only, since it may start later. A Manager that trusts this
        host without a password is warned about.

        Raises:
            CertificateError: The certificate of the Manager is not trusted.
        """
        try:
            upstream = await self._dial()
        except CertificateError:
            raise
        except NetworkError as error:
            logger.warning("the Manager cannot be reached yet: %s", error)
            return
        finally:
            self._may_ask = False
        received = b""
        try:
            with trio.move_on_after(_CONNECT_TIMEOUT):
                while b"\n" not in received and len(received) < _FIRST_LINE_LIMIT:
                    data = await upstream.receive()
                    if not data:
                        break
                    received += data
        except ConnectionLost as error:
            logger.warning("the Manager closes the connection: %s", error)
        finally:
            upstream.close()
        if b'"identity"' in received:
            logger.warning(
                "Manager[%s] asks this computer for no password. If it was started with --auth-hostname, it "
                "trusts all peers behind this gateway, since all of them have the address of this computer.",
                self.manager,
            )

    @trio.lowlevel.enable_ki_protection
    async def run(self, listener: Listener) -> None:
        """Serve connections until `shutdown`."""
        with self._scope:
            async with trio.open_nursery() as self._nursery:
                await listener.serve(self._accept, self._nursery)

    def shutdown(self) -> None:
        """Stop the gateway and close all connections; idempotent."""
        self._scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def _accept(self, incoming: IncomingConnection) -> None:
        try:
            await self._serve(incoming)
        except Exception:
            # A bug in one connection must not end the others.
            logger.exception("a connection failed")

    async def _serve(self, incoming: IncomingConnection) -> None:
        address, port = incoming.address, incoming.port
        carrier = upgrade = None
        handshake_scope = trio.CancelScope()
        connection = self._unauthenticated.add(address, lambda _: handshake_scope.cancel())
        try:
            with handshake_scope:
                carrier = await self._open(incoming)
                upgrade = None if carrier is None else await self._http_server.read_upgrade(carrier)
        finally:
            self._unauthenticated.remove(connection)
        if carrier is None or upgrade is None:
            return
        address = plain(address)
        if address in self._trusted_proxies:
            address = Host(address, address, address, address).behind(upgrade.forwarded_for).address
        if self._connected >= _CONNECTION_LIMIT:
            logger.warning("%s:%d cannot be connected: there are %d already", address, port, self._connected)
            await self._http_server.refuse(carrier, "There are too many connections.", int(FULL_RETRY_AFTER))
            return
        self._connected += 1
        try:
            await self._connect(carrier, upgrade, address, port)
        finally:
            self._connected -= 1

    async def _connect(self, carrier: Stream, upgrade: Upgrade, address: str, port: int) -> None:
        """Connect a peer to the Manager, and relay until one of the two closes its connection."""
        try:
            upstream = await self._dial()
        except NetworkError as error:
            logger.warning("%s:%d cannot be connected: %s", address, port, error)
            await self._http_server.refuse(carrier, f"There is no connection to the Manager: {error}")
            return
        except BaseException:
            carrier.close()
            raise
        try:
            websocket = await self._http_server.open_websocket(
                carrier, address, upgrade, self._nursery.start_soon
            )
        except BaseException:
            upstream.close()
            raise
        if websocket is None:
            upstream.close()
            return
        logger.info("%s:%d is connected to the Manager, as port %d", address, port, upstream.port)
        handshake = HandshakeProxy(address, self._logins)
        end = await relay(websocket, upstream, self._settings.stalled_after, handshake)
        logger.info("%s:%d is not connected any more: %s", address, port, end.reason)

    async def _open(self, incoming: IncomingConnection) -> Stream | None:
        try:
            return await incoming.open(self._tls)
        except ConnectionLost as error:
            logger.info("no TLS connection with %s:%d: %s", incoming.address, incoming.port, error)
            return None

    async def _dial(self) -> Stream:
        """Open a connection to the Manager.

        Raises:
            ConnectError: The Manager cannot be reached.
            CertificateError: The certificate of the Manager is not trusted.
        """
        settings = self._settings
        dial: Callable[[], Awaitable[Stream]]
        if settings.manager_disable_tls:
            dial = partial(open_tcp, self._manager_host, self._manager_port)
        else:
            dial = partial(
                open_trusted,
                self._manager_host,
                self._manager_port,
                cert_file=settings.manager_cert_file,
                assert_hostname=settings.manager_assert_hostname,
                auto_save=settings.manager_auto_save,
                ask=self._ask,
            )
        if self._may_ask:
            return await dial()  # no timeout while a prompt is open
        with trio.move_on_after(_CONNECT_TIMEOUT):
            return await dial()
        raise ConnectTimeout(f"Cannot connect to {self.manager} within {_CONNECT_TIMEOUT:g} seconds")

    async def _ask(self, certificate: Certificate) -> bool:
        """Prompt whether to trust the Manager's certificate, at start and on a terminal only."""
        if self._may_ask and sys.stdin is not None and sys.stdin.isatty():
            return await TerminalPrompts().trust(certificate)
        raise CertificateError(
            f"The certificate of the Manager at {self.manager} is not trusted yet (SHA-256 "
            f"{certificate.fingerprint}). Pass the file of its certificate as --manager-cert-file "
            "(manager_cert_file), or --manager-auto-save (manager_auto_save) to trust it from now on."
        )

    def __repr__(self) -> str:
        return f"<Gateway port={self.port} manager={self.manager}>"


class GatewayContext:
    """The context manager that `open_gateway` returns."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._gateway: Gateway | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Gateway:
        settings = self._settings
        listener = await listen_tcp(settings.host or None, settings.port)
        try:
            context, certificate = await self._secure()
            proxies = await addresses_of(settings.trusted_proxies)
            self._gateway = Gateway(settings, listener.port, context, certificate, proxies)
            await self._gateway.check_manager()
        except BaseException:
            listener.close()
            raise
        # Entered by hand: 'async with' would wrap exceptions of the body into a group.
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        nursery.start_soon(self._gateway.run, listener, name=repr(self._gateway))
        return self._gateway

    async def _secure(self) -> tuple[ssl.SSLContext | None, Path | None]:
        settings = self._settings
        if settings.disable_tls:
            return None, None
        make = partial(
            server_context,
            host=settings.host or None,
            cert_file=settings.cert_file,
            key_file=settings.key_file,
            key_file_password=settings.key_file_password,
        )
        return await trio.to_thread.run_sync(make)

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, *_: object) -> None:
        assert self._gateway is not None
        self._gateway.shutdown()
        await leave_nursery(self._nursery)


def open_gateway(
    *,
    manager: str = f"localhost:{PORT}",
    host: str | None = None,
    port: int = WEBSOCKET_PORT,
    origins: Collection[str] = (),
    disable_tls: bool = False,
    cert_file: str | os.PathLike[str] | None = None,
    key_file: str | os.PathLike[str] | None = None,
    key_file_password: str | None = None,
    manager_disable_tls: bool = False,
    manager_cert_file: str | os.PathLike[str] | None = None,
    manager_assert_hostname: bool = True,
    manager_auto_save: bool = False,
    trusted_proxies: Collection[str] = (),
    read_limit: int | None = READ_LIMIT,
    stalled_after: float = STALLED_AFTER,
) -> GatewayContext:
    """Run a WebSocket gateway in front of a Manager for the duration of an ``async with`` block.

    The Manager may be that of msl-network. Each WebSocket gets a connection of its own to the Manager, and
    lines are passed on unchanged, including the authentication. To the Manager, all peers have the address of
    the gateway.

    Args:
        manager: The address of the Manager, ``"host:port"``.
        host: The host name or address to listen on; None: all addresses of this computer.
        port: The port to listen on; 0: any free port.
        origins: The origins whose pages may connect, besides the gateway's own page; see `open_manager`.
        disable_tls: Whether to listen without TLS, behind a proxy that terminates TLS for example.
        cert_file: The gateway's certificate (PEM). If neither it nor `key_file` is given, the certificate of
            a Manager on this computer is used, and created if it is missing.
        key_file: The private key (PEM) of the certificate.
        key_file_password: The password of the private key, or the path of a file whose first line it is.
        manager_disable_tls: Whether to connect to the Manager without TLS.
        manager_cert_file: The Manager's certificate, or that of the CA that signed it. None: the certificate
            saved for its host; if there is none, the gateway prompts on the terminal when it starts.
        manager_assert_hostname: Whether the Manager's certificate must name its host.
        manager_auto_save: Whether to trust and save an unknown certificate of the Manager without asking.
        trusted_proxies: Names or addresses of the proxies whose ``X-Forwarded-For`` gives the address of a
            peer, by which failed logins are counted.
        read_limit: Maximum size of a message, in bytes; None: no limit.
        stalled_after: Seconds in which a peer or the Manager reads none of its queued data before it is
            disconnected.

    Raises:
        OSError: The port is in use, the host is not this computer, or a file cannot be used.
        CertificateError: The Manager's certificate is not trusted, or the gateway's own cannot be used.
        ValueError: An argument is invalid.
    """
    key_file_password = hide(key_file_password)  # so that no crash report shows it
    settings = GatewaySettings(**locals())
    split_address(manager, PORT)
    HttpServer(origins=origins)
    if isinstance(trusted_proxies, str):
        raise TypeError("trusted_proxies must be a list of hosts, not text")
    return GatewayContext(settings)
