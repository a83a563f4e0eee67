"""The Manager as a program: it runs until a signal, or until its Services have ended.

The functions block, and run Trio in the calling thread.
"""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, Literal, Unpack

import trio

from msl_network_trio.constants import NETWORK_MANAGER_RUNNING_PREFIX, PORT
from msl_network_trio.exceptions import AuthenticationError, ConnectionLost
from msl_network_trio.hidden import Hidden, hide, hide_secrets
from msl_network_trio.logger import get_logger
from msl_network_trio.manager.logs import KEEP, logging_to
from msl_network_trio.manager.open_files import raise_open_files_limit
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.secret import joined, read_secret
from msl_network_trio.manager.server import Manager
from msl_network_trio.manager.settings import Limits
from msl_network_trio.service.filters import filter_service_start_kwargs
from msl_network_trio.service.service import Service
from msl_network_trio.service.state import state_of
from msl_network_trio.signals import StopSignals, stop_signals

logger = get_logger(__name__)


def run_forever(
    *,
    host: str | None = None,
    port: int = PORT,
    websocket_port: int | None = None,
    websocket_origins: Collection[str] = (),
    auth_hostname: bool = False,
    auth_login: bool = False,
    auth_password: str | Sequence[str] | None = None,
    database: str | os.PathLike[str] | None = None,
    disable_tls: bool = False,
    cert_file: str | os.PathLike[str] | None = None,
    key_file: str | os.PathLike[str] | None = None,
    key_file_password: str | Sequence[str] | None = None,
    log_level: str | int = "INFO",
    log_file: str | os.PathLike[str] | None = None,
    log_format: Literal["text", "json"] = "text",
    log_rotate: str | None = None,
    log_keep: int = KEEP,
    trusted_gateways: Collection[str] = (),
    drain: float = 0.0,
    **limits: Unpack[Limits],
) -> None:
    """Run a Manager until SIGINT (Ctrl-C), SIGTERM, SIGHUP or, on Windows, CTRL_BREAK; a blocking function.

    All connections are closed at the end. A second signal meanwhile ends the process at once. Only the main
    thread of a program receives signals: in another one this function does not return. A signal that is
    ignored when this is called (``nohup``), or has a handler of the program, is not changed.

    Args:
        host: The host name or address to listen at; None: all addresses of this computer.
        port: The port to listen at; 0: any free one, which is logged.
        websocket_port: The port for WebSocket, and for browsers; see `open_manager`.
        websocket_origins: The origins whose pages may connect; see `open_manager`.
        auth_hostname: Whether only trusted hosts, those in the database, may connect.
        auth_login: Whether peers have to log in as a user in the database.
        auth_password: The password that every peer has to know, or the path of a file with it in the first
            line; None: none. Without any of these three there is no authentication.
        database: The file of the database, which is created if it does not exist; None: the one in the folder
            that is shared with msl-network.
        disable_tls: Whether connections are made without TLS.
        cert_file: The certificate (PEM). If neither it nor `key_file` is given, key and certificate are kept
            in the folder that is shared with msl-network, and created there if they do not exist.
        key_file: The private key (PEM) of the certificate.
        key_file_password: The password of the private key, or the path of a file with it in the first line.
        log_level: The minimum level to log, by name or number.
        log_file: The log file; None: a new one in the folder that is shared with msl-network.
        log_format: The format of the log: ``"text"``, or ``"json"``, one object per line.
        log_rotate: The size or time for a new file: a size such as ``"10M"``, or ``"hourly"``, ``"daily"``,
            ``"weekly"``; None: never.
        log_keep: Number of old log files to keep.
        trusted_gateways: The hosts that are trusted to state the address of the peers behind them; see
            `open_manager`.
        drain: Maximum seconds to wait after a signal until no request is open.
        limits: The limits, see `Limits`.

    Raises:
        OSError: The port is in use, the host is none of this computer, or a file cannot be used.
        CertificateError: Key or certificate cannot be used.
        AuthenticationError: There is no password in the file of the password, or users have to log in and
            there are none.
        ValueError: An argument is invalid.
    """
    auth_password, key_file_password = hide(auth_password), hide(key_file_password)
    _run(
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
        log_level=log_level,
        log_file=log_file,
        log_format=log_format,
        log_rotate=log_rotate,
        log_keep=log_keep,
        trusted_gateways=trusted_gateways,
        drain=drain,
        **limits,
    )


def run_services(*services: Service, **kwargs: Any) -> None:
    """Run a Manager and Services until all of the Services have ended, or a signal ends them.

    A blocking function, like `run_forever`. If one of the Services fails, all of them are ended.

    Args:
        services: The Services, not started.
        kwargs: Keyword arguments of `run_forever` and of `Service.start`; others are ignored.
            ``auth_password`` and ``password_manager`` are the same. ``reconnect`` is always False: the
            Manager of this program does not return.

    Raises:
        TypeError: One of the services is no Service.
        ValueError: There are no services, or an argument is invalid.
        Exception: See `run_forever`; or the error of a Service.
    """
    for service in services:
        if not isinstance(service, Service):
            raise TypeError(f"All services must be of type {Service}, not {service!r}")
    if not services:
        raise ValueError("no services have been specified")
    hide_secrets(kwargs)
    _run(
        *services, service_kwargs=filter_service_start_kwargs(**kwargs), **filter_run_forever_kwargs(**kwargs)
    )


