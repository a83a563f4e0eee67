"""Requests of tasks over a connection.

The path of a request: `TaskRequests.request` encodes it and puts it into the request queue, which sends it at
once if nothing else waits to be sent; then the task is parked until the reader of the connection wakes it.
All of it runs in the Trio thread. The lock is held around changes of the protocol once other threads share
the connection; their requests are `sync.calls.Calls`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import trio
from trio.lowlevel import checkpoint_if_cancelled, current_task, wait_task_rescheduled

from msl_network_trio import arguments
from msl_network_trio.client.idle_probe import IdleProbe
from msl_network_trio.client.reply import ParkedRequest, PostedReply, Reply, timed_out
from msl_network_trio.client.reply_lease import ReplyLease
from msl_network_trio.client.request_queue import RequestQueue
from msl_network_trio.client.statistics import ErrorCounts
from msl_network_trio.constants import MANAGER
from msl_network_trio.exceptions import BacklogFull, ConnectionLost, NetworkError
from msl_network_trio.hidden import Hidden
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.late_replies import LateReply, undelivered_reply
from msl_network_trio.protocol.requests import ABANDONED, NO_WAITER, Request

logger = get_logger(__name__)

GOODBYE_TIMEOUT: Final = 2.0
"""Seconds to wait for the Manager, at the end of a scope or of the program."""


class TaskRequests:
    """Makes the requests of tasks over a connection.

    Args:
        protocol: The protocol.
        queue: The queue of requests to be sent.
        lock: The lock of the connection.
        idle_probe: Probes the Manager while requests are open.
        lease: The read lease of threads.
        timeout: Default for the seconds to wait for a reply; None: no limit.
        errors: Counts the errors that callers get.
        take_late_reply: Takes replies that their callers cannot get any more.

    Attributes:
        errors: See above.
    """

    def __init__(
        self,
        protocol: ClientProtocol,
        queue: RequestQueue,
        lock: threading.RLock,
        *,
        idle_probe: IdleProbe,
        lease: ReplyLease,
        timeout: float | None,
        errors: ErrorCounts,
        take_late_reply: Callable[[LateReply], object],
    ) -> None:
        self.errors = errors
        self._take_late_reply = take_late_reply
        self._protocol = protocol
        self._queue = queue
        self._lock = lock
        self._idle_probe = idle_probe
        self._lease = lease
        self._request_timeout = math.inf if timeout is None else timeout

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
        kind: Callable[[str, str, str], ParkedRequest] = ParkedRequest,
    ) -> Any:
        """Make a request and wait for its reply.

        Args:
            service: Name of the Service, or ``"Manager"``.
            attribute: Name of the method to call or of the property to read.
            args: Positional arguments.
            kwargs: Keyword arguments.
            timeout: Seconds to wait for the reply; None: the connection's default; ``math.inf``: no limit.
            linking: Name of the Service that a link request is for.
            kind: See `RequestFactory.make`.

        Raises:
            TypeError: An argument has no JSON form; nothing was written.
            ValueError: An argument cannot be sent; nothing was written.
            RemoteError: The Service, or as `ManagerError` the Manager, answered with an error.
            ServiceLost: The Service is not connected.
            ReplyTimeout: No reply in time.
            ConnectionLost: The connection has ended.
        """
        seconds = self._request_timeout if timeout is None else self.seconds(timeout)
        request = self._protocol.make(kind, service, attribute, args, kwargs)
        # Before anything is queued: a call in a cancelled scope must not be executed.
        await checkpoint_if_cancelled()
        try:
            if linking:
                self._protocol.note_link(request, linking)
            if seconds == math.inf and self._queue.put(request):
                if self._idle_probe.is_asleep or self._lease.is_lent:
                    self._look_after_requests()
                request.waiter = current_task()  # what request.wait() does, without the call
                await wait_task_rescheduled(request.forget_waiter)
            else:
                with trio.move_on_after(seconds):
                    await self.exchange(request)
                if not request.settled:
                    raise timed_out(request, seconds)
        except ConnectionLost as error:
            self.errors.count(error)
            # A loop that retries must not starve other tasks.
            await trio.lowlevel.checkpoint()
            raise
        except BaseException as error:
            self.abandon(request)
            if isinstance(error, NetworkError):
                self.errors.count(error)
            raise
        if request.error is None:
            return request.result
        self.errors.count(request.error)
        return request.outcome()

    @trio.lowlevel.enable_ki_protection
    async def send(
        self, request: ParkedRequest, deadline: float, seconds: float, *, linking: str = ""
    ) -> Any:
        """Send a request and wait for its reply; see `request`.

        Args:
            request: The request.
            deadline: Deadline by Trio's clock.
            seconds: The timeout in seconds that the deadline was calculated from, for the error.
            linking: See `request`.
        """
        try:
            if linking:
                self._protocol.note_link(request, linking)
            if deadline == math.inf:
                await self.exchange(request)
            else:
                with trio.move_on_at(deadline):
                    await self.exchange(request)
                if not request.settled:
                    raise timed_out(request, seconds)
        except ConnectionLost:
            await trio.lowlevel.checkpoint()  # as in request()
            raise
        except BaseException:
            self.abandon(request)
            raise
        return request.outcome()

    @trio.lowlevel.enable_ki_protection
    async def exchange(self, request: ParkedRequest) -> None:
        """Queue a request when there is room for it, and park until it is settled or has a question."""
        await checkpoint_if_cancelled()  # also if its timeout is 0
        if not self._queue.put(request):
            await self._queue.put_when_there_is_room(request)
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
        request = self._protocol.make(Reply, service, attribute, args, kwargs)
        request.owner = self
        request.waiter = NO_WAITER
        if seconds != math.inf:
            request.limit(seconds)
        for _ in checkpoint_if_cancelled().__await__():  # noqa: ASYNC105 - it must not wait
            # It was about to wait for the delivery of a cancellation. (The effective deadline would tell,
            # too, but finding it takes the longer the more scopes the task is in.)
            request.phase = ABANDONED  # the request of a cancelled task must not be executed
            return request
        try:
            if not self._queue.put(request):
                raise self.backlog_full(request)
        except ConnectionLost as error:
            self.errors.count(error)
            raise
        self._look_after_requests()
        return request

    @trio.lowlevel.enable_ki_protection
    def post(
        self,
        attribute: str,
        *args: Any,
        linking: str = "",
        kind: Callable[[str, str, str], PostedReply] = PostedReply,
    ) -> Reply:
        """Send a small request to the Manager, regardless of the backlog and of cancellation.

        The reply need not be awaited. If the connection has ended, nothing is sent.

        Args:
            attribute: Name of the requested attribute.
            *args: Positional arguments.
            linking: Name of the Service, if it is a link request.
            kind: See `RequestFactory.make`.
        """
        request = self._protocol.make(kind, MANAGER, attribute, args, None)
        request.owner = self
        request.waiter = trio.Event()  # as if a task waited, so that an error is not logged as unseen
        if linking:
            self._protocol.note_link(request, linking)
        try:
            self._queue.put_in_any_case(request)
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

    def make_admin(self, attribute: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ParkedRequest:
        """Return a request that only an administrator may make; it is not queued."""
        request = self._protocol.make(ParkedRequest, MANAGER, attribute, args, kwargs)
        request.admin = True
        return request

    @trio.lowlevel.enable_ki_protection
    def answer(self, text: Hidden) -> None:
        """Answer the Manager's question about the open admin request."""
        with self._lock:
            self._protocol.answer(text.reveal())
            self._queue.schedule_flush()

    @trio.lowlevel.enable_ki_protection
    def abandon(self, request: Request) -> None:
        """Abandon a request; see `ClientProtocol.abandon`."""
        with self._lock:
            self._protocol.abandon(request)
            self._queue.schedule_flush()
        late = undelivered_reply(request)
        if late is not None:
            self._take_late_reply(late)

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
        return self.errors.count(
            BacklogFull(
                f"{self._queue.unsent:,} bytes wait to be written (max_unsent is "
                f"{self._queue.max_unsent:,}), so {request.service}.{request.attribute} was not sent; await "
                "replies before making more requests"
            )
        )

    def _look_after_requests(self) -> None:
        """Make sure that there is a reader and an idle probe for requests that were queued."""
        if self._idle_probe.is_asleep:
            self._idle_probe.wake()
        if self._lease.is_lent:
            self._lease.call_back()
