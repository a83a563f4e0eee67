"""A gateway: one connection to a Manager for each WebSocket, and nothing else."""

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
from msl_network_trio.protocol.manager.admission import IDENTITY_LIMIT
from msl_network_trio.protocol.manager.peer import Host
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.listening import IncomingConnection, Listener, listen_tcp
from msl_network_trio.transport.tcp_connect import open_tcp
from msl_network_trio.transport.tls_handshake import TlsServer
from msl_network_trio.web.http_server import HttpServer, Upgrade

logger = get_logger(__name__)

_TLS_TIMEOUT = 10.0
"""How many seconds a TLS handshake may take."""

_CONNECT_TIMEOUT = 10.0
"""How many seconds it may take to connect to the Manager."""

_FIRST_LINE_LIMIT = 65_536
"""More bytes than the first line of a Manager has."""

_UNAUTHENTICATED_LIMIT = 200
"""How many connections may be that have not asked for a WebSocket yet, as in a Manager."""

_CONNECTION_LIMIT = 5_000
"""How many connections to the Manager there may be, as there may be peers of a Manager."""

_LOGIN_ATTEMPTS = 10
"""Failed logins of a user of one host, as in a Manager."""

_LOGIN_MEMORY = 60.0
"""Seconds after which a failed login is forgotten."""


class Gateway:
    """A gateway that runs, as `open_gateway` gives it.

    Attributes:
        manager: The address of the Manager, ``"host:port"``.
        port: The number of its port.
        certificate: The file with the certificate that clients have to trust; None without TLS.
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
            buffer_limit=2 * IDENTITY_LIMIT,  # until the visitor has said who it is, see relay()
        )
        self._lobby = UnauthenticatedPool(_UNAUTHENTICATED_LIMIT)
        self._logins = LoginThrottle(_LOGIN_ATTEMPTS, _LOGIN_MEMORY, 0, trio.current_time)
        self._connected = 0
        self._may_ask = True
        # Shielded, as in Manager.
        self._scope = trio.CancelScope(shield=True)
        self._nursery: trio.Nursery

    @trio.lowlevel.enable_ki_protection
    async def check_manager(self) -> None:
        """Connect once, before anybody does, to find out what would not work.

        A Manager that is not there may come. One that lets us in without a question is warned of.

        Raises:
            CertificateError: Its certificate is not trusted.
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
                "Manager[%s] asks this computer for no password. If it was started with --auth-hostname, "
                "everybody who reaches this gateway is trusted: to it, all of them are this computer.",
                self.manager,
            )

    @trio.lowlevel.enable_ki_protection
    async def run(self, listener: Listener) -> None:
        """Serve those who connect, until `shutdown`."""
        with self._scope:
            async with trio.open_nursery() as self._nursery:
                await listener.serve(self._accept, self._nursery)

    def shutdown(self) -> None:
        """End it, and all connections. Calling it again does no harm."""
        self._scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def _accept(self, incoming: IncomingConnection) -> None:
        try:
            await self._serve(incoming)
        except Exception:
            # A mistake of ours. It must not cost others their connections.
            logger.exception("a connection failed")

    async def _serve(self, incoming: IncomingConnection) -> None:
        address, port = incoming.address, incoming.port
        carrier = upgrade = None
        entering = trio.CancelScope()
        visitor = self._lobby.enter(address, lambda _: entering.cancel())
        try:
            with entering:
                carrier = await self._open(incoming)
                upgrade = None if carrier is None else await self._http_server.read_upgrade(carrier)
        finally:
            self._lobby.leave(visitor)
        if carrier is None or upgrade is None:
            return
        address = plain(address)
        if address in self._trusted_proxies:
            address = Host(address, address, address, address).behind(upgrade.forwarded_for).address
        if self._connected >= _CONNECTION_LIMIT:
            logger.warning("%s:%d cannot be connected: there are %d already", address, port, self._connected)
            await self._http_server.refuse(carrier, "There are too many connections.")
            return
        self._connected += 1
        try:
            await self._connect(carrier, upgrade, address, port)
        finally:
            self._connected -= 1

    async def _connect(self, carrier: Stream, upgrade: Upgrade, address: str, port: int) -> None:
        """Connect a peer to the Manager, until one of them has gone."""
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
        """Connect to the Manager.

        Raises:
            ConnectError: It cannot be reached.
            CertificateError: Its certificate is not trusted.
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
            return await dial()  # a person may have to be asked, who takes as long as it takes
        with trio.move_on_after(_CONNECT_TIMEOUT):
            return await dial()
        raise ConnectTimeout(f"Cannot connect to {self.manager} within {_CONNECT_TIMEOUT:g} seconds")

    async def _ask(self, certificate: Certificate) -> bool:
        """Ask whether to trust the Manager's certificate: when we start, and if there is a person to ask."""
        if self._may_ask and sys.stdin is not None and sys.stdin.isatty():
            return await TerminalPrompts().trust(certificate)
        raise CertificateError(
            f"The certificate of the Manager at {self.manager} is not known on this computer (SHA-256 "
            f"{certificate.fingerprint}). Pass the file of its certificate as --manager-cert-file "
            "(manager_cert_file), or --manager-auto-save (manager_auto_save) to trust it from now on."
        )

    def __repr__(self) -> str:
        return f"<Gateway port={self.port} manager={self.manager}>"


class GatewayContext:
    """What `open_gateway` returns, to be entered with ``async with``."""

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
        # Not with 'async with', so that what the body raises comes out as it is, in no group.
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
    """Run a gateway for the length of an ``async with`` block: WebSocket in front of a Manager, of any kind.

    Each WebSocket gets a connection of its own to the Manager, and what is said there is passed on as it is,
    authentication included. To the Manager all of them come from this computer.

    Args:
        manager: The address of the Manager, ``"host:port"``.
        host: The host name or address at which to listen; None: at all addresses of this computer.
        port: The port at which to listen; 0: any free one.
        origins: The origins whose pages may connect, besides our own; see `open_manager`.
        disable_tls: Whether to do without TLS on this side: behind a proxy that has it, for example.
        cert_file: The certificate of this side (PEM). If neither it nor `key_file` is given, the one of a
            Manager on this computer is used, and made if there is none.
        key_file: The private key (PEM) of the certificate.
        key_file_password: What the private key is encrypted with, or a file with that in its first line.
        manager_disable_tls: Whether the Manager does without TLS.
        manager_cert_file: The Manager's certificate, or that of the CA that signed it. None: the one that was
            saved for its host; if there is none, a person at the terminal is asked when the gateway starts.
        manager_assert_hostname: Whether the Manager's certificate must be for its host.
        manager_auto_save: Trust, and save, a certificate of the Manager that is new, without asking.
        trusted_proxies: The proxies in front of this gateway, by name or address: what they say in
            ``X-Forwarded-For`` counts as the address of a visitor, by which failed logins are counted.
        read_limit: The largest message to accept, in bytes; None: no limit.
        stalled_after: For how many seconds an end may take nothing of what waits for it.

    Raises:
        OSError: The port is in use, the host is none of this computer, or a file cannot be used.
        CertificateError: The Manager's certificate is not trusted, or our own one cannot be used.
        ValueError: An argument makes no sense.
    """
    key_file_password = hide(key_file_password)  # so that no crash report shows it
    settings = GatewaySettings(**locals())
    split_address(manager, PORT)
    HttpServer(origins=origins)
    if isinstance(trusted_proxies, str):
        raise TypeError("trusted_proxies must be a list of hosts, not text")
    return GatewayContext(settings)
