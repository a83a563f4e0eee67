"""The connection: two tasks that move bytes, and the callers that wait for replies.

The data's way is short. A caller encodes its request and hands it to the writer, which sends it at once if
nothing else waits to be written. The reader task hands what arrives to the protocol and wakes whoever an
event belongs to. Only the reader's death ends the connection, so there is one reason for it, and every
caller is given it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import trio
from trio.lowlevel import checkpoint_if_cancelled, current_task, wait_task_rescheduled

from msl_network_trio import arguments
from msl_network_trio.callbacks import CallbackTasks
from msl_network_trio.client.idle_probe import IdleProbe
from msl_network_trio.client.mailboxes import Mailboxes
from msl_network_trio.client.reply import ParkedRequest, Reply, timed_out
from msl_network_trio.client.request_queue import RequestQueue
from msl_network_trio.client.threads import Threads
from msl_network_trio.constants import MANAGER, MAX_UNHANDLED
from msl_network_trio.exceptions import BacklogFull, ConnectionLost, NetworkError
from msl_network_trio.hidden import hide
from msl_network_trio.logger import get_logger
from msl_network_trio.portal.portal import Portal
from msl_network_trio.protocol.client import ClientProtocol, Event
from msl_network_trio.protocol.messages import NotificationBatch, Question
from msl_network_trio.protocol.requests import ABANDONED, NO_WAITER, Request
from msl_network_trio.transport.base import Stream

logger = get_logger(__name__)

R = TypeVar("R", bound=Request)

GOODBYE_TIMEOUT = 2.0
"""How many seconds the end of a scope or of the program waits for the Manager to close the connection."""

_DRAIN = 1.0
"""How many seconds to go on reading when nothing can be written any more: the reason may be on its way."""


class Connection:
    """A connection whose handshake is over.

    Its owner runs `run` (or `move_bytes`) in a task; everything else may be called from any task.

    Args:
        transport: The carrier, which the connection closes.
        protocol: The protocol, connected.
        request_timeout: How many seconds to wait for a reply if a call does not say.
        max_unsent: How many bytes may wait to be written before callers have to wait.
        probe_after: How many seconds requests are open before the Manager is asked who is there; None: never.
        probe_every: The most seconds between such questions.
        unresponsive_after: How many seconds a Manager that owes an answer may be silent; None: for ever.
        max_unhandled: See `Mailboxes`.
        connect_seconds: How many seconds it took to open, not counting those in which a person was asked.

    Attributes:
        closed: Set when the connection has ended, and every request is settled.
        port: The number of our own port.
        signals_lose_bytes: See `ThreadIO.signals_lose_bytes`.
        lock: Held around everything that is done to the protocol, so that threads can make requests too.
        portal: The way from threads to the connection.
        threads: What threads may do.
        mailboxes: The notifications that wait to be handled.
        callback_tasks: Runs code of the user, for as long as the connection's own task.
        on_notifications: Called by the reader with what a Service has emitted; must not wait.
        on_end: Called once when the connection has ended, with the reason; may return an async function for
            the connection's task to run at the very last, for `GOODBYE_TIMEOUT` at the most.
    """

    def __init__(
        self,
        transport: Stream,
        protocol: ClientProtocol,
        *,
        request_timeout: float | None = None,
        max_unsent: int = 64 * 1024 * 1024,
        probe_after: float | None = 5,
        probe_every: float = 60,
        unresponsive_after: float | None = 60,
        max_unhandled: int = MAX_UNHANDLED,
        connect_seconds: float = 0.0,
    ) -> None:
        self.protocol = protocol
        self.connect_seconds = connect_seconds
        self.closed = trio.Event()
        self.port = transport.port
        self.on_notifications: Callable[[NotificationBatch], None] = lambda _: None
        self.on_end: Callable[[ConnectionLost], Callable[[], Awaitable[None]] | None] = lambda _: None
        self.lock = transport.lock
        io = transport.thread_io
        self.signals_lose_bytes = io is not None and io.signals_lose_bytes
        self.portal = Portal.here()
        self._transport = transport
        self._request_timeout = math.inf if request_timeout is None else request_timeout
        self._reason: ConnectionLost | None = None
        self._write_error: ConnectionLost | None = None
        self._nursery: trio.Nursery | None = None
        self._to_start: list[Callable[[], Awaitable[None]]] = []
        """The tasks that were needed before there was a nursery."""
        self._last_moment = math.inf
        self.callback_tasks = CallbackTasks()
        self._finished: trio.Event | None = None
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
            look_after=self._look_after_requests,
            on_progress=self._idle_probe.note_activity,
        )
        self.mailboxes = Mailboxes(max_unhandled)
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
        return self._reason is None and self._write_error is None and self.protocol.lost is None

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
            service: The name of the Service, or ``"Manager"``.
            attribute: What to call, or the property to read.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            timeout: How many seconds to wait; None: the connection's default; ``math.inf``: no limit.
            linking: The Service with which this request links.

        Raises:
            TypeError: An argument has no JSON form; nothing was written.
            ValueError: An argument cannot be sent; nothing was written.
            RemoteError: The Service, or as `ManagerError` the Manager, answered with an error.
            ServiceLost: The Service is not connected.
            ReplyTimeout: The time is over.
            ConnectionLost: The connection ended.
        """
        seconds = self._request_timeout if timeout is None else self.seconds(timeout)
        request = self.protocol.make(ParkedRequest, service, attribute, args, kwargs)
        # Before anything is queued: a call in a cancelled scope must not be executed.
        await checkpoint_if_cancelled()
        try:
            if linking:
                self.protocol.note_link(request, linking)
            if seconds == math.inf and self._requests.put(request):
                request.waiter = current_task()  # what request.wait() does, without the call
                await wait_task_rescheduled(request.forget_waiter)
            else:
                with trio.move_on_after(seconds):
                    await self._exchange(request)
                if not request.settled:
                    raise timed_out(request, seconds)
        except ConnectionLost:
            # A program that tries again and again must not stop all others.
            await trio.lowlevel.checkpoint()
            raise
        except BaseException:
            self.abandon(request)
            raise
        return request.result if request.error is None else request.outcome()

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

        The timeout counts from now, but shows only where the reply is awaited.

        Raises:
            TypeError: An argument has no JSON form; nothing was written.
            ValueError: An argument cannot be sent; nothing was written.
            BacklogFull: Too much waits to be written.
            ConnectionLost: The connection has ended.
        """
        seconds = self._request_timeout if timeout is None else self.seconds(timeout)
        request = self.protocol.make(Reply, service, attribute, args, kwargs)
        request.owner = self
        request.waiter = NO_WAITER
        if seconds != math.inf:
            request.limit(seconds)
        for _ in checkpoint_if_cancelled().__await__():  # noqa: ASYNC105 - so that nobody waits
            # It was about to wait for the cancellation to be delivered. (The effective deadline would say so
            # as well, but to ask for that takes the longer the more scopes the task is in.)
            request.phase = ABANDONED  # who is cancelled already must not have anything executed
            return request
        if not self._requests.put(request):
            raise self.backlog_full(request)
        return request

    def backlog_full(self, request: Request) -> BacklogFull:
        """Return the error of a request that has no room, and cannot wait for it."""
        return BacklogFull(
            f"{self._requests.unsent:,} bytes wait to be written (max_unsent is "
            f"{self._requests.max_unsent:,}), so {request.service}.{request.attribute} was not sent; await "
            "replies before making more requests"
        )

    @trio.lowlevel.enable_ki_protection
    def post(self, attribute: str, *args: Any) -> Reply:
        """Send a small request to the Manager that has to go out whatever waits and whoever is cancelled.

        Nobody need look at the reply. If the connection has ended, there is nothing to be sent.
        """
        request = self.protocol.make(Reply, MANAGER, attribute, args, None)
        request.owner = self
        request.waiter = trio.Event()  # as if a task waited, so that an error is not logged as unseen
        try:
            self._requests.put_in_any_case(request)
        except ConnectionLost as error:
            request.fail(error)
        return request

    @trio.lowlevel.enable_ki_protection
    async def say(self, attribute: str, *args: Any) -> None:
        """`post`, at the end of a scope: wait a little, whoever is cancelled, and raise nothing."""
        reply = self.post(attribute, *args)
        with trio.move_on_after(GOODBYE_TIMEOUT, shield=True):
            try:
                await reply
            except NetworkError as error:
                logger.debug("%s%r failed: %s", attribute, args, error)

    @trio.lowlevel.enable_ki_protection
    async def admin_request(
        self,
        attribute: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        timeout: float | None,
        answer: Callable[[Question], Awaitable[str]],
    ) -> Any:
        """Make a request that only an administrator may make; see `request`.

        Args:
            attribute: What to call, dots included.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            timeout: How many seconds to wait, not counting those that `answer` takes.
            answer: Answers the Manager's questions; called in the task of the caller.
        """
        seconds = self.seconds(timeout)
        protocol = self.protocol
        request = protocol.make(ParkedRequest, MANAGER, attribute, args, kwargs)
        request.admin = True
        with trio.move_on_after(seconds) as scope:
            try:
                await self._exchange(request)
                while not request.settled:
                    question = request.question
                    assert question is not None  # the only other reason to be woken
                    left = scope.deadline - trio.current_time()
                    scope.deadline = math.inf
                    text = hide(await answer(question))
                    scope.deadline = trio.current_time() + left
                    if not request.settled:  # the connection may have ended in the meantime
                        with self.lock:
                            protocol.answer(text.reveal())
                            self._requests.flush()
                        await request.wait()
            except ConnectionLost:
                await trio.lowlevel.checkpoint()
                raise
            except BaseException:
                self.abandon(request)
                raise
        if not request.settled:
            raise timed_out(request, seconds)
        return request.outcome()

    @trio.lowlevel.enable_ki_protection
    def abandon(self, request: Request) -> None:
        """Give up on a request; see `ClientProtocol.abandon`."""
        with self.lock:
            self.protocol.abandon(request)
            self._requests.flush()

    @trio.lowlevel.enable_ki_protection
    async def disconnect(self, timeout: float | None = None) -> None:
        """Say goodbye, wait until the Manager has closed the connection, and close it in any case.

        What was requested before is still written, but for what an open admin request holds back; then
        there is no goodbye either. Calling it again does no harm.

        Args:
            timeout: How many seconds to wait for the Manager; None: `GOODBYE_TIMEOUT`.

        Raises:
            ValueError: The timeout is negative or not a number.
        """
        seconds = GOODBYE_TIMEOUT if timeout is None else self.seconds(timeout)
        try:
            with trio.move_on_after(seconds):
                if self.is_open:
                    self._reason = self._disconnected()
                    with self.lock:
                        self.threads.queue_patient()
                        said = self.protocol.say_goodbye()
                        self._requests.flush()
                    self.threads.lease.call_back()
                    if not said:
                        await self._requests.drain()
                        return
                await self.closed.wait()
        finally:
            self._end_before(-math.inf)
            self.callback_tasks.cancel(but=trio.lowlevel.current_task())
            with trio.CancelScope(shield=True):
                await self.closed.wait()

    def close(self) -> None:
        """Close a connection whose task was never started."""
        self._end()

    def seconds(self, timeout: float | None) -> float:
        """Return the timeout of a call, with the default filled in.

        Raises:
            TypeError: It is no number.
            ValueError: It is negative or not a number.
        """
        if timeout is None:
            return self._request_timeout
        return arguments.seconds("timeout", timeout)

    @trio.lowlevel.enable_ki_protection
    async def _exchange(self, request: ParkedRequest) -> None:
        """Queue a request, when there is room for it, and wait until it is woken."""
        await checkpoint_if_cancelled()  # also if the time that it has is over already
        if not self._requests.put(request):
            await self._requests.put_when_there_is_room(request)
        await request.wait()

    def _look_after_requests(self) -> None:
        """See to it that somebody cares for requests that have been queued: the idle_probe, and who reads."""
        if self._idle_probe.is_asleep:
            self._idle_probe.wake()
        if self.threads.lease.is_lent:
            self.threads.lease.call_back()

    # ---- the tasks ----

    def _start_task(self, function: Callable[[], Awaitable[None]]) -> None:
        """Start one of our own tasks, which end with the connection, and none after it.

        A thread may have asked for one in the very last moment, when its nursery takes none any more.
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
        except ConnectionLost as error:
            # The reader may find a better reason: what the Manager said before it closed the connection.
            self._write_error = self._broken(error)
            self._end_before(trio.current_time() + _DRAIN)
        except Exception as error:  # noqa: BLE001 - it is logged
            self._crash(error)

    def _end_before(self, moment: float) -> None:
        """Let the connection's tasks run no longer than until then, by Trio's clock."""
        self._last_moment = min(moment, self._last_moment)
        if self._nursery is not None:
            self._nursery.cancel_scope.deadline = self._last_moment

    def _crash(self, error: Exception) -> None:
        """Note a mistake of ours. It must not take the application down, nor leave anybody waiting."""
        logger.error("the connection to Manager[%s] failed", self.protocol.manager, exc_info=error)
        self._fail(ConnectionLost(f"The connection to Manager[{self.protocol.manager}] failed: {error!r}"))
        self._end_before(-math.inf)

    def _give_up(self, seconds: float) -> None:
        """End a connection to a Manager that has gone silent."""
        self._fail(
            ConnectionLost(f"Manager[{self.protocol.manager}] has said nothing for {seconds:g} seconds")
        )
        self._end_before(-math.inf)

    async def _read(self) -> None:
        """Read until the connection ends, and hand everything to whom it belongs."""
        protocol = self.protocol
        receive = self._transport.receive
        try:
            while True:
                data = await receive()
                if not data:
                    self._fail(protocol.receive_eof(self._transport.close_reason))
                    return
                self._idle_probe.note_activity()
                lend = self._deliver(data)
                if protocol.outbox.unsent or self._requests.waiting:
                    self._requests.flush()
                if lend and protocol.broken is None:
                    await self.threads.lend()
                    if protocol.outbox.unsent or self._requests.waiting:
                        self._requests.flush()
                if protocol.broken is not None:
                    self._fail(protocol.broken)
                    return
        except ConnectionLost as error:
            self._fail(self._broken(error))
        except Exception as error:  # noqa: BLE001 - it is logged
            self._crash(error)

    def _deliver(self, data: bytes) -> bool:
        """Tell everybody what has arrived for them, and return whether to let threads read what comes."""
        lend = False
        if self.threads.is_shared:
            with self.lock:
                events = self.protocol.receive(data)
                self.threads.number(events)
                lend = self.threads.is_worth_lending(events)
        else:
            events = self.protocol.receive(data)
        self._dispatch(events)
        return lend

    def _dispatch(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Request):
                event.wake()
            elif isinstance(event, NotificationBatch):
                if not self.threads.is_shared:  # else it was numbered when it was received
                    self.mailboxes.number(event)
                self.on_notifications(event)

    def _fail(self, error: NetworkError) -> None:
        """Remember why the connection ended; the first reason is the one that counts."""
        if self._reason is None:
            self._reason = error if isinstance(error, ConnectionLost) else ConnectionLost(str(error))

    def _disconnected(self) -> ConnectionLost:
        return ConnectionLost(f"Disconnected from Manager[{self.protocol.manager}]")

    def _broken(self, error: ConnectionLost) -> ConnectionLost:
        """Say which connection it was that broke, which a transport does not know."""
        return ConnectionLost(f"The connection to Manager[{self.protocol.manager}] was lost: {error}")

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Run the connection until it ends; when cancelled, say goodbye first."""
        self._finished = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.move_bytes)
            try:
                await self._finished.wait()
            finally:
                with trio.CancelScope(shield=True):
                    await self.disconnect(GOODBYE_TIMEOUT)
                self.callback_tasks.cancel()

    @trio.lowlevel.enable_ki_protection
    async def move_bytes(self) -> None:
        """Run the connection until it ends, whoever is cancelled; only `disconnect` cancels it.

        Then it waits for the notification handlers that are at work.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = self.callback_tasks.nursery = nursery
                nursery.cancel_scope.shield = True
                nursery.cancel_scope.deadline = self._last_moment
                for function in self._to_start:
                    self._start_task(function)
                self._to_start.clear()
                try:
                    await self._read()
                finally:
                    self._end()
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = self.callback_tasks.nursery = None
            if self._finished is not None:
                self._finished.set()

    def _end(self) -> None:
        reason = self._reason or self._write_error or self._disconnected()
        with self.lock:
            cut_off = self._requests.is_inside_a_message
            requests = self.protocol.connection_lost(reason, cut_off=cut_off)
            self._requests.close()
            self.threads.queue_patient()  # there is no queue any more, of which they are told
        for request in requests:
            request.wake()
        self._transport.end(cut_off=cut_off)
        self.closed.set()
        at_last = self.on_end(reason)
        if at_last is not None:
            self.callback_tasks.start_last(at_last, GOODBYE_TIMEOUT)
