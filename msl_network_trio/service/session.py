"""The session of a running Service: connect, serve, connect again, and end.

Owns what outlives a connection: the nursery of the user's tasks, `Workers`, the credentials, and the number
of notifications that were dropped while there was no connection. Everything runs in the Trio thread, in the
task that awaits `Service.run`, but for `ServiceSession.emit`.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol

import trio

from msl_network_trio import callbacks, ended_managers
from msl_network_trio.asyncio_advice import explain
from msl_network_trio.dialing.connect import DialedConnection, dial
from msl_network_trio.dialing.retrying import Outage, dial_again, dial_first
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.exception_groups import raise_failure, single
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.service import ServiceProtocol
from msl_network_trio.protocol.service_lines import encode_notification, notification_end
from msl_network_trio.service.connection import GRACE, ServiceConnection
from msl_network_trio.service.state import ServiceState
from msl_network_trio.service.workers import Workers
from msl_network_trio.visible import visible

logger = get_logger(__name__)

_REMIND_EVERY: Final = 60.0
"""Seconds between warnings that the Manager cannot be reached."""


class Runnable(Protocol):
    """An object whose attributes clients request: a `Service`."""

    def shutdown_handler(self) -> Any:
        """See `Service.shutdown_handler`."""


class ServiceSession:
    """One run of a Service, over one connection or several that follow each other.

    Args:
        service: The Service.
        state: The state of the Service.
        settings: The settings of the connections.
        heartbeat: See `ServiceConnection`.
    """

    def __init__(
        self, service: Runnable, state: ServiceState, settings: Settings, heartbeat: float | None
    ) -> None:
        self._service = service
        self._state = state
        self._settings = settings
        self._heartbeat = heartbeat
        self._policy = settings.reconnect
        self._credentials = settings.credentials()
        self._workers: Workers | None = None
        self._connection: ServiceConnection | None = None
        self._protocol: ServiceProtocol | None = None
        self._waiting: trio.CancelScope | None = None
        """The scope of connecting, and of the delay before it."""
        self._error: ConnectionLost | None = None
        self._outage = Outage()
        self._connected_at = self._reminded_at = 0.0
        self._dropped = 0
        self._lock = threading.Lock()

    # ---- for the Service ----

    @property
    def nursery(self) -> trio.Nursery | None:
        """The nursery for tasks of the user; None before the first connection."""
        return None if self._workers is None else self._workers.nursery

    def emit(self, args: Any, kwargs: Any) -> None:
        """Count a notification that is dropped while the Service reconnects; see `Service.emit_notification`.

        Raises:
            TypeError, ValueError: See `encode_notification`.
            ConnectionLost: There was no connection yet, or the Service does not reconnect.
        """
        if self._policy is None or self._workers is None:
            raise self._state.cannot_emit()
        encode_notification(args, kwargs, notification_end(self._state.name))
        self._drop()

    def _drop(self) -> None:
        with self._lock:
            self._dropped += 1

    def stop(self) -> None:
        """Start an orderly shutdown; see `ServiceConnection.stop`."""
        if self._connection is not None:
            self._connection.stop()
        if self._waiting is not None:
            self._waiting.cancel()

    # ---- from the beginning to the end ----

    async def run(self, started: Callable[[], object]) -> None:
        """Connect and serve until the end; see `Service.run`.

        Args:
            started: Called when the Manager has accepted the Service.
        """
        dialed = await self._dial_first()
        if dialed is None:
            return
        self._credentials = self._credentials.unattended()
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._workers = Workers(self._service, self._state.name, nursery, self._state.max_workers)
                try:
                    await self._serve(dialed, started, self._workers)
                finally:
                    nursery.cancel_scope.cancel()
                    with trio.CancelScope(shield=True):
                        await self._workers.end(GRACE)
        except BaseExceptionGroup as group:
            failure = single(group)
            explain(failure)
        finally:
            self._state.connection = None
            name = visible(self._state.network_name)
            logger.info("%s has disconnected from Manager[%s]", name, self._settings.manager)
            with trio.move_on_after(GRACE, shield=True):
                await callbacks.call(self._service.shutdown_handler, (), {}, "shutdown_handler")
        raise_failure(failure)
        self._raise_reason()

    def _raise_reason(self) -> None:
        """Raise the reason why the last connection has ended, unless this program has ended it."""
        assert self._connection is not None
        assert self._protocol is not None
        has_ended_manager = ended_managers.remove(self._protocol.manager_name, self._state.network_name)
        reason = self._error or self._connection.reason
        if reason is None or (self._policy is not None and self._state.is_stopped):
            return
        if not has_ended_manager:
            raise reason
        logger.info("%s", reason)

    async def _serve(
        self, dialed: DialedConnection[ServiceProtocol], started: Callable[[], object], workers: Workers
    ) -> None:
        """Serve over one connection after the other.

        Args:
            dialed: The first connection.
            started: See `run`.
            workers: The worker tasks and threads.
        """
        tasks = _take_tasks(self._state)

        def start() -> None:
            for task in tasks:
                workers.nursery.start_soon(task)
            started()

        following: DialedConnection[ServiceProtocol] | None = dialed
        while following is not None:
            connection = self._connect(following, workers)
            await connection.run(
                following.early,
                start if following is dialed else _nothing,
                may_return=self._policy is not None,
            )
            self._state.connection = None
            if self._policy is None or connection.is_stopping or connection.reason is None:
                return
            following = await self._dial_again(connection.reason)

    def _connect(self, dialed: DialedConnection[ServiceProtocol], workers: Workers) -> ServiceConnection:
        """Make a connection the current one."""
        state, settings, protocol = self._state, self._settings, self._protocol
        assert protocol is not None
        state.port = dialed.transport.port
        state.network_name = protocol.network_name
        self._connected_at = trio.current_time()
        is_first = self._connection is None
        connection = self._connection = state.connection = ServiceConnection(
            self._service,
            state.name,
            dialed.transport,
            protocol,
            workers,
            max_unsent=settings.max_unsent,
            on_shutdown=state.stop,
            heartbeat=self._heartbeat,
            on_dropped=None if self._policy is None else self._drop,
        )
        if state.is_stopped:
            connection.stop()
        name = visible(state.network_name)
        if is_first:
            logger.info("%s is connected to Manager[%s]", name, settings.manager)
        else:
            with self._lock:
                dropped, self._dropped = self._dropped, 0
            seconds = self._outage.seconds
            text = "%s is connected to Manager[%s] again, after %.1f s; %d notification(s) were not emitted"
            logger.warning(text, name, settings.manager, seconds, dropped)
        return connection

    # ---- connecting ----

    async def _dial_first(self) -> DialedConnection[ServiceProtocol] | None:
        """Make the first connection; return None if the Service was stopped.

        With reconnection it is tried repeatedly, within ``timeout``, so that Manager and Service can be
        started in any order.

        Raises:
            NetworkError, OSError: It cannot be made; with reconnection, the error of the last try.
        """
        if self._state.is_stopped:
            return None
        with trio.CancelScope() as self._waiting:
            if self._policy is None:
                return await self._dial(self._settings)
            return await dial_first(
                self._settings,
                self._policy,
                attempt=self._dial,
                credentials=self._credentials,
                on_failure=self._try_has_failed,
            )
        return None

    async def _dial_again(self, reason: ConnectionLost) -> DialedConnection[ServiceProtocol] | None:
        """Make the next connection; return None if the Service was stopped, or has to end.

        Args:
            reason: The reason why the connection was lost.
        """
        assert self._policy is not None
        name = visible(self._state.network_name)
        logger.warning("%s has lost its connection and tries to connect again: %s", name, reason)
        self._outage.begin(self._connected_at)
        self._reminded_at = trio.current_time()
        if self._state.is_stopped:
            return None
        with trio.CancelScope() as self._waiting:
            try:
                return await dial_again(
                    self._settings,
                    self._policy,
                    attempt=self._dial,
                    outage=self._outage,
                    reason=reason,
                    on_failure=self._try_has_failed,
                )
            except ConnectionLost as error:
                self._error = error
        return None

    async def _dial(self, settings: Settings) -> DialedConnection[ServiceProtocol]:
        """Make one try to connect.

        Args:
            settings: The settings, with the timeout of this try.
        """
        assert self._state.identity is not None
        protocol = ServiceProtocol(self._state.identity, settings.manager, settings.read_limit)
        dialed = await dial(settings, self._credentials, protocol)
        self._protocol = protocol
        return dialed

    def _try_has_failed(self, error: Exception) -> None:
        name, now = self._state.name, trio.current_time()
        if self._connection is not None and now - self._reminded_at >= _REMIND_EVERY:
            self._reminded_at = now
            text = "%r has not been connected for %.0f s: %s"
            logger.warning(text, name, self._outage.seconds, error)
        else:
            logger.info("%r cannot connect yet: %s", name, error)


def _take_tasks(state: ServiceState) -> list[Callable[[], Awaitable[Any]]]:
    """Return the tasks of `Service.add_tasks` as async functions; remove coroutines, which run only once."""
    functions: list[Callable[[], Awaitable[Any]]] = [
        partial(_await, task) if isinstance(task, Coroutine) else task for task in state.tasks
    ]
    state.tasks = [task for task in state.tasks if not isinstance(task, Coroutine)]
    return functions


def _nothing() -> None:
    """Do nothing."""


async def _await(coroutine: Coroutine[Any, Any, Any]) -> None:
    await coroutine
