"""One connection of a Service, from its first request to its end.

Owns the tasks of the connection, the send queue, the dispatcher, and the order of the steps at the end.
Everything runs in the Trio thread, but for `ServiceConnection.emit`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from msl_network_trio.asyncio_advice import explain
from msl_network_trio.exception_groups import plain
from msl_network_trio.exceptions import ConnectionLost, NetworkError
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.service import Event, ServiceProtocol
from msl_network_trio.protocol.service_lines import OutgoingLine, encode_notification, notification_end
from msl_network_trio.service.answer_queue import AnswerQueue
from msl_network_trio.service.dispatcher import Dispatcher
from msl_network_trio.transport.base import Stream

logger = get_logger(__name__)

GRACE = 2.0
"""Maximum seconds for methods to finish when the Service ends."""

GOODBYE = 2.0
"""Maximum seconds at the end for sending what is queued, and for the Manager to close the connection."""

_DRAIN = 1.0
"""Maximum seconds for reading on after sending has failed: the reason may be on its way."""

Task = Callable[[], Awaitable[Any]]


class ServiceConnection:
    """Serves requests over one connection, and closes it with an orderly shutdown.

    Args:
        service: The object whose attributes are requested.
        name: The name of the Service.
        transport: The connection to the Manager, which is closed at the end.
        protocol: The protocol, after the handshake.
        max_workers: Maximum number of worker threads for methods, and again for properties.
        max_unsent: Maximum bytes of queued replies, and of requests in progress, before reading pauses.

    Attributes:
        nursery: The nursery of the worker tasks and of the tasks of the user.
    """

    nursery: trio.Nursery

    def __init__(
        self,
        service: object,
        name: str,
        transport: Stream,
        protocol: ServiceProtocol,
        *,
        max_workers: int,
        max_unsent: int,
    ) -> None:
        self._service = service
        self._name = name
        self._transport = transport
        self._protocol = protocol
        self._max_workers = max_workers
        self._send_queue = AnswerQueue(transport, max_unsent, self._sending_failed)
        self._notification_end = notification_end(name)
        self._dispatcher: Dispatcher
        self._reason: ConnectionLost | None = None
        """The reason why the connection has ended; None: it has not, or the Service ends it."""
        self._over = trio.Event()
        """Set when the Service is to end."""
        self._sent_goodbye = False
        self._has_ended = False
        """Whether there are no more requests to read."""
        self._read_to_end = trio.Event()
        self._reading = trio.CancelScope(shield=True)
        self._writing = trio.CancelScope(shield=True)
        self._flushing_delayed = trio.CancelScope(shield=True)

    def emit(self, args: Any, kwargs: Any) -> None:
        """Emit a notification, from any thread. Raises as `encode_notification` and `AnswerQueue.emit` do."""
        self._send_queue.emit(encode_notification(args, kwargs, self._notification_end))

    def stop(self) -> None:
        """Start an orderly shutdown: accept no more requests, give methods `GRACE` seconds to finish."""
        self._over.set()

    # ---- from the beginning to the end ----

    @trio.lowlevel.enable_ki_protection
    async def run(self, early: Sequence[Event], tasks: Sequence[Task], started: Callable[[], object]) -> None:
        """Serve until the connection ends, the Service is shut down, or this is cancelled.

        Args:
            early: The events that were received with the end of the handshake.
            tasks: Async functions of the user to run beside.
            started: Called when everything is running.

        Raises:
            ConnectionLost: The connection has ended, and the Service has not ended it.
            Exception: The exception of a task of the user.
        """
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as connection:
                connection.start_soon(self._write)
                connection.start_soon(self._flush_delayed)
                try:
                    await self._serve(connection, early, tasks, started)
                finally:
                    self._writing.cancel()
                    self._flushing_delayed.cancel()
                    self._reading.cancel()
        except BaseExceptionGroup as group:
            failure = _single(group)
            explain(failure)
        finally:
            self._send_queue.close()
            self._transport.end(cut_off=self._send_queue.unsent > 0)
        _raise(failure)
        if self._reason is not None and not self._sent_goodbye:
            raise self._reason

    async def _serve(
        self,
        connection: trio.Nursery,
        early: Sequence[Event],
        tasks: Sequence[Task],
        started: Callable[[], object],
    ) -> None:
        """Serve until the end, then finish within the time limits `GRACE` and `GOODBYE`.

        Args:
            connection: The nursery that outlives that of the user.
            early: See `run`.
            tasks: See `run`.
            started: See `run`.
        """
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as self.nursery:
                self._dispatcher = Dispatcher(
                    self._service,
                    self._name,
                    self._transport,
                    self._protocol,
                    self._send_queue,
                    nursery=self.nursery,
                    max_workers=self._max_workers,
                    on_shutdown=self._over.set,
                    on_end=self._reading_ended,
                )
                deadline = None
                try:
                    self._dispatcher.dispatch(early)
                    connection.start_soon(self._read)
                    for task in tasks:
                        self.nursery.start_soon(task)
                    started()
                    await self._over.wait()
                    if self._reason is None:
                        deadline = trio.current_time() + GRACE
                        await self._settle(deadline)
                finally:
                    self.nursery.cancel_scope.cancel()
                    with trio.CancelScope(shield=True):
                        await self._finish(deadline or trio.current_time() + GRACE)
        except BaseExceptionGroup as group:
            failure = _single(group)
        _raise(failure)

    async def _settle(self, deadline: float) -> None:
        """Refuse further requests, and wait until those in progress are finished."""
        self._dispatcher.refuse_more()
        with trio.move_on_at(deadline):
            await self._send_queue.wait_until(self._is_quiet)
            await trio.lowlevel.checkpoint()  # a thread may just have handed an awaitable over
            await self._send_queue.wait_until(self._is_quiet)

    def _is_quiet(self) -> bool:
        return self._dispatcher.is_quiet

    async def _finish(self, deadline: float) -> None:
        """Reply to all requests, disconnect, and wait for the Manager to close the connection."""
        await self._settle(deadline)
        for request in self._dispatcher.running_in_threads:
            logger.warning(
                "%r has ended, and %r is still running in its thread", self._name, request.attribute
            )
        with trio.move_on_after(GOODBYE):
            if self._reason is None:
                self._sent_goodbye = True
                self._send_queue.close(self._final_lines)
                await self._send_queue.drain()
                await self._read_to_end.wait()

    def _final_lines(self) -> list[OutgoingLine]:
        return [*self._dispatcher.final_refusals(), self._protocol.goodbye()]

    # ---- the tasks of the connection ----

    @trio.lowlevel.enable_ki_protection
    async def _write(self) -> None:
        with self._writing:
            await self._send_queue.run()

    @trio.lowlevel.enable_ki_protection
    async def _flush_delayed(self) -> None:
        with self._flushing_delayed:
            await self._send_queue.flush_delayed()

    @trio.lowlevel.enable_ki_protection
    async def _read(self) -> None:
        """Run the leader's reading, and read on after the worker tasks have been cancelled."""
        try:
            with self._reading:
                await self._dispatcher.tasks.read()
                while not self._has_ended:
                    await self._dispatcher.reader.read()
        finally:
            self._over.set()
            self._read_to_end.set()

    # ---- failures ----

    def _sending_failed(self, error: ConnectionLost) -> None:
        self._fail(self._lost(error))
        # The reason may be on its way: the last line of the Manager before it closed the connection.
        self._reading.deadline = trio.current_time() + _DRAIN

    def _reading_ended(self, error: Exception | None) -> None:
        """Note why there are no more requests; None: the stream has ended, or the protocol is broken."""
        self._has_ended = True
        if isinstance(error, ConnectionLost):
            self._fail(self._lost(error))
        elif error is not None:
            # A defect of this package. No client may wait for ever because of it.
            manager = self._protocol.manager
            logger.error("the connection to Manager[%s] failed", manager, exc_info=error)
            self._fail(ConnectionLost(f"The connection to Manager[{manager}] failed: {error!r}"))
        else:
            self._fail(self._protocol.broken or self._protocol.receive_eof(self._transport.close_reason))

    def _fail(self, error: NetworkError) -> None:
        self._reason = error if isinstance(error, ConnectionLost) else ConnectionLost(str(error))

    def _lost(self, error: ConnectionLost) -> ConnectionLost:
        """Return the error of a transport with the Manager's address, which the transport does not know."""
        return ConnectionLost(f"The connection to Manager[{self._protocol.manager}] was lost: {error}")


def _raise(failure: BaseException | None) -> None:
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # which refers to this frame


def _single(group: BaseExceptionGroup[Any]) -> BaseException:
    """Return the only exception of a group, or the group without those of nurseries in it."""
    return group.exceptions[0] if len(group.exceptions) == 1 else plain(group)
