"""Connection of a client: its parts, its tasks and its end.

An idle connection has one task, which reads. The reader hands what it receives to the protocol, and wakes the
task that an event belongs to. Only the reader ends the connection, so that there is one reason for the end,
which every caller gets. Requests are made by `TaskRequests` in tasks, and by way of `Threads` in threads.

Everything here runs in the Trio thread. `Connection.lock` is held around changes of the protocol once other
threads share the connection.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio
from trio.lowlevel import reschedule

from msl_network_trio.client.end_reason import EndReason
from msl_network_trio.client.idle_probe import IdleProbe
from msl_network_trio.client.mailboxes import Mailboxes
from msl_network_trio.client.reply import ParkedRequest, Reply
from msl_network_trio.client.request_queue import RequestQueue
from msl_network_trio.client.statistics import ErrorCounts
from msl_network_trio.client.task_requests import TaskRequests
from msl_network_trio.client.threads import Threads
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.logger import get_logger
from msl_network_trio.parking import RESUME
from msl_network_trio.portal.portal import Portal
from msl_network_trio.protocol.client import ClientProtocol, Event
from msl_network_trio.protocol.late_replies import LateReply
from msl_network_trio.protocol.messages import ManagerNotice, NotificationBatch
from msl_network_trio.protocol.requests import Request
from msl_network_trio.transport.base import Stream

logger = get_logger(__name__)

_READ_REASON_TIMEOUT = 1.0
"""Seconds to continue reading after a failure to write: the Manager's reason may still arrive."""


class ConnectionOwner(Protocol):
    """Owner of a connection; see `Session`."""

    mailboxes: Mailboxes
    errors: ErrorCounts

    def take_notifications(self, batch: NotificationBatch) -> None:
        """Take notifications of a Service from the reader; must not wait."""

    def take_late_reply(self, reply: LateReply) -> None:
        """Take the reply to a request whose caller waits no longer; must not wait."""

    def take_notice(self, notice: ManagerNotice) -> None:
        """Take a notice of the Manager from the reader, in the order of the wire; must not wait."""

    def connection_ending(self, reason: ConnectionLost) -> None:
        """Take the reason for the end, before the callers of open requests are woken; must not wait."""

    def connection_ended(self, reason: ConnectionLost) -> None:
        """Take the reason for the end, after every request is settled; must not wait."""


