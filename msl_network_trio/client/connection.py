"""Connection of a client: the tasks that move its bytes, and the requests of tasks.

An idle connection has one task, which reads. The path of a request: `Connection.request` encodes it and puts
it into the request queue, which sends it at once if nothing else waits to be written; the reader hands what
it receives to the protocol, and wakes the task that an event belongs to. Only the reader ends the connection,
so that there is one reason for the end, which every caller gets.

Everything here runs in the Trio thread. `Connection.lock` is held around changes of the protocol once other
threads share the connection; their side of it is `Threads`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import trio
from trio.lowlevel import checkpoint_if_cancelled, current_task, reschedule, wait_task_rescheduled

from msl_network_trio import arguments
from msl_network_trio.callbacks import CallbackTasks
from msl_network_trio.client.end_reason import EndReason
from msl_network_trio.client.idle_probe import IdleProbe
from msl_network_trio.client.mailboxes import Mailboxes
from msl_network_trio.client.reply import ParkedRequest, Reply, timed_out
from msl_network_trio.client.request_queue import RequestQueue
from msl_network_trio.client.threads import Threads
from msl_network_trio.constants import MANAGER
from msl_network_trio.exceptions import BacklogFull, ConnectionLost, NetworkError
from msl_network_trio.hidden import Hidden
from msl_network_trio.logger import get_logger
from msl_network_trio.parking import RESUME
from msl_network_trio.portal.portal import Portal
from msl_network_trio.protocol.client import ClientProtocol, Event
from msl_network_trio.protocol.messages import NotificationBatch
from msl_network_trio.protocol.requests import ABANDONED, NO_WAITER, Request
from msl_network_trio.transport.base import Stream

logger = get_logger(__name__)

GOODBYE_TIMEOUT = 2.0
"""Seconds to wait for the Manager to close the connection, at the end of a scope or of the program."""

_READ_REASON_TIMEOUT = 1.0
"""Seconds to go on reading after a failure to write: the Manager's reason may still arrive."""


