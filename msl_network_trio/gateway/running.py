"""The gateway as a program, which runs until a signal stops it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import trio

from msl_network_trio.gateway.server import Gateway, open_gateway
from msl_network_trio.hidden import hide
from msl_network_trio.logger import get_logger
from msl_network_trio.manager.logs import ConsoleHandler, level_number
from msl_network_trio.manager.secret import joined
from msl_network_trio.signals import StopSignals, stop_signals
from msl_network_trio.visible import log_to_console

logger = get_logger(__name__)

RUNNING: Final = "Gateway running on"
"""Start of the log line after which peers can connect."""


def run_forever(
    *, log_level: str | int = "INFO", key_file_password: str | Sequence[str] | None = None, **kwargs: Any
) -> None:
    """Run a gateway until SIGINT (Ctrl-C), SIGTERM, SIGHUP or, on Windows, CTRL_BREAK; blocks.

    Args:
        log_level: The lowest level to log, by name or number.
        key_file_password: See `open_gateway`; or a list of the words of the password.
        kwargs: The other arguments of `open_gateway`, whose exceptions are raised.
    """
    form = "%(asctime)s [%(levelname)-5s] %(name)s - %(message)s"
    log_to_console(level_number(log_level), form, ConsoleHandler())
    if key_file_password is not None:
        key_file_password = hide(joined(key_file_password))
        kwargs["key_file_password"] = key_file_password
    with stop_signals() as signals:
        trio.run(partial(_main, signals, **kwargs))


async def _main(signals: StopSignals, **kwargs: Any) -> None:
    async with open_gateway(**kwargs) as gateway:
        _announce(gateway, kwargs.get("host"))
        with trio.CancelScope() as scope:
            signals.on_stop(scope.cancel)
            await trio.sleep_forever()
        logger.info("shutting down the gateway")


def _announce(gateway: Gateway, host: str | None) -> None:
    where = host or socket.gethostname()
    scheme = "ws" if gateway.certificate is None else "wss"
    where = f"[{where}]" if ":" in where else where
    logger.info("%s %s://%s:%d/ for Manager[%s]", RUNNING, scheme, where, gateway.port, gateway.manager)
