"""The identity of a Service, and its Trio run in programs that do not use Trio.

`run_program` is what `Service.start` does around `Service.run`: it receives the signals that end a program.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from msl_network_trio.asyncio_advice import forget_event_loop
from msl_network_trio.dialing.local_identity import language, operating_system
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.logger import get_logger
from msl_network_trio.service.identity import describe_attributes
from msl_network_trio.service.state import ServiceState
from msl_network_trio.signals import StopSignals, stop_signals

logger = get_logger(__name__)


@trio.lowlevel.disable_ki_protection
def make_identity(service: object, state: ServiceState) -> dict[str, Any]:
    """Return the identity of a Service; evaluates its properties."""
    return {
        "type": "service",
        "name": state.name,
        "attributes": describe_attributes(service, state.ignored),
        "max_clients": state.max_clients,
        "language": language(),
        "os": operating_system(),
    }


def run_program(run: Callable[[], Awaitable[None]], state: ServiceState) -> None:
    """Run a Service in a Trio run of its own, until it ends or a signal ends it; see `Service.start`.

    Args:
        run: Runs the Service.
        state: The state of the Service.
    """
    forget_event_loop()
    try:
        with stop_signals(interrupt=True) as signals:
            try:
                trio.run(_run_until_stopped, run, state, signals)
            except ConnectionLost as error:
                if signals.received is None:
                    raise
                logger.warning("%s", error)  # the Service was about to end anyway
    except KeyboardInterrupt:
        logger.info("%s was interrupted", state)
    except BaseExceptionGroup as group:
        if group.split(KeyboardInterrupt)[1] is not None:
            raise
        logger.info("%s was interrupted", state)


@trio.lowlevel.enable_ki_protection
async def _run_until_stopped(
    run: Callable[[], Awaitable[None]], state: ServiceState, signals: StopSignals
) -> None:
    signals.on_stop(state.stop)
    await run()