class Connection:
    """A connection to a Manager, after the handshake.

    Its owner runs `run` in a task. Everything else may be called from any task of the Trio run.

    Args:
        transport: The stream to the Manager, which the connection closes.
        protocol: The protocol, after the handshake.
        owner: The owner.
        request_timeout: Default for the seconds to wait for a reply; None: no limit.
        max_unsent: Maximum bytes that wait to be written before requests have to wait.
        probe_after: Seconds that a request is open before the first probe; None: no probes.
        probe_every: Maximum seconds between probes.
        unresponsive_after: Seconds without an answer after which the connection counts as lost; None: never.

    Attributes:
        closed: Set when the connection has ended and every request is settled.
        port: Port number on this computer.
        signals_lose_bytes: See `ThreadIO.signals_lose_bytes`.
        lock: Held around every change of the protocol, once threads share the connection.
        portal: The way from threads into the Trio run.
        threads: The side of other threads.
        protocol: The protocol.
        mailboxes: The notifications that are not handled yet.
        requests: Makes the requests of tasks.
    """

    def __init__(
        self,
        transport: Stream,
        protocol: ClientProtocol,
        owner: ConnectionOwner,
        *,
        request_timeout: float | None = None,
        max_unsent: int = 64 * 1024 * 1024,
        probe_after: float | None = 5,
        probe_every: float = 60,
        unresponsive_after: float | None = 60,
    ) -> None:
        self.protocol = protocol
        self.closed = trio.Event()
        self.port = transport.port
        self.lock = transport.lock
        io = transport.thread_io
        self.signals_lose_bytes = io is not None and io.signals_lose_bytes
        self.portal = Portal.here()
        self.mailboxes = owner.mailboxes
        self._owner = owner
        self._transport = transport
        self._reason = EndReason(protocol.manager)
        self._nursery: trio.Nursery | None = None
        self._to_start: list[Callable[[], Awaitable[None]]] = []
        """Tasks that were needed before there was a nursery."""
        self._deadline = math.inf
        """Deadline of the connection's tasks, by Trio's clock."""
        self._idle_probe = IdleProbe(
            protocol,
            transport.lock,
            self.start_task,
            self._probe,
            self._give_up,
            first=math.inf if probe_after is None else probe_after,
            at_most_every=probe_every,
            unresponsive_after=math.inf if unresponsive_after is None else unresponsive_after,
        )
        self._queue = RequestQueue(
            protocol,
            transport,
            max_unsent,
            start=self.start_task,
            on_error=self._cannot_send,
            on_accepted=self._idle_probe.note_activity,
        )
        self.threads = Threads(
            transport,
            protocol,
            self._queue,
            self._idle_probe,
            mailboxes=self.mailboxes,
            deliver=self._deliver,
            take_late_reply=owner.take_late_reply,
        )
        self.requests = TaskRequests(
            protocol,
            self._queue,
            transport.lock,
            idle_probe=self._idle_probe,
            lease=self.threads.lease,
            timeout=request_timeout,
            errors=owner.errors,
            take_late_reply=owner.take_late_reply,
        )

    @property
    def is_open(self) -> bool:
        """Whether requests can be made."""
        reason = self._reason
        return reason.error is None and reason.write_error is None and self.protocol.lost is None

    @trio.lowlevel.enable_ki_protection
    async def disconnect(self, seconds: float) -> None:
        """Send the goodbye, wait until the Manager closes the connection, and close it in any case.

        Requests that were made before are still written, except those behind an open admin request; then no
        goodbye is sent either. May be called again.

        Args:
            seconds: Maximum seconds to wait for the Manager.
        """
        try:
            with trio.move_on_after(seconds):
                if self.is_open:
                    self._reason.set_disconnected()
                    with self.lock:
                        self.threads.queue_gathered()
                        is_sent = self.protocol.say_goodbye()
                        self._queue.schedule_flush()
                    self.threads.lease.call_back()
                    if not is_sent:
                        await self._queue.drain()
                        return
                await self.closed.wait()
        finally:
            self._end_before(-math.inf)
            with trio.CancelScope(shield=True):
                await self.closed.wait()

    def close(self) -> None:
        """Close a connection whose task was never started."""
        self._end()

    # ---- the reader, which is the connection's task ----

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Run the connection until it ends, shielded from cancellation; `disconnect` ends it."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.cancel_scope.shield = True
                nursery.cancel_scope.deadline = self._deadline
                for function in self._to_start:
                    self.start_task(function)
                self._to_start.clear()
                try:
                    await self._read()
                except ConnectionLost as error:
                    self._reason.set_lost(error)
                except Exception as error:  # noqa: BLE001 - it is logged
                    self._fail(error)
                finally:
                    self._end()
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None

    async def _read(self) -> None:
        """Read until the connection ends, and dispatch what is received.

        Raises:
            ConnectionLost: The stream cannot be read any more.
        """
        protocol, threads, queue = self.protocol, self.threads, self._queue
        receive = self._transport.receive
        event: Event | None
        while data := await receive():
            self._idle_probe.is_active = True
            if threads.is_shared:
                await self._read_shared(data)
            else:
                for event in protocol.receive(data):
                    if type(event) is ParkedRequest:  # what event.wake() does, without the call
                        if (task := event.waiter) is not None:
                            event.waiter = None
                            reschedule(task, RESUME)
                    elif isinstance(event, Request):
                        event.wake()
                    else:
                        self._dispatch_unrequested(event)
                event = None  # a reply must not be kept alive while nothing is received
            if protocol.outbox.unsent or queue.waiting:
                queue.schedule_flush()
            if protocol.broken is not None:
                self._reason.set(protocol.broken)
                return
        self._reason.set(protocol.receive_eof(self._transport.close_reason))

    async def _read_shared(self, data: bytes) -> None:
        """Dispatch what was received, and lend the stream to threads that wait for replies, if that pays."""
        if self._deliver(data) and self.protocol.broken is None:
            if self.protocol.outbox.unsent or self._queue.waiting:
                self._queue.schedule_flush()
            await self.threads.lend()

    def _deliver(self, data: bytes) -> bool:
        """Dispatch what was received on a shared connection.

        Returns:
            Whether to lend the stream to threads.
        """
        with self.lock:
            events = self.protocol.receive(data)
            self.threads.number(events)
            lend = self.threads.is_worth_lending(events)
        for event in events:
            if isinstance(event, Request):
                event.wake()
            elif isinstance(event, NotificationBatch):
                self._owner.take_notifications(event)
            elif isinstance(event, ManagerNotice):
                self._owner.take_notice(event)
            elif isinstance(event, LateReply):
                self._owner.take_late_reply(event)
        return lend

    def _dispatch_unrequested(self, event: Event) -> None:
        """Number notifications, which on a shared connection happens under the lock, and pass events on."""
        if isinstance(event, NotificationBatch):
            self.mailboxes.number(event)
            self._owner.take_notifications(event)
        elif isinstance(event, ManagerNotice):
            self._owner.take_notice(event)
        elif isinstance(event, LateReply):
            self._owner.take_late_reply(event)

    def _end(self) -> None:
        """Settle all requests, close the stream, and notify the owner."""
        reason = self._reason.final()
        with self.lock:
            cut_off = self._queue.rest_size > 0
            requests = self.protocol.connection_lost(reason, cut_off=cut_off)
            self._queue.discard()
            self.threads.queue_gathered()  # it finds the connection ended, and fails what threads have queued
        self._owner.connection_ending(reason)
        for request in requests:
            request.wake()
        self._transport.end(cut_off=cut_off)
        self.closed.set()
        self._owner.connection_ended(reason)

    # ---- further tasks, which are started when they are first needed ----

    def start_task(self, function: Callable[[], Awaitable[None]]) -> None:
        """Start a task that ends with the connection.

        A thread may ask for one after the end, when the nursery is closed; that has no effect.
        """
        if self.closed.is_set():
            return
        if self._nursery is None:
            self._to_start.append(function)
        else:
            self._nursery.start_soon(self._run_task, function)

    @trio.lowlevel.enable_ki_protection
    async def _run_task(self, function: Callable[[], Awaitable[None]]) -> None:
        try:
            await function()
        except Exception as error:  # noqa: BLE001 - it is logged
            self._fail(error)

    def _cannot_send(self, error: ConnectionLost) -> None:
        """Note why nothing can be sent, and read on for a moment: the Manager may have sent the reason."""
        self._reason.set_write_error(error)
        self._end_before(trio.current_time() + _READ_REASON_TIMEOUT)

    def _end_before(self, deadline: float) -> None:
        """Limit the time of the connection's tasks, by Trio's clock."""
        self._deadline = min(deadline, self._deadline)
        if self._nursery is not None:
            self._nursery.cancel_scope.deadline = self._deadline

    def _fail(self, error: Exception) -> None:
        """End the connection because of an internal error, which must not end the application."""
        logger.error("the connection to Manager[%s] failed", self.protocol.manager, exc_info=error)
        self._reason.set_failed(error)
        self._end_before(-math.inf)

    def _probe(self) -> Reply:
        return self.requests.post("identity")

    def _give_up(self, seconds: float) -> None:
        """End a connection to a Manager that does not answer."""
        self._reason.set_silent(seconds)
        self._end_before(-math.inf)
