"""The Manager: a hub that Services and clients connect to."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import ssl
from collections.abc import Collection
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, Unpack

import trio

from msl_network_trio.client.connecting import language, operating_system
from msl_network_trio.constants import PORT, SHUTDOWN_MANAGER
from msl_network_trio.exceptions import AuthenticationError, ConnectionLost, DatabaseError
from msl_network_trio.manager.admin import AdminRequests
from msl_network_trio.manager.certificates import server_context
from msl_network_trio.manager.connection import PeerConnection
from msl_network_trio.manager.database import ManagerDatabase, reason
from msl_network_trio.manager.hostnames import Hostnames
from msl_network_trio.manager.lobby import Lobby, Visitor
from msl_network_trio.manager.settings import Limits, ManagerSettings
from msl_network_trio.manager.status import Status
from msl_network_trio.manager.tables import IN_MEMORY
from msl_network_trio.protocol.admission import IDENTITY_LIMIT
from msl_network_trio.protocol.manager import BUSY, TURN, ManagerProtocol
from msl_network_trio.protocol.records import about, emit
from msl_network_trio.protocol.registry import Host, Peer
from msl_network_trio.protocol.verdicts import AdminRequest, KnowUser, LogIn, TrustHost, Undecided
from msl_network_trio.transport.base import Transport
from msl_network_trio.transport.listening import open_listeners
from msl_network_trio.transport.memory import MemoryTransport, memory_pair
from msl_network_trio.transport.tcp import SocketTransport, take_socket
from msl_network_trio.transport.tls import accept_tls
from msl_network_trio.web.door import Door

logger = logging.getLogger(__name__)

_SECRETS = frozenset({"password", "username", "login password"})
"""What peers are asked for that they may guess."""

_LAST_WORDS = 0.5
"""How many seconds peers have at the end of the Manager to read what it says last."""

_LAST_LINGER = 0.1
"""How many seconds the Manager waits at its end for a peer to close the connection."""


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
        context: ssl.SSLContext | None,
        certificate: Path | None,
        database: ManagerDatabase,
        websocket_port: int | None = None,
    ) -> None:
        self.name = f"Manager[{socket.gethostname()}:{port}]"
        self.port = port
        self.websocket_port = websocket_port
        self.certificate = certificate
        self._settings = settings
        self._context = context
        self._hostnames = Hostnames()
        self._memory_ports = count(1)
        # Shielded, since only shutdown() ends it: with what a cancellation from outside would raise here,
        # what the block of `open_manager` itself raises would be lost.
        self._scope = trio.CancelScope(shield=True)
        self._listening = trio.CancelScope()
        self._drain = settings.drain
        self._quiet: trio.Event | None = None
        self._connections = 0
        self._all_gone = trio.Event()
        self._lobby = Lobby(settings.max_unauthenticated)
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
            clock=trio.current_time,
        )
        self._database = database
        self._status = Status(settings, self._protocol, self._lobby)
        self._admin = AdminRequests(settings, port, self._protocol, database, self._status)

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
            kwargs["password_manager"] = self._settings.auth_password
        return kwargs

    async def dial(self) -> MemoryTransport:
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
        self._nursery.start_soon(self._serve, ours, host, theirs.port)
        return theirs

    def shutdown(self, drain: float | None = None) -> None:
        """End it: every peer is told so, and sees its connection closed. Calling it again does no harm.

        Args:
            drain: For how many seconds to wait, at the most, until no request waits for its answer; new ones
                are refused meanwhile. None: what `open_manager` was told.
        """
        if drain is not None:
            self._drain = drain
        self._listening.cancel()

    async def wait_closed(self) -> None:
        """Wait until it has been shut down and nothing of it runs any more."""
        await self.closed.wait()

    def __repr__(self) -> str:
        state = "closed" if self.closed.is_set() else f"{len(self._protocol.registry.peers)} peers"
        return f"<{self.name} {state}>"

    # ---- the tasks ----

    @trio.lowlevel.enable_ki_protection
    async def run(
        self, listeners: list[trio.SocketListener], web: tuple[Door, list[trio.SocketListener]] | None = None
    ) -> None:
        """Serve those who connect, until `shutdown`.

        Args:
            listeners: Where they connect.
            web: Where they do so by WebSocket, and what they find there.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    self._started.set()
                    self._status.begin()
                    self._nursery.start_soon(self._database.keep_records)
                    with self._listening:
                        async with trio.open_nursery() as listening:
                            if web is not None:
                                door, doors = web
                                enter = partial(self._accept, door=door)
                                serve = partial(trio.serve_listeners, enter, doors)
                                listening.start_soon(partial(serve, handler_nursery=self._nursery))
                            if listeners:
                                serve = partial(trio.serve_listeners, self._accept, listeners)
                                listening.start_soon(partial(serve, handler_nursery=self._nursery))
                            await trio.sleep_forever()  # in memory there is nothing to listen to
                    await self._end()
                    self._nursery.cancel_scope.cancel()
        finally:
            self._protocol.records.close()
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
            protocol.refuse_requests()
            self._quiet = trio.Event()
            with trio.move_on_after(self._drain):
                await self._quiet.wait()
        protocol.say_goodbye()
        self._lobby.close(f"{self.name} is shutting down")
        self._flush()
        with trio.move_on_after(_LAST_WORDS):
            while self._connections:
                self._all_gone = trio.Event()
                await self._all_gone.wait()

    @trio.lowlevel.enable_ki_protection
    async def _accept(self, stream: trio.SocketStream, door: Door | None = None) -> None:
        """Serve one connection that was accepted."""
        try:
            await self._secure_and_serve(stream, door)
        except Exception:
            # A mistake of ours, see _serve().
            logger.exception("a connection failed before it was served")

    async def _secure_and_serve(self, stream: trio.SocketStream, door: Door | None) -> None:
        try:
            address, port = stream.socket.getpeername()[:2]
            own_address = stream.socket.getsockname()[0]
            sock = take_socket(stream)
        except OSError as error:  # it is gone again
            logger.debug("a connection was closed before it was accepted: %s", error)
            await stream.aclose()
            return
        with trio.CancelScope() as entering:
            visitor = self._lobby.enter(address, lambda _reason: entering.cancel())
            host = None
            try:
                transport: Transport | None = await self._secure(sock, address, port)
                if transport is not None and door is not None:
                    transport = await door.enter(transport, self._nursery.start_soon)
                if transport is not None:
                    host = await self._host_of(transport, address, own_address)
                    # In a task of its own: what has led here need not be kept, nor gone through every time.
                    self._nursery.start_soon(self._serve, transport, host, port, visitor)
            finally:
                if host is None:
                    self._lobby.leave(visitor)

    async def _host_of(self, transport: Transport, address: str, own_address: str) -> Host:
        """Return the computer at the other end; the transport is closed if that fails."""
        try:
            return await self._hostnames.host(address, own_address)
        except BaseException:
            transport.close()
            raise

    async def _secure(self, sock: socket.socket, address: str, port: int) -> SocketTransport | None:
        if self._context is None:
            return SocketTransport(sock)
        try:
            with trio.fail_after(self._settings.tls_timeout):
                return await accept_tls(sock, self._context)
        except (ConnectionLost, trio.TooSlowError) as error:
            nobody = Peer(Host(address, address, address, address), port)
            text = "no TLS connection with %s: %s"
            self._protocol.records.write(
                nobody, logging.INFO, "no_tls", text, nobody.address, str(error), reason=str(error)
            )
            if isinstance(error, trio.TooSlowError):
                self._protocol.hits["tls_timeout"] += 1
            return None

    @trio.lowlevel.enable_ki_protection
    async def _serve(
        self, transport: Transport, host: Host, port: int, visitor: Visitor | None = None
    ) -> None:
        """Serve one connection until it ends."""
        if visitor is not None and visitor not in self._lobby:
            transport.close()  # it had to go just before this task could begin
            return
        peer = PeerConnection(transport, host, port, self._nursery.start_soon, self._settings.stalled_after)
        logger.debug("new connection from %s", peer.address)
        self._connections += 1

        def evict(reason: str) -> None:
            self._protocol.reject(peer, ConnectionAbortedError(reason))
            self._flush()

        if visitor is None:
            visitor = self._lobby.enter(host.address, evict)
        else:
            visitor.leave = evict
        try:
            with peer.reading:
                self._protocol.connect(peer)
                self._flush()
                # What that takes is let go of before the long rest.
                if await self._let_in(peer, visitor):
                    await self._read(peer)
        except ConnectionLost as error:
            peer.closing = peer.closing or str(error)
        except Exception as error:
            # A mistake of ours. It must not cost other peers their connections.
            logger.exception("%s failed", peer)
            peer.closing = repr(error)
        finally:
            self._lobby.leave(visitor)
            self._protocol.disconnect(peer)
            self._flush()
            self._note_end(peer)
            try:
                if self._listening.cancel_called:
                    await peer.finish(_LAST_LINGER)
                else:
                    await peer.finish()
            finally:
                peer.close()
                self._connections -= 1
                if not self._connections:
                    self._all_gone.set()

    def _note_end(self, peer: PeerConnection) -> None:
        """Write into the log that a connection has ended, and look whether the Manager can."""
        protocol = self._protocol
        if peer.has_stalled:
            protocol.hits["stalled_after"] += 1
        self._status.end(peer)
        seconds = trio.current_time() - peer.since
        reason = peer.closing or "it closed the connection"
        protocol.records.write(
            peer,
            logging.INFO,
            "disconnected",
            # msl-network logs these words, too, and programs look for them.
            "%s connection closed, has been removed from the registry after %.1f s: %s",
            peer.name,
            seconds,
            reason,
            kind=peer.kind or "unknown",
            seconds=round(seconds, 3),
            reason=reason,
            lines=peer.lines_received,
            received=peer.received,
            sent=peer.sent,
        )
        self._look_whether_quiet()

    def _look_whether_quiet(self) -> None:
        if self._quiet is not None and self._protocol.is_quiet:
            self._quiet.set()

    async def _let_in(self, peer: PeerConnection, visitor: Visitor) -> bool:
        """Have a peer say who it is; False if it went without."""
        receive, protocol = peer.transport.receive, self._protocol
        with trio.move_on_after(self._settings.handshake_timeout) as handshake:
            while not (peer.kind or peer.closing):
                await self._decide(peer)
                data = await receive()
                if not data:
                    return False
                await self._slow_down(peer)
                self._lobby.receive(visitor, len(data))
                protocol.receive(peer, data, TURN)
                self._flush()
        peer.transport.keep_at_most(None)
        self._lobby.leave(visitor)
        if handshake.cancelled_caught:
            seconds = self._settings.handshake_timeout
            protocol.hits["handshake_timeout"] += 1
            text = f"{peer.waits_for!r} was not answered within {seconds:g} seconds (handshake_timeout)"
            protocol.reject(peer, TimeoutError(text))
            self._flush()
        return True

    async def _read(self, peer: PeerConnection) -> None:
        receive, protocol = peer.transport.receive, self._protocol
        if peer.unread:
            await self._go_on(peer)
        while not peer.closing:
            if peer.waits_for:
                await self._decide(peer)
            data = await receive()
            if not data:
                return
            if peer.waits_for:
                await self._slow_down(peer)
            protocol.receive(peer, data, TURN)
            self._flush()
            if peer.waits_for:
                await self._decide(peer)
            if peer.unread:
                await self._go_on(peer)
            if self._quiet is not None:
                self._look_whether_quiet()
            if peer.busy is not None or peer.backlog > BUSY:
                await self._make_room(peer)

    async def _go_on(self, peer: PeerConnection) -> None:
        """Go on with what was too much for one turn, or has come before a verdict."""
        while peer.unread and not peer.closing:
            await self._decide(peer)
            await self._make_room(peer)
            await trio.lowlevel.checkpoint()
            self._protocol.receive_more(peer, TURN)
            self._flush()

    async def _make_room(self, peer: PeerConnection) -> None:
        """Have a peer wait that sends more than others take, or than it takes itself."""
        if peer.busy is not None:
            # Who sends more than its Service takes has to wait. The Service itself never has to: it may
            # be about to send the answers that make room.
            busy, peer.busy = peer.busy, None
            assert isinstance(busy, PeerConnection)
            await busy.wait_drained()
        if peer.backlog > BUSY and not peer.service:
            await peer.wait_drained()

    async def _slow_down(self, peer: PeerConnection) -> None:
        """Have a peer wait whose host has failed to log in."""
        if peer.waits_for in _SECRETS and (delay := self._protocol.logins.delay(peer.host.address)):
            await trio.sleep(delay)

    # ---- what has to be looked up ----

    async def _decide(self, peer: PeerConnection) -> None:
        """Find out what a peer waits for. Nothing is read of it meanwhile: what it sends does not pile up."""
        while not peer.closing and (question := self._protocol.undecided(peer)) is not None:
            try:
                verdict = await self._verdict(peer, question)
            except DatabaseError as error:
                logger.error("%s waits for the database in vain: %s", peer.name, error)  # noqa: TRY400 - no mistake of ours
                verdict = error if isinstance(question, AdminRequest) else RuntimeError(reason(error))
            except (
                ArithmeticError,
                AttributeError,
                LookupError,
                TypeError,
                ValueError,
                sqlite3.Error,
            ) as error:
                verdict = error  # of the request of an administrator
            self._protocol.decide(peer, verdict)
            self._flush()

    async def _verdict(self, peer: PeerConnection, question: Undecided) -> Any:
        match question:
            case TrustHost():
                return await self._database.is_trusted(question)
            case KnowUser():
                return await self._database.is_known(question)
            case LogIn():
                return await self._database.log_in(question)
        if question.attribute == SHUTDOWN_MANAGER:
            text = "%s, an administrator, shuts down the Manager"
            emit(logging.INFO, "shutdown_requested", text, peer.name, **about(peer))
            self.shutdown()
            await trio.sleep_forever()  # which the shutdown has just cancelled
        return await self._admin.answer(question)

    def _flush(self) -> None:
        """Write what the protocol wants to be written: once to each peer for all that one peer has sent."""
        protocol = self._protocol
        while protocol.touched:
            touched, protocol.touched = protocol.touched, []
            for peer in touched:
                peer.flush()