class ConnectionOwner(Protocol):
    """Owner of a connection; see `Session`."""

    mailboxes: Mailboxes
    callback_tasks: CallbackTasks

    def take_notifications(self, batch: NotificationBatch) -> None:
        """Take notifications of a Service from the reader; must not wait."""

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
        finished: Set when `run` has returned, if there is an event here; to be made by what waits for it.
        port: Port number on this computer.
        signals_lose_bytes: See `ThreadIO.signals_lose_bytes`.
        lock: Held around every change of the protocol, once threads share the connection.
        portal: The way from threads into the Trio run.
        threads: The side of other threads.
        protocol: The protocol.
        mailboxes: The notifications that are not handled yet.
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
        self.finished: trio.Event | None = None
        self.port = transport.port
        self.lock = transport.lock
        io = transport.thread_io
        self.signals_lose_bytes = io is not None and io.signals_lose_bytes
        self.portal = Portal.here()
        self.mailboxes = owner.mailboxes
        self._owner = owner
        self._transport = transport
        self._request_timeout = math.inf if request_timeout is None else request_timeout
        self._reason = EndReason(protocol.manager)
        self._nursery: trio.Nursery | None = None
        self._to_start: list[Callable[[], Awaitable[None]]] = []
        """Tasks that were needed before there was a nursery."""
        self._deadline = math.inf
        """Deadline of the connection's tasks, by Trio's clock."""
        self._idle_probe = IdleProbe(
            protocol,
            transport.lock,
            self._start_task,
            partial(self.post, "identity"),
            self._give_up,
            first=math.inf if probe_after is None else probe_after,
            at_most_every=probe_every,
            unresponsive_after=math.inf if unresponsive_after is None else unresponsive_after,
        )
        self._requests = RequestQueue(
            protocol,
            transport,
            max_unsent,
            start=self._start_task,
            on_error=self._cannot_send,
            on_accepted=self._idle_probe.note_activity,
        )
        self.threads = Threads(
            transport,
            protocol,
            self._requests,
            self._idle_probe,
            mailboxes=self.mailboxes,
            deliver=self._deliver,
        )

    # ---- for callers ----

    @property
    def is_open(self) -> bool:
        """Whether requests can be made."""
        reason = self._reason
        return reason.error is None and reason.write_error is None and self.protocol.lost is None

    @trio.lowlevel.enable_ki_protection
    async def request(
        self,
        service: str,
        attribute: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        linking: str = "",
    ) -> Any:
        """Make a request and wait for its reply.

        Args:
            service: Name of the Service, or ``"Manager"``.
            attribute: Name of the method to call or of the property to read.
            args: Positional arguments.
            kwargs: Keyword arguments.
            timeout: Seconds to wait for the reply; None: the connection's default; ``math.inf``: no limit.
            linking: Name of the Service that a link request is for.

        Raises:
            TypeError: An argument has no JSON form; nothing was written.
            ValueError: An argument cannot be sent; nothing was written.
            RemoteError: The Service, or as `ManagerError` the Manager, answered with an error.
            ServiceLost: The Service is not connected.
            ReplyTimeout: No reply in time.
            ConnectionLost: The connection has ended.
        """
        seconds = self._request_timeout if timeout is None else self.seconds(timeout)
        request = self.protocol.make(ParkedRequest, service, attribute, args, kwargs)
        # Before anything is queued: a call in a cancelled scope must not be executed.
        await checkpoint_if_cancelled()
        try:
            if linking:
                self.protocol.note_link(request, linking)
            if seconds == math.inf and self._requests.put(request):
                if self._idle_probe.is_asleep or self.threads.lease.is_lent:
                    self._look_after_requests()
                request.waiter = current_task()  # what request.wait() does, without the call
                await wait_task_rescheduled(request.forget_waiter)
            else:
                with trio.move_on_after(seconds):
                    await self.exchange(request)
                if not request.settled:
                    raise timed_out(request, seconds)
        except ConnectionLost:
            # A loop that retries must not starve other tasks.
            await trio.lowlevel.checkpoint()
            raise
        except BaseException:
            self.abandon(request)
            raise
        return request.result if request.error is None else request.outcome()

    @trio.lowlevel.enable_ki_protection
    async def exchange(self, request: ParkedRequest) -> None:
        """Queue a request when there is room for it, and park until it is settled or has a question."""
        await checkpoint_if_cancelled()  # also if its timeout is 0
        if not self._requests.put(request):
            await self._requests.put_when_there_is_room(request)
        self._look_after_requests()
        await request.wait()

    @trio.lowlevel.enable_ki_protection
    def start(
        self,
        service: str,
        attribute: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """Make a request without waiting for anything; arguments as in `request`.

        The timeout counts from now, but takes effect only where the reply is awaited.

        Raises:
            TypeError: An argument has no JSON form; nothing was written.
            ValueError: An argument cannot be sent; nothing was written.
            BacklogFull: Too many bytes wait to be written.
            ConnectionLost: The connection has ended.
        """
        seconds = self._request_timeout if timeout is None else self.seconds(timeout)
        request = self.protocol.make(Reply, service, attribute, args, kwargs)
        request.owner = self
        request.waiter = NO_WAITER
        if seconds != math.inf:
            request.limit(seconds)
        for _ in checkpoint_if_cancelled().__await__():  # noqa: ASYNC105 - it must not wait
            # It was about to wait for the delivery of a cancellation. (The effective deadline would tell,
            # too, but finding it takes the longer the more scopes the task is in.)
            request.phase = ABANDONED  # the request of a cancelled task must not be executed
            return request
        if not self._requests.put(request):
            raise self.backlog_full(request)
        self._look_after_requests()
        return request

    @trio.lowlevel.enable_ki_protection
    def post(self, attribute: str, *args: Any) -> Reply:
        """Send a small request to the Manager, regardless of the backlog and of cancellation.

        The reply need not be awaited. If the connection has ended, nothing is sent.
        """
        request = self.protocol.make(Reply, MANAGER, attribute, args, None)
        request.owner = self
        request.waiter = trio.Event()  # as if a task waited, so that an error is not logged as unseen
        try:
            self._requests.put_in_any_case(request)
            self._look_after_requests()
        except ConnectionLost as error:
            request.fail(error)
        return request

    @trio.lowlevel.enable_ki_protection
    async def post_and_wait(self, attribute: str, *args: Any) -> None:
        """Send a small request to the Manager at the end of a scope, and wait a little for its reply.

        Waits at most `GOODBYE_TIMEOUT`, shielded from cancellation. An error is logged and not raised.
        """
        reply = self.post(attribute, *args)
        with trio.move_on_after(GOODBYE_TIMEOUT, shield=True):
            try:
                await reply
            except NetworkError as error:
                logger.debug("%s%r failed: %s", attribute, args, error)

    @trio.lowlevel.enable_ki_protection
    def answer(self, text: Hidden) -> None:
        """Answer the Manager's question about the open admin request."""
        with self.lock:
            self.protocol.answer(text.reveal())
            self._requests.schedule_flush()

    @trio.lowlevel.enable_ki_protection
    def abandon(self, request: Request) -> None:
        """Abandon a request; see `ClientProtocol.abandon`."""
        with self.lock:
            self.protocol.abandon(request)
            self._requests.schedule_flush()

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
                        self._requests.schedule_flush()
                    self.threads.lease.call_back()
                    if not is_sent:
                        await self._requests.drain()
                        return
                await self.closed.wait()
        finally:
            self._end_before(-math.inf)
            with trio.CancelScope(shield=True):
                await self.closed.wait()

    def close(self) -> None:
        """Close a connection whose task was never started."""
        self._end()

    def seconds(self, timeout: float | None) -> float:
        """Return the timeout of a call in seconds, with the default filled in.

        Raises:
            TypeError: It is not a number.
            ValueError: It is negative or not a number.
        """
        if timeout is None:
            return self._request_timeout
        return arguments.seconds("timeout", timeout)

    def backlog_full(self, request: Request) -> BacklogFull:
        """Return the error of a request for which there is no room, and that cannot wait for room."""
        return BacklogFull(
            f"{self._requests.unsent:,} bytes wait to be written (max_unsent is "
            f"{self._requests.max_unsent:,}), so {request.service}.{request.attribute} was not sent; await "
            "replies before making more requests"
        )

    # ---- the reader, which is the connection's task ----

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Run the connection until it ends, shielded from cancellation; `disconnect` ends it.

        It returns when the callback tasks have ended as well: handlers still get what was received.
        """
        callback_tasks = self._owner.callback_tasks
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = callback_tasks.nursery = nursery
                nursery.cancel_scope.shield = True
                nursery.cancel_scope.deadline = self._deadline
                for function in self._to_start:
                    self._start_task(function)
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
            self._nursery = callback_tasks.nursery = None
            if self.finished is not None:
                self.finished.set()

    async def _read(self) -> None:
        """Read until the connection ends, and dispatch what is received.

        Raises:
            ConnectionLost: The stream cannot be read any more.
        """
        protocol, threads, requests = self.protocol, self.threads, self._requests
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
                        self._dispatch_notifications(event)
                event = None  # a reply must not be kept alive while nothing is received
            if protocol.outbox.unsent or requests.waiting:
                requests.schedule_flush()
            if protocol.broken is not None:
                self._reason.set(protocol.broken)
                return
        self._reason.set(protocol.receive_eof(self._transport.close_reason))

    async def _read_shared(self, data: bytes) -> None:
        """Dispatch what was received, and lend the stream to threads that wait for replies, if that pays."""
        if self._deliver(data) and self.protocol.broken is None:
            if self.protocol.outbox.unsent or self._requests.waiting:
                self._requests.schedule_flush()
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
        return lend

    def _dispatch_notifications(self, event: Event) -> None:
        """Number notifications, which on a shared connection happens under the lock, and hand them on."""
        if isinstance(event, NotificationBatch):
            self.mailboxes.number(event)
            self._owner.take_notifications(event)

    def _end(self) -> None:
        """Settle all requests, close the stream, and notify the owner."""
        reason = self._reason.final()
        with self.lock:
            cut_off = self._requests.rest_size > 0
            requests = self.protocol.connection_lost(reason, cut_off=cut_off)
            self._requests.discard()
            self.threads.queue_gathered()  # it finds the connection ended, and fails what threads have queued
        for request in requests:
            request.wake()
        self._transport.end(cut_off=cut_off)
        self.closed.set()
        self._owner.connection_ended(reason)

    # ---- further tasks, which are started when they are first needed ----

    def _start_task(self, function: Callable[[], Awaitable[None]]) -> None:
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

    def _look_after_requests(self) -> None:
        """Make sure that there is a reader and an idle probe for requests that were queued."""
        if self._idle_probe.is_asleep:
            self._idle_probe.wake()
        if self.threads.lease.is_lent:
            self.threads.lease.call_back()

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

    def _give_up(self, seconds: float) -> None:
        """End a connection to a Manager that does not answer."""
        self._reason.set_silent(seconds)
        self._end_before(-math.inf)
