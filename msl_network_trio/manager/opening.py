"""Opening of a Manager: its ports, its certificate and its database, for an ``async with`` block.

Runs in the Trio thread; files are read in worker threads.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import partial
from typing import Unpack

import trio

from msl_network_trio.constants import PORT
from msl_network_trio.exception_groups import leave_nursery
from msl_network_trio.exceptions import AuthenticationError
from msl_network_trio.hidden import hide
from msl_network_trio.manager.certificate_in_use import LoadedCertificate, load
from msl_network_trio.manager.database import ManagerDatabase
from msl_network_trio.manager.gateways import addresses_of
from msl_network_trio.manager.server import Manager, make_context
from msl_network_trio.manager.settings import Limits, ManagerSettings
from msl_network_trio.manager.tables import IN_MEMORY
from msl_network_trio.protocol.manager.admission import IDENTITY_LIMIT
from msl_network_trio.transport.listening import Listener, listen_tcp
from msl_network_trio.web.http_server import HttpServer


class ManagerOpening:
    """The result of `open_manager`, to be entered with ``async with``."""

    def __init__(self, settings: ManagerSettings) -> None:
        self._settings = settings
        self._manager: Manager | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Manager:
        settings = self._settings
        http_server = HttpServer(
            origins=settings.websocket_origins,
            read_limit=settings.read_limit,
            buffer_limit=2 * IDENTITY_LIMIT,  # until the peer is admitted, see PeerLoops
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
        # Not with 'async with', so that an exception of the body is raised as it is, in no group.
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        nursery.start_soon(self._manager.run, listeners, name=self._manager.name)
        return self._manager

    async def _secure(self) -> LoadedCertificate | None:
        if self._settings.disable_tls or self._settings.in_memory:
            return None
        return await trio.to_thread.run_sync(load, partial(make_context, self._settings))

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, *_: object) -> None:
        assert self._manager is not None
        self._manager.shutdown()
        await leave_nursery(self._nursery)


def _database(settings: ManagerSettings) -> str | os.PathLike[str] | None:
    """Return the file of the database; a Manager in memory has none by default."""
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
    """Run a Manager for the duration of an ``async with`` block, at whose end every connection is closed.

    Args:
        host: The host name or address to listen at; None: all addresses of this computer.
        port: The port to listen at; 0: any free one.
        websocket_port: The port for WebSocket and for a page for browsers; 0: any free one; None: none. Peers
            at this port are served like those at the other one.
        websocket_origins: The origins, such as ``"https://lab.example"``, whose pages may connect, besides
            those of the host and port that they connect to; ``"*"``: all of them.
        auth_hostname: Whether only trusted hosts, those in the database, may connect.
        auth_login: Whether peers have to log in as a user in the database.
        auth_password: The password that every peer has to know; None: none. Without any of these three there
            is no authentication.
        database: The file of the database, which is created if it does not exist; None: the one in the folder
            that is shared with msl-network, or, if the Manager is in memory, none.
        disable_tls: Whether connections are made without TLS.
        cert_file: The certificate (PEM). If neither it nor `key_file` is given, key and certificate are kept
            in the folder that is shared with msl-network, and created there if they do not exist.
        key_file: The private key (PEM) of the certificate.
        key_file_password: The password of the private key, or a file with it in the first line.
        in_memory: Whether there is no network: peers connect with ``transport=manager.dial``.
        alone: Whether nothing else runs in this event loop. A Manager with a dedicated event loop is faster:
            it may block the loop for up to three milliseconds while it waits for the next line.
        trusted_gateways: The hosts, by name or address, that are trusted to state the address of the peers
            behind them: gateways (see `open_gateway`), and proxies in front of `websocket_port`, which have
            to set ``X-Forwarded-For``.
        drain: Maximum seconds to wait at the end until no request is open.
        limits: The limits, see `Limits`.

    Raises:
        OSError: The port is in use, the host is none of this computer, or a file cannot be used.
        AuthenticationError: Users have to log in, and there are none.
        ValueError: An argument is invalid.
    """
    # Crash reports show the values of variables in tracebacks: these would be secrets.
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
