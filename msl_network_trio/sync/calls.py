"""Requests of threads, which send them without the event loop.

The calling thread holds the lock of the connection while it queues its request and, if nothing else is being
sent, sends it. Then it waits until the reader wakes it, or reads the reply itself (`ReadLease`). Only what
cannot be sent at once is left to the Trio thread, with one wake for any number of requests.

If threads made their requests through the event loop, the client would need 1.88 times the CPU time, and a
call would take 1.46 times as long.
"""

from __future__ import annotations

import _thread
import math
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any, TypeVar

import trio

from msl_network_trio.callbacks import in_callback
from msl_network_trio.client.connection import Connection
from msl_network_trio.client.mailboxes import Handler, Waiter
from msl_network_trio.client.reply import timed_out
from msl_network_trio.client.threads import ThreadRequest
from msl_network_trio.exceptions import ConnectionLost, NetworkError
from msl_network_trio.portal.interrupts import uninterrupted
from msl_network_trio.portal.process import is_exiting, is_main_thread, park_at_exit
from msl_network_trio.portal.waiting import Latch, check_cancelled, check_may_wait, release_if_held, wait
from msl_network_trio.protocol.requests import ABANDONED, MADE, SETTLED, Request
from msl_network_trio.sync.futures import Callbacks, Future, FutureRequest

R = TypeVar("R", bound=Request)

_MIN_FLUSH_DELAY, _MAX_FLUSH_DELAY = 0.002, 0.02
"""Seconds until the Trio thread flushes unawaited requests, while replies are outstanding.

A flush in the Trio thread takes the time of dozens of requests, since two threads compete then. The delay
doubles whenever threads have sent everything themselves.
"""

_ABANDON_TIMEOUT = 5.0
"""Maximum seconds to wait until the Trio thread has abandoned a request."""

_HANDLER_TIMEOUT = 5.0
"""Maximum seconds that a call waits for notification handlers."""


class BlockingRequest(ThreadRequest):
    """A request whose thread waits in the call until it is woken."""

    __slots__ = ("_gate",)

    def __init__(self, service: str, attribute: str, uid: str) -> None:
        super().__init__(service, attribute, uid)
        self.preceding = 0
        self._gate = _thread.allocate_lock()
        self._gate.acquire()

    def wake(self) -> None:
        """Wake the thread."""
        if not is_exiting():
            self.wake_in_thread()

    def wake_in_thread(self) -> bool:
        """See `ThreadRequest.wake_in_thread`."""
        try:
            self._gate.release()
        except RuntimeError:
            pass  # it was woken before
        return True

    def timed_wait(self, seconds: float) -> bool:
        """Wait until `wake`, at most this many seconds, and return whether it was called; see `wait`."""
        return self._gate.acquire(True, seconds)


