"""One connection of a Service, from its first request to its end.

Owns the tasks of the connection, the send queue, the dispatcher, and the order of the steps at the end.
The worker tasks and threads (`Workers`) may outlive it. Everything runs in the Trio thread, but for
`ServiceConnection.emit`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import trio

from msl_network_trio.exception_groups import raise_failure, single
from msl_network_trio.exceptions import ConnectionLost, NetworkError
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.service import Event, ServiceProtocol
from msl_network_trio.protocol.service_lines import OutgoingLine, encode_notification, notification_end
from msl_network_trio.service.answer_queue import AnswerQueue
from msl_network_trio.service.dispatcher import Dispatcher
from msl_network_trio.service.workers import Workers
from msl_network_trio.transport.base import Stream

logger = get_logger(__name__)

GRACE = 2.0
"""Maximum seconds for methods to finish when the Service ends."""

GOODBYE = 2.0
"""Maximum seconds at the end for sending what is queued, and for the Manager to close the connection."""

_DRAIN = 1.0
"""Maximum seconds for reading on after sending has failed: the reason may be on its way."""

_HEARTBEAT_CHECKS = 3
"""Number of checks for received data in each interval of the heartbeat."""


class ServiceConnection:
    """Serves requests over one connection, and closes it with an orderly shutdown.

    Args:
        service: The object whose attributes are requested.
        name: The name of the Service.
        transport: The connection to the Manager, which is closed at the end.
        protocol: The protocol, after the handshake.
        workers: The worker tasks and threads.
        max_unsent: Maximum bytes of queued replies, and of requests in progress, before reading pauses.
        heartbeat: Seconds without received data until a probe is sent, and again until the connection counts
            as lost; None: no probes.
        on_shutdown: Called when a client has shut the Service down; it has to call `stop` of the connection
            that is current then.
        on_dropped: Called, in any thread, for each notification that is dropped since the connection is lost;
            None: its emission raises an exception.

    Attributes:
        is_stopping: Whether `stop` was called.
    """

    def __init__(
        self,
        service: object,
        name: str,
        transport: Stream,
        protocol: ServiceProtocol,
        workers: Workers,
        *,
        max_unsent: int,
        on_shutdown: Callable[[], object],
        heartbeat: float | None = None,
        on_dropped: Callable[[], object] | None = None,
    ) -> None:
        self._service = service
        self._name = name
        self._transport = transport
        self._protocol = protocol
        self.is_stopping = False
        self._workers = workers
        self._heartbeat_interval = heartbeat
        self._on_dropped = on_dropped
        self._send_queue = AnswerQueue(transport, max_unsent, self._sending_failed)
        self._notification_end = notification_end(name)
        self._dispatcher = Dispatcher(
            service,
            name,
            transport,
            protocol,
            self._send_queue,
            workers=workers,
            on_shutdown=on_shutdown,
            on_end=self._reading_ended,
        )
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
        self._checking = trio.CancelScope(shield=True)

    def emit(self, args: Any, kwargs: Any) -> None:
        """Emit a notification, from any thread. Raises as `encode_notification` and `AnswerQueue.emit` do."""
        try:
            self._send_queue.emit(encode_notification(args, kwargs, self._notification_end))
        except ConnectionLost:
            if self._on_dropped is None or self._sent_goodbye:
                raise
            self._on_dropped()

    def stop(self) -> None:
        """Start an orderly shutdown: accept no more requests, give methods `GRACE` seconds to finish."""
        self.is_stopping = True
        self._over.set()

    # ---- from the beginning to the end ----

    @trio.lowlevel.enable_ki_protection
    async def run(self, early: Sequence[Event], started: Callable[[], object], *, may_return: bool) -> None:
        """Serve until the connection ends, the Service is shut down, or this is cancelled.

        It cancels the nursery of `Workers`, unless the connection is lost and `may_return` is True.

        Args:
            early: The events that were received with the end of the handshake.
            started: Called when everything is running.
            may_return: Whether the Service connects again when the connection is lost. Then requests in
                progress go on.
        """
        self._workers.attach(self._send_queue)
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._write)
                tasks.start_soon(self._flush_delayed)
                tasks.start_soon(self._heartbeat)
                try:
                    await self._serve(tasks, early, started, may_return=may_return)
                finally:
                    for scope in (self._writing, self._flushing_delayed, self._checking, self._reading):
                        scope.cancel()
        except BaseExceptionGroup as group:
            failure = single(group)
        finally:
            self._send_queue.close()
            self._transport.end(cut_off=self._send_queue.unsent > 0)
        raise_failure(failure)

    @property
    def reason(self) -> ConnectionLost | None:
        """The reason why the connection has ended; None: it has not, or the Service has ended it."""
        return None if self._sent_goodbye else self._reason

    async def _serve(
        self,
        tasks: trio.Nursery,
        early: Sequence[Event],
        started: Callable[[], object],
        *,
        may_return: bool,
    ) -> None:
        """Serve until the end, then finish within the time limits `GRACE` and `GOODBYE`.

        Args:
            tasks: The nursery of the tasks of the connection.
            early: See `run`.
            started: See `run`.
            may_return: See `run`.
        """
        deadline = None
        is_abandoned = False
        try:
            self._dispatcher.dispatch(early)
            tasks.start_soon(self._read)
            started()
            await self._over.wait()
            if self._reason is None:
                deadline = trio.current_time() + GRACE
                await self._settle(deadline)
            is_abandoned = may_return and not self.is_stopping
        finally:
            if is_abandoned:
                # First the queue, so that what waits for its turn to emit is not counted as a request.
                self._send_queue.abandon(self._workers.on_late)
                self._dispatcher.abandon()
            else:
                self._workers.nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await self._finish(deadline or trio.current_time() + GRACE)

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

    @trio.lowlevel.enable_ki_protection
    async def _heartbeat(self) -> None:
        """Send a probe to a silent Manager; without an answer, the connection is lost.

        A Manager that is stopped, or a proxy whose Manager is gone, keeps the connection open.
        """
        interval, reader = self._heartbeat_interval, self._dispatcher.reader
        if interval is None:
            return
        with self._checking:
            silent, seen = 0, (reader.credit, reader.progress)
            while True:
                await trio.sleep(interval / _HEARTBEAT_CHECKS)
                # Whatever is received changes the credit; a counter would cost something for each request.
                before, seen = seen, (reader.credit, reader.progress)
                # An answer to the heartbeat would not be read while methods are waited for.
                silent = 0 if seen != before or reader.waits_for_methods else silent + 1
                if silent == _HEARTBEAT_CHECKS:
                    self._send_queue.add(self._protocol.ping())
                    self._send_queue.flush()
                elif silent >= 2 * _HEARTBEAT_CHECKS:
                    self._fail(
                        ConnectionLost(
                            f"Manager[{self._protocol.manager}] has sent nothing for {2 * interval:g} seconds"
                        )
                    )
                    self._over.set()
                    return

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
