"""Futures: replies of requests that threads make with ``asynchronous=True``.

They work with `concurrent.futures`. The lock of each Future protects its state; an exception that interrupts
a thread may leave it locked, see `_FutureLock` and `Future._free_lock`.
"""

from __future__ import annotations

import _thread
import concurrent.futures
import math
import threading
from collections.abc import Callable
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from functools import partial
from time import monotonic
from typing import Any, Protocol

from msl_network_trio.arguments import number
from msl_network_trio.callbacks import in_callback
from msl_network_trio.client.statistics import ErrorCounts
from msl_network_trio.client.threads import ThreadRequest
from msl_network_trio.exceptions import NetworkError
from msl_network_trio.logger import get_logger
from msl_network_trio.portal.job_thread import JobThread
from msl_network_trio.portal.process import is_exiting, park_at_exit
from msl_network_trio.portal.waiting import Latch, check_may_wait, release_if_held

logger = get_logger(__name__)

_MAX_LOCK_TIMEOUT, _MIN_LOCK_TIMEOUT = 1.0, 0.01
"""Maximum and minimum seconds after which a locked Future counts as abandoned by an interrupted thread.

Functions of the standard library hold it for some microseconds. If there is one abandoned lock there may be
more, of a thousand Futures in one `concurrent.futures.wait`. So the timeout halves each time.
"""


class Requester(Protocol):
    """Maker of the requests of Futures; see `Calls`."""

    @property
    def callbacks(self) -> Callbacks:
        """The caller of functions that were added to Futures."""

    def abandon(self, request: FutureRequest) -> None:
        """See `Calls.abandon`."""

    @property
    def errors(self) -> ErrorCounts:
        """The counter of errors."""

    def clean_up_soon(self, request: FutureRequest, *, abandon: bool) -> None:
        """See `Calls.clean_up_soon`."""

    def wait_for_future(
        self, request: FutureRequest, timed_wait: Callable[[float], bool], seconds: float
    ) -> bool:
        """See `Calls.wait_for_future`."""

    def wait_for_handlers(self, service: str, preceding: int, seconds: float) -> None:
        """See `Calls.wait_for_handlers`."""


class FutureRequest(ThreadRequest):
    """A request whose outcome goes to a `Future`."""

    __slots__ = ("future", "is_unawaited")

    future: Future | None
    is_unawaited: bool

    def wake(self) -> None:
        """Settle the Future."""
        future = self.future
        if future is not None and not is_exiting():
            future.settle(self.error)
            self.future = None  # breaks the reference cycle of the two

    def wake_in_thread(self) -> bool:
        """See `ThreadRequest.wake_in_thread`."""
        future = self.future
        if future is not None and not future.settle_in_thread(self.error):
            return False
        self.future = None
        return True


