"""Requests whose threads do not wait at once: `concurrent.futures.Future`, as in msl-network."""

from __future__ import annotations

import concurrent.futures
import logging
import math
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from msl_network_trio.client.threads import ThreadRequest
from msl_network_trio.client.user_code import is_handler
from msl_network_trio.exceptions import NetworkError
from msl_network_trio.portal.process import is_exiting, stand_still_at_exit
from msl_network_trio.portal.waiting import check_may_wait
from msl_network_trio.portal.worker import Worker

if TYPE_CHECKING:
    from msl_network_trio.sync.calls import Calls

logger = logging.getLogger(__name__)


class FutureRequest(ThreadRequest):
    """A request whose outcome goes to a `Future`."""

    __slots__ = ("future", "is_patient")

    future: Future
    is_patient: bool

    def wake(self) -> None:
        """Tell the Future."""
        if not is_exiting():
            future = self.future
            del self.future  # else the two would hold each other, and be left to the garbage collector
            future.settle(self.error)


class Callbacks:
    """Calls what Futures are to call when a reply has come, in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: Worker | None = None

    def prepare(self) -> None:
        """Start the thread, which is not possible any more when the interpreter is about to end."""
        with self._lock:
            if self._worker is None:
                self._worker = Worker("callbacks of msl_network_trio")

    def call(self, function: Callable[[Future], object], future: Future) -> None:
        """Call a function: here, or in the other thread if this is one that has just read the reply."""
        if future.is_settling:
            assert self._worker is not None
            self._worker.submit(partial(_call, function, future))
        else:
            _call(function, future)


def _call(function: Callable[[Future], object], future: Future) -> None:
    """Call a function, whose own calls do not wait for notification handlers: one may wait for it."""
    token = is_handler.set(True)
    try:
        function(future)
    except Exception:
        logger.exception("exception calling callback for %r", future)
    finally:
        is_handler.reset(token)


class Future(concurrent.futures.Future[Any]):
    """The reply to a request that was made with ``asynchronous=True``.

    It works with `concurrent.futures.wait` and `concurrent.futures.as_completed`. Functions that were added
    with `add_done_callback` are called in a thread of their own, so they may make requests.

    Args:
        request: The request.
        calls: What it was made by.

    Attributes:
        deadline: When the time of the request is over, by the clock of `time.monotonic`.
    """

    def __init__(self, request: FutureRequest, calls: Calls) -> None:
        super().__init__()
        self._request = request
        self._calls = calls
        self._is_abandoned = False
        self.is_settling = False
        self._has_result = False
        self.deadline = math.inf

    def cancel(self) -> bool:
        """Abandon the request. If it was not written yet it never will be; else its reply is dropped.

        Returns:
            Whether it was abandoned; False if the reply is there already.
        """
        if not super().cancel():
            return False
        with self._condition:  # of several threads, one cancels
            first, self._is_abandoned = not self._is_abandoned, True
        if first:
            self.set_running_or_notify_cancel()  # else wait() and as_completed() would not hear of it
            self._calls.abandon(self._request)
        return True

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the reply, and for notification handlers as a call does; see `Link.notification_handler`.

        Args:
            timeout: How many seconds to wait; None: no limit. The request goes on when they are over.

        Raises:
            TimeoutError: It is not there yet.
            concurrent.futures.CancelledError: The request was cancelled.
            RuntimeError: This is a Trio thread, and it is not there yet.
        """
        if self._has_result and not self._request.preceding:
            return self._request.result  # all that there is to it
        self._wait(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the reply, and return the error if it is one; see `result`."""
        self._wait(timeout)
        return super().exception(0)

    def add_done_callback(self, fn: Callable[[Future], object]) -> None:
        """Have a function called when the reply is there; at once if it is there already."""
        self._calls.callbacks.prepare()
        super().add_done_callback(partial(self._calls.callbacks.call, fn))

    def settle(self, error: NetworkError | None) -> None:
        """Take the outcome of the request."""
        self.is_settling = True
        try:
            if error is None:
                self.set_result(self._request.result)
                self._has_result = True
            else:
                self.set_exception(error)
        except concurrent.futures.InvalidStateError:
            pass  # it was cancelled in the same moment
        finally:
            self.is_settling = False

    def _wait(self, timeout: float | None) -> None:
        request, seconds = self._request, math.inf if timeout is None else timeout
        deadline = monotonic() + seconds
        if not self.done():
            check_may_wait("Future.result", "the Reply that msl_network_trio gives")
            self._calls.wait_for_future(request, self._attempt, seconds)
            if self._exception is not None:
                stand_still_at_exit()
        if request.preceding and self.done():
            deadline = min(deadline, self.deadline)
            self._calls.wait_for_handlers(request.service, request.preceding, deadline - monotonic())

    def _attempt(self, seconds: float) -> bool:
        try:
            super().exception(min(seconds, threading.TIMEOUT_MAX))
        except concurrent.futures.CancelledError:
            return True
        except TimeoutError:
            return self.done()
        return True