class Calls:
    """The requests of threads over one connection.

    It is for threads what `TaskRequests` is for tasks, and has methods of the same names.

    Args:
        connection: The connection.
        before: The requests over the connection that this one replaces; None: there was none.

    Attributes:
        connection: See above.
        requests: The requests of tasks over the same connection.
        callbacks: Calls functions that were added to Futures.
        errors: Counts the errors that callers get.
    """

    def __init__(self, connection: Connection, before: Calls | None = None) -> None:
        self.connection = connection
        self._portal = connection.portal
        self._lock = connection.lock
        self.requests = connection.requests
        self.callbacks: Callbacks = Callbacks() if before is None else before.callbacks
        self.errors = connection.requests.errors
        self._flush_is_posted = False
        self._flush_is_scheduled = False
        self._flush_delay = _MIN_FLUSH_DELAY
        self._threads = connection.threads
        self._signals_lose_bytes = connection.signals_lose_bytes
        if not self._threads.is_shared:
            self._portal.do(self._threads.share)

    def request(
        self,
        service: str,
        attribute: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        request: BlockingRequest | None = None,
    ) -> Any:
        """Make a request and wait for its reply, and for notification handlers; see `TaskRequests.request`.

        Args:
            service: Name of the Service, or ``"Manager"``.
            attribute: Name of the method to call or of the property to read.
            args: Positional arguments.
            kwargs: Keyword arguments.
            timeout: Seconds to wait for the reply; None: the connection's default; ``math.inf``: no limit.
            request: The request that was made of these arguments; None: it is made here.

        Raises:
            RuntimeError: This is a Trio thread.
            KeyboardInterrupt: Ctrl-C was pressed. The request is abandoned, the connection is not.
            trio.Cancelled: The task that waits for this worker thread was cancelled. The request is
                abandoned.
        """
        check_may_wait(f"Link.{attribute}")
        connection = self.connection
        seconds = connection.requests.seconds(timeout)
        if request is None:
            request = connection.protocol.make(BlockingRequest, service, attribute, args, kwargs)
        deadline = math.inf if seconds == math.inf else monotonic() + seconds
        try:
            if not self._do(self._threads.queue, request):
                return self.request_in_trio(
                    self.requests.request, service, attribute, args, kwargs, timeout, deadline=deadline
                )
            if not self.wait(request, request.timed_wait, seconds):
                self.abandon(request)
                if not request.settled:  # else the reply arrived at the same moment
                    raise timed_out(request, seconds)
        except BaseException as error:
            self.clean_up_soon(request, abandon=True)
            if isinstance(error, NetworkError):
                self.errors.count(error)
            raise
        if request.preceding:
            self.wait_for_handlers(service, request.preceding, deadline - monotonic())
        if request.error is not None:
            self.errors.count(request.error)
            park_at_exit()
        return request.outcome()

    def request_in_trio(
        self,
        function: Callable[..., Awaitable[Any]],
        service: str,
        *args: Any,
        deadline: float,
        **kwargs: Any,
    ) -> Any:
        """Make a request that has to wait before it can be sent, in a task.

        Args:
            function: Makes the request; see `TaskRequests.request`.
            service: Name of the Service, its first argument.
            *args: Its further arguments.
            deadline: Time until which to wait for notification handlers, by `time.monotonic`.
            **kwargs: Its keyword arguments.
        """
        received = self.connection.mailboxes.numbers
        try:
            result = self._portal.call(function, service, *args, **kwargs)
        except NetworkError:
            self.wait_for_handlers(service, received.get(service, 0), deadline - monotonic())
            raise
        self.wait_for_handlers(service, received.get(service, 0), deadline - monotonic())
        return result

    def start(
        self,
        service: str,
        attribute: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Future:
        """Make a request without waiting for anything; see `TaskRequests.start`.

        The timeout counts from now, and ends the Future.
        """
        if not is_main_thread():
            check_cancelled()
        connection = self.connection
        seconds = connection.requests.seconds(timeout)
        request = connection.protocol.make(FutureRequest, service, attribute, args, kwargs)
        request.is_unawaited = True
        request.preceding = 0
        future = request.future = Future(request, self)
        try:
            if self._threads.is_idle:
                has_room = self._do(self._threads.queue, request)
            else:
                self._portal.check_own()
                has_room = self._threads.put(request)
                if not self._flush_is_scheduled:
                    self._flush_is_scheduled = True
                    self._portal.post(self._flush_later, request)
            if not has_room:
                raise connection.requests.backlog_full(request)
            if seconds != math.inf:
                future.deadline = monotonic() + seconds
                self._portal.post(self._end_later, request, seconds)
        except BaseException as error:
            self.clean_up_soon(request, abandon=True)
            if isinstance(error, NetworkError):
                self.errors.count(error)
                park_at_exit()
            raise
        return future

    def wait(self, request: Request, timed_wait: Callable[[float], bool], seconds: float) -> bool:
        """Wait for the reply, reading it while this thread holds the read lease; see `waiting.wait`."""
        threads = self._threads
        if threads.reads(request):
            deadline = monotonic() + seconds
            while threads.reads(request) and threads.wait(seconds):
                self._do(threads.read, request)
                seconds = max(0, deadline - monotonic())
            if threads.reads(request):
                self._do(threads.stop_reading, request)
            seconds = max(0, deadline - monotonic())
        return wait(timed_wait, seconds)

    def wait_for_future(
        self, request: FutureRequest, timed_wait: Callable[[float], bool], seconds: float
    ) -> bool:
        """Wait for the reply to a request that was unawaited so far; see `wait`.

        Raises:
            ConnectionLost: The connection belongs to the parent of this forked process.
        """
        request.is_unawaited = False
        try:
            if request.phase < SETTLED:
                self._do(self._threads.send, request)
            return self.wait(request, timed_wait, seconds)
        except BaseException:
            self.clean_up_soon(request, abandon=False)
            raise

    def wait_for_handlers(self, service: str, preceding: int, seconds: float) -> None:
        """Wait until the handlers of a Service have returned for all notifications that precede a reply.

        Calls that a handler makes do not wait, nor does the Trio thread.

        Args:
            service: Name of the Service.
            preceding: Number of the last of these notifications.
            seconds: Maximum seconds to wait, up to `_HANDLER_TIMEOUT`. After that a warning is logged, and no
                thread waits for the handler before it has caught up. With 0, it returns at once.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
            trio.Cancelled: The task that waits for this worker thread was cancelled.
        """
        mailboxes = self.connection.mailboxes
        handlers = mailboxes.handlers.get(service, ())
        behind = [handler for handler in handlers if handler.is_behind(preceding)]
        if not behind:
            mailboxes.caught_up[service] = preceding
            return
        if seconds <= 0 or in_callback.get() or trio.lowlevel.in_trio_run():
            return
        if self._portal.is_inherited:
            return  # the handlers run in the parent process
        deadline = monotonic() + min(seconds, _HANDLER_TIMEOUT)
        for handler in behind:
            self._wait_for_handler(handler, preceding, deadline)

    def _wait_for_handler(self, handler: Handler, preceding: int, deadline: float) -> None:
        waiter = Waiter(preceding)
        began = monotonic()
        try:
            if uninterrupted(handler.add_waiter, waiter) and not wait(
                waiter.timed_wait, max(0, deadline - began)
            ):
                handler.give_up_on(preceding, monotonic() - began)
        finally:
            uninterrupted(handler.remove_waiter, waiter)

    def abandon(self, request: Request) -> None:
        """Abandon a request, and wait until that is done; see `TaskRequests.abandon`.

        The caller returns the reply if it has arrived at the same moment.
        """
        if request.phase >= SETTLED or self._portal.is_inherited:
            return
        try:
            with self._lock:
                if request.phase is MADE:
                    request.phase = ABANDONED  # which is all that there is to do, in one step
                    return
        except BaseException:
            release_if_held(self._lock)
            raise
        is_done = Latch()
        if threading.get_ident() == self._portal.thread_id:
            self._clean_up(request, True, is_done)
            return
        try:
            self._portal.post(self._clean_up, request, True, is_done)
        except ConnectionLost:
            return
        wait(is_done.timed_wait, _ABANDON_TIMEOUT)

    def _do(self, change: Callable[[R], bool | None], request: R) -> bool:
        """Change the protocol with the lock held, and return whether it was done.

        An exception may interrupt the thread at any moment. It leaves a consistent state: see `Threads`.
        """
        self._portal.check_own()
        try:
            if self._signals_lose_bytes:
                return uninterrupted(self._change, change, request)
            return self._change(change, request)
        except BaseException as error:
            release_if_held(self._lock)
            if isinstance(error, NetworkError):
                park_at_exit()
            raise

    def _change(self, change: Callable[[R], bool | None], request: R) -> bool:
        with self._lock:
            try:
                trio_is_needed = change(request)
                if trio_is_needed and not self._flush_is_posted:
                    self._flush_is_posted = True
                    self._portal.post(self._flush)
                return trio_is_needed is not None
            except BaseException:
                # Repeated, in case another exception interrupts one. After the first success it has no
                # effect.
                try:
                    self._threads.finish()
                finally:
                    try:
                        self._threads.finish()
                    finally:
                        self._threads.finish()
                raise

    def clean_up_soon(self, request: Request, *, abandon: bool) -> None:
        """Schedule the cleanup in the Trio thread after an exception has interrupted this thread."""
        try:
            self._portal.post(self._clean_up, request, abandon)
        except ConnectionLost:
            pass  # every request has been settled
        except BaseException:
            self._portal.post(self._clean_up, request, abandon)
            raise

    def _clean_up(self, request: Request, abandon: bool, is_done: Latch | None = None) -> None:
        """Do in the Trio thread what an interrupted thread has left to do.

        Args:
            request: The request that the thread has made or waited for.
            abandon: Whether to abandon it.
            is_done: Set at the end.
        """
        try:
            with self._lock:
                self._threads.finish()
                # The thread may have been interrupted between setting these and posting the flush.
                self._flush_is_posted = self._flush_is_scheduled = False
                if abandon:
                    self._threads.abandon(request)
                    if is_done is None:  # else the caller looks whether the reply has arrived
                        self._threads.give_up_reply(request)
                else:
                    self._threads.stop_reading(request)
                self._threads.flush()
        finally:
            if is_done is not None:
                is_done.set()

    def _flush(self) -> None:
        """Do in the Trio thread what threads have left to do."""
        with self._lock:
            self._flush_is_posted = False
            self._threads.flush()

    def _flush_later(self, request: Request) -> None:
        """Schedule the sending of unawaited requests, of which this is the first."""
        try:
            trio.lowlevel.spawn_system_task(self._flush_after_a_while, request)
        except RuntimeError:
            pass  # the Trio run is ending, which ends every request

    async def _flush_after_a_while(self, first: Request) -> None:
        await trio.sleep(self._flush_delay)
        # Before the flush: a thread that sees it set relies on a flush that follows.
        self._flush_is_scheduled = False
        with self._lock:
            was_left_behind = not (first.may_have_run or first.abandoned)
            self._threads.flush(read=False)
        self._flush_delay = (
            _MIN_FLUSH_DELAY if was_left_behind else min(2 * self._flush_delay, _MAX_FLUSH_DELAY)
        )

    def _end_later(self, request: FutureRequest, seconds: float) -> None:
        """Start the timeout of a request, in the Trio thread."""
        try:
            trio.lowlevel.spawn_system_task(self._expire, request, seconds)
        except RuntimeError:
            pass  # the Trio run is ending, which ends every request

    async def _expire(self, request: FutureRequest, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.connection.closed.wait()
        if request.phase < SETTLED:
            self.connection.requests.abandon(request)
            request.error = timed_out(request, seconds)
            request.wake()