class Callbacks:
    """Calls functions that were added to Futures, in a background thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._thread: JobThread | None = None

    def prepare(self) -> None:
        """Start the thread, which Python cannot do any more when the interpreter is about to end."""
        try:
            with self._lock:
                if self._thread is None:
                    self._thread = JobThread("callbacks of msl_network_trio")
        except BaseException:
            release_if_held(self._lock)
            raise

    def call(self, function: Callable[[Future], object], future: Future) -> None:
        """Call a function: in the background thread if the calling one settles the Future, else here."""
        if future.is_settling:
            assert self._thread is not None
            self._thread.submit(partial(_call, function, future))
        else:
            _call(function, future)


def _call(function: Callable[[Future], object], future: Future) -> None:
    """Call a function. Its calls do not wait for notification handlers, as a handler may wait for it."""
    token = in_callback.set(True)
    try:
        function(future)
    except Exception:
        logger.exception("exception calling callback for %r", future)
    finally:
        in_callback.reset(token)


class _LockTimeout:
    """The timeout for an abandoned lock, in this process.

    Attributes:
        seconds: Halved each time that a lock is found abandoned; see `_MAX_LOCK_TIMEOUT`.
    """

    seconds = _MAX_LOCK_TIMEOUT


def _is_stuck(lock: Any) -> bool:
    """Return whether a lock was abandoned by an interrupted thread."""
    try:
        if not lock.acquire(blocking=False):
            if not lock.acquire(timeout=_LockTimeout.seconds):
                _LockTimeout.seconds = max(_MIN_LOCK_TIMEOUT, _LockTimeout.seconds / 2)
                return True
            _LockTimeout.seconds = _MAX_LOCK_TIMEOUT
        lock.release()
    except BaseException:
        if isinstance(lock, _FutureLock):  # a lock of another kind may be held by another thread
            release_if_held(lock)
        raise
    return False


class _FutureLock(_thread.RLock):  # type: ignore[misc]  # for type checkers it is final
    """Lock that replaces the Condition of a Future.

    An exception that interrupts the methods of a Condition, which are Python functions, leaves it locked, and
    the Trio thread would wait forever. Threads wait for `Future._is_over`, and need no notification.
    """

    def notify_all(self) -> None:
        """Do nothing."""

    def wait(self, timeout: float | None = None) -> bool:
        """Return at once: `concurrent.futures.Future.result` is called with a timeout of 0."""
        return False


class Future(concurrent.futures.Future[Any]):
    """The reply to a request that was made with ``asynchronous=True``.

    It works with `concurrent.futures.wait` and `concurrent.futures.as_completed`. Functions that were added
    with `add_done_callback` are called in a thread of their own, so they may make requests.

    Args:
        request: The request.
        calls: The maker of the request.

    Attributes:
        deadline: Deadline of the request, by `time.monotonic`.
    """

    def __init__(self, request: FutureRequest, calls: Requester) -> None:
        super().__init__()
        self._condition: _FutureLock = _FutureLock()  # type: ignore[assignment]
        self._request = request
        self._calls = calls
        self._is_over = Latch()
        self._is_abandoned = False
        self.is_settling = False
        self._has_result = False
        self.deadline = math.inf

    def cancel(self) -> bool:
        """Abandon the request. If it was not written yet it is withdrawn; else its reply is dropped.

        Returns:
            Whether it was abandoned; False if the reply has arrived.
        """
        try:
            return self._cancel()
        except BaseException:  # of a signal handler, for example
            release_if_held(self._condition)
            if self.cancelled():
                self._is_over.set()
                self._calls.clean_up_soon(self._request, abandon=True)
            raise

    def _cancel(self) -> bool:
        self._free_lock()
        if not super().cancel():
            return False
        with self._condition:  # of several threads, one cancels
            first, self._is_abandoned = not self._is_abandoned, True
        if first:
            self.set_running_or_notify_cancel()  # for wait() and as_completed()
            self._is_over.set()
            self._calls.abandon(self._request)
            if self._request.settled:  # at the same moment, and its result was not taken
                self._calls.clean_up_soon(self._request, abandon=True)
        return True

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the reply, and for notification handlers as a call does; see `Link.notification_handler`.

        Args:
            timeout: Seconds to wait; None: no limit. The request stays open after that.

        Raises:
            TimeoutError: The reply has not arrived in time.
            concurrent.futures.CancelledError: The request was cancelled.
            RuntimeError: This is a Trio thread, and the reply has not arrived.
        """
        if self._has_result and not self._request.preceding:
            return self._request.result  # the usual case, without further calls
        self._wait(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the reply, and return its error; None if it is a result. See `result`."""
        self._wait(timeout)
        return super().exception(0)

    def add_done_callback(self, fn: Callable[[Future], object]) -> None:
        """Call a function when the reply has arrived; at once if it has."""
        self._calls.callbacks.prepare()
        try:
            super().add_done_callback(partial(self._calls.callbacks.call, fn))
        except BaseException:
            release_if_held(self._condition)
            raise

    def done(self) -> bool:
        """Return whether the reply has arrived, or the request was cancelled."""
        return self._state in (FINISHED, CANCELLED, CANCELLED_AND_NOTIFIED)

    def _free_lock(self) -> None:
        """Replace locks that were abandoned by a thread interrupted in `concurrent.futures.wait`.

        That function, and `as_completed`, hold the locks of all their Futures for a moment.
        """
        if _is_stuck(self._condition):
            self._condition = _FutureLock()
        if self._waiters:
            # Each has an Event, and that has a Condition.
            with self._condition:
                self._waiters = [
                    waiter
                    for waiter in self._waiters
                    if (condition := getattr(waiter.event, "_cond", None)) is None or not _is_stuck(condition)
                ]

    def settle(self, error: NetworkError | None) -> None:
        """Take the outcome of the request."""
        self.is_settling = True
        self._free_lock()
        try:
            if error is None:
                self.set_result(self._request.result)
                self._has_result = True
            else:
                self._calls.errors.count(error)
                self.set_exception(error)
        except concurrent.futures.InvalidStateError:
            pass  # it was cancelled at the same moment
        finally:
            self.is_settling = False
            self._is_over.set()

    def settle_in_thread(self, error: NetworkError | None) -> bool:
        """Take the outcome in any thread; return False if callbacks or `wait()` have to be notified.

        An exception may interrupt it. Then it, or `settle`, is called again and does the rest.
        """
        if self._has_listeners:
            return False
        try:
            self._free_lock()
            with self._condition:
                if self._has_listeners:
                    return False
                if self._state == PENDING:
                    self._result, self._exception = self._request.result, error
                    self._has_result = error is None
                    self._state = FINISHED
            if error is not None:
                self._calls.errors.count(error)
        except BaseException:
            release_if_held(self._condition)
            raise
        self._is_over.set()
        return True

    @property
    def _has_listeners(self) -> bool:
        """Whether a callback, `concurrent.futures.wait` or `as_completed` waits for the outcome."""
        return bool(self._waiters or self._done_callbacks)  # type: ignore[attr-defined]

    def _wait(self, timeout: float | None) -> None:
        request = self._request
        seconds = math.inf if timeout is None else number("timeout", timeout)
        deadline = monotonic() + seconds
        if not self.done():
            check_may_wait("Future.result", "the Reply that msl_network_trio gives")
            self._calls.wait_for_future(request, self._is_over.timed_wait, seconds)
            if self._exception is not None:
                park_at_exit()
        if request.preceding and self.done():
            deadline = min(deadline, self.deadline)
            self._calls.wait_for_handlers(request.service, request.preceding, deadline - monotonic())