def filter_run_forever_kwargs(**kwargs: Any) -> dict[str, Any]:
    """Return the keyword arguments of `run_forever` among those given.

    ``password_manager``, the name in a Service, becomes ``auth_password``, the name in a Manager.
    """
    names = [*inspect.signature(run_forever).parameters, *Limits.__annotations__]
    known = {name: kwargs[name] for name in names if name in kwargs and name != "limits"}
    if "password_manager" in kwargs:
        known.setdefault("auth_password", kwargs["password_manager"])
    return known


def _run(
    *services: Service,
    service_kwargs: dict[str, Any] | None = None,
    host: str | None = None,
    port: int = PORT,
    auth_password: str | Sequence[str] | Hidden | None = None,
    key_file_password: str | Sequence[str] | Hidden | None = None,
    log_level: str | int = "INFO",
    log_file: str | os.PathLike[str] | None = None,
    log_format: Literal["text", "json"] = "text",
    log_rotate: str | None = None,
    log_keep: int = KEEP,
    **more: Any,
) -> None:
    with logging_to(log_level, log_file, style=log_format, rotate=log_rotate, keep=log_keep) as path:
        logger.info("logging to %s", path)
        raise_open_files_limit()
        if auth_password is not None:
            secret = read_secret(auth_password, "The password of the Manager", AuthenticationError)
            auth_password, secret = hide(secret), ""
        if key_file_password is not None:
            key_file_password = hide(joined(key_file_password))
        with stop_signals() as signals:
            trio.run(
                partial(
                    _main,
                    signals,
                    services,
                    service_kwargs or {},
                    host=host,
                    port=port,
                    auth_password=auth_password,
                    key_file_password=key_file_password,
                    **more,
                )
            )


async def _main(
    signals: StopSignals,
    services: Sequence[Service],
    service_kwargs: dict[str, Any],
    **manager_kwargs: Any,
) -> None:
    async with open_manager(alone=not services, **manager_kwargs) as manager:
        _announce(manager, manager_kwargs)
        failure = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_with_manager, manager, nursery.cancel_scope)
            signals.on_stop(partial(_stop, services, nursery.cancel_scope))
            if services:
                # Only the Manager's own certificate is trusted; its names do not matter. The Manager of this
                # program does not return, so Services that wait for it would never end.
                kwargs = {
                    "assert_hostname": False,
                    **service_kwargs,
                    **manager.connect_kwargs(),
                    "reconnect": False,
                }
                hide_secrets(kwargs)
                failure = await _run_services(services, kwargs)
                nursery.cancel_scope.cancel()
        logger.info("shutting down the Network Manager")
    if failure is not None:
        raise failure


def _stop(services: Sequence[Service], scope: trio.CancelScope) -> None:
    """Stop the Services, with which the program ends; without Services, end the program."""
    if not services:
        scope.cancel()
    for service in services:
        state_of(service).stop()


async def _run_services(services: Sequence[Service], kwargs: dict[str, Any]) -> Exception | None:
    """Run Services until all have ended or one has failed; return the exception of that one."""
    failure: Exception | None = None

    async def run(service: Service) -> None:
        nonlocal failure
        try:
            # Not service.run(), since a subclass may have another method of that name.
            await Service.run(service, **kwargs)
        except ConnectionLost as error:
            # Most likely the Manager was shut down, which is no failure of the Service.
            logger.warning("%s", error)
        except Exception as error:
            logger.exception("%r has failed", service)
            failure = failure or error
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for service in services:
            nursery.start_soon(run, service)
    return failure


async def _end_with_manager(manager: Manager, scope: trio.CancelScope) -> None:
    await manager.wait_closed()
    scope.cancel()


def _announce(manager: Manager, kwargs: dict[str, Any]) -> None:
    if kwargs.get("auth_hostname"):
        logger.info("using trusted hosts for authentication")
    elif kwargs["auth_password"] is not None:
        logger.info("using a password for authentication")
    elif kwargs.get("auth_login"):
        logger.info("using a login for authentication")
    else:
        logger.info("not using authentication")
    state = "DISABLED" if manager.certificate is None else "ENABLED"
    where = kwargs["host"] or socket.gethostname()
    where = f"[{where}]" if ":" in where else where
    if manager.websocket_port is not None:
        scheme = "http" if manager.certificate is None else "https"
        logger.info("WebSocket, and a page, at %s://%s:%d/", scheme, where, manager.websocket_port)
    logger.info("%s %s:%d (TLS %s)", NETWORK_MANAGER_RUNNING_PREFIX, where, manager.port, state)
