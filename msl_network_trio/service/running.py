"""Running a Service: connect, serve, disconnect, and call the shutdown handler.

Everything here runs in the Trio thread, in the task that awaits `Service.run`. `run_program` is what
`Service.start` does around it: it receives the signals that end a program.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Protocol

import trio

from msl_network_trio import callbacks, ended_managers
from msl_network_trio.asyncio_advice import forget_event_loop
from msl_network_trio.dialing.connect import dial
from msl_network_trio.dialing.local_identity import language, operating_system
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.service import ServiceProtocol
from msl_network_trio.service.connection import GRACE, ServiceConnection
from msl_network_trio.service.identity import describe_attributes
from msl_network_trio.service.state import ServiceState
from msl_network_trio.signals import StopSignals, stop_signals
from msl_network_trio.visible import visible

logger = get_logger(__name__)


class Runnable(Protocol):
    """An object whose attributes clients request: a `Service`."""

    def shutdown_handler(self) -> Any:
        """See `Service.shutdown_handler`."""


async def connect_and_serve(
    service: Runnable, state: ServiceState, settings: Settings, task_status: trio.TaskStatus[None]
) -> None:
    """Connect a Service to a Manager and serve requests until the end; see `Service.run`.

    Args:
        service: The Service.
        state: The state of the Service.
        settings: The settings of the connection.
        task_status: Reports when the Manager has accepted the Service.
    """
    state.identity = make_identity(service, state)
    protocol = ServiceProtocol(state.identity, settings.manager, settings.read_limit)
    if state.is_stopped:
        return
    try:
        with trio.CancelScope() as state.dialing:
            dialed = await dial(settings, settings.credentials(), protocol)
        if state.dialing.cancelled_caught:
            return
    finally:
        state.dialing = None
    state.port = dialed.transport.port
    state.network_name = protocol.network_name
    state.connection = ServiceConnection(
        service,
        state.name,
        dialed.transport,
        protocol,
        max_workers=state.max_workers,
        max_unsent=settings.max_unsent,
    )
    if state.is_stopped:
        state.connection.stop()
    logger.info("%s is connected to Manager[%s]", visible(state.network_name), settings.manager)
    try:
        await state.connection.run(dialed.early, _take_tasks(state), task_status.started)
    except ConnectionLost as error:
        if not ended_managers.remove(protocol.manager_name, state.network_name):
            raise
        logger.info("%s", error)  # this program has closed the Manager itself
    finally:
        state.connection = None
        logger.info("%s has disconnected from Manager[%s]", visible(state.network_name), settings.manager)
        with trio.move_on_after(GRACE, shield=True):
            await callbacks.call(service.shutdown_handler, (), {}, "shutdown_handler")


@trio.lowlevel.disable_ki_protection
def make_identity(service: Runnable, state: ServiceState) -> dict[str, Any]:
    """Return the identity of a Service; evaluates its properties."""
    return {
        "type": "service",
        "name": state.name,
        "attributes": describe_attributes(service, state.ignored),
        "max_clients": state.max_clients,
        "language": language(),
        "os": operating_system(),
    }


def _take_tasks(state: ServiceState) -> list[Callable[[], Awaitable[Any]]]:
    """Return the tasks of `Service.add_tasks` as async functions; remove coroutines, which run only once."""
    functions: list[Callable[[], Awaitable[Any]]] = [
        partial(_await, task) if isinstance(task, Coroutine) else task for task in state.tasks
    ]
    state.tasks = [task for task in state.tasks if not isinstance(task, Coroutine)]
    return functions


async def _await(coroutine: Coroutine[Any, Any, Any]) -> None:
    await coroutine


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