class ManagerOpening:
    """What `open_manager` returns, to be entered with ``async with``."""

    def __init__(self, settings: ManagerSettings) -> None:
        self._settings = settings
        self._manager: Manager | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Manager:
        settings = self._settings
        door = Door(
            origins=settings.websocket_origins,
            read_limit=settings.read_limit,
            keep_at_most=2 * IDENTITY_LIMIT,  # until a peer has said who it is, see Manager._let_in()
        )
        listeners = [] if settings.in_memory else await open_listeners(settings.host, settings.port)
        doors: list[trio.SocketListener] = []
        database = ManagerDatabase(_database(settings))
        try:
            if settings.websocket_port is not None:
                doors = await open_listeners(settings.host, settings.websocket_port)
            context, certificate = await self._secure()
            await _open(database, settings)
        except BaseException:
            for listener in [*listeners, *doors]:
                listener.socket.close()
            await database.close()
            raise
        port = listeners[0].socket.getsockname()[1] if listeners else 0
        websocket_port = doors[0].socket.getsockname()[1] if doors else None
        self._manager = Manager(settings, port, context, certificate, database, websocket_port)
        # Not with 'async with', so that what the body raises comes out as it is, in no group.
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        web = (door, doors) if doors else None
        nursery.start_soon(self._manager.run, listeners, web, name=self._manager.name)
        return self._manager

    async def _secure(self) -> tuple[ssl.SSLContext | None, Path | None]:
        settings = self._settings
        if not (settings.disable_tls or settings.in_memory):
            make = partial(
                server_context,
                host=settings.host,
                cert_file=settings.cert_file,
                key_file=settings.key_file,
                key_file_password=settings.key_file_password,
            )
            return await trio.to_thread.run_sync(make)
        return None, None

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, *_: object) -> None:
        assert self._manager is not None
        self._manager.shutdown()
        await self._nursery.__aexit__(None, None, None)


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
        drain: For how many seconds to wait at the end, at the most, until no request waits for its answer.
        limits: What to put up with, see `Limits`.

    Raises:
        OSError: The port is in use, the host is none of this computer, or a file cannot be used.
        AuthenticationError: Users have to log in, and there are none.
        ValueError: An argument makes no sense.
    """
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
            drain=drain,
            **limits,
        )
    )
