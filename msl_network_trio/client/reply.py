"""The two ways to wait for a reply: at once, parked in the call, or later, with a `Reply` in hand."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator
from typing import Any

import outcome
import trio

from msl_network_trio.exceptions import NetworkError, ReplyTimeout
from msl_network_trio.protocol.outgoing import Request

logger = logging.getLogger(__name__)


class Waiting(Request):
    """A request whose caller is parked until it is woken."""

    __slots__ = ()

    waiter: trio.lowlevel.Task | None

    def wake(self) -> None:
        """Let the caller go on."""
        task = self.waiter
        if task is not None:
            self.waiter = None
            trio.lowlevel.reschedule(task)

    def forget_waiter(self, _: Callable[[], outcome.Error]) -> trio.lowlevel.Abort:
        """Let Trio cancel the parked caller."""
        self.waiter = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait(self) -> None:
        """Park the calling task until `wake`."""
        self.waiter = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self.forget_waiter)


class Handle(Request):
    """A request whose caller holds a `Reply`, and may or may not wait."""

    __slots__ = ("unseen",)

    waiter: trio.Event | None
    """Made by who waits, which most handles need not."""

    unseen: _UnseenError
    """There is one if an error came when nobody waited, so that it is not lost."""

    def wake(self) -> None:
        """Tell who waits, if anybody does."""
        if self.waiter is not None:
            self.waiter.set()
        elif self.error is not None:
            self.unseen = _UnseenError(self, self.error)

    async def wait(self) -> None:
        """Wait until `wake`."""
        if self.waiter is None:
            self.waiter = trio.Event()
        await self.waiter.wait()


class _UnseenError:
    """Says what the error of a handle was, when the handle is gone and nobody has awaited its reply.

    A ``__del__`` of the handles themselves would make each of them, with an error or not, slower.
    """

    def __init__(self, handle: Handle, error: NetworkError) -> None:
        self._what = f"{handle.service}.{handle.attribute}"
        self._error: NetworkError | None = error

    def forget(self) -> None:
        """Say nothing."""
        self._error = None

    def __del__(self) -> None:
        if self._error is not None:
            logger.error("nobody awaited the reply to %s, which was an error: %s", self._what, self._error)


class Reply:
    """The reply to a request that was made with ``asynchronous=True``.

    Await it, as often as you like and in as many tasks as you like; that returns the result, or raises what
    the request raised. Cancelling a task that awaits it does not cancel the request, `cancel` does. Awaiting
    a reply that is there already notices cancellation, but does not let other tasks run.
    """

    __slots__ = ("_abandon", "_deadline", "_request", "_timeout")

    def __init__(self, abandon: Callable[[Request], None], request: Handle, timeout: float) -> None:
        self._abandon = abandon
        self._request = request
        self._timeout = timeout
        self._deadline = math.inf if timeout == math.inf else trio.current_time() + timeout

    def done(self) -> bool:
        """Return whether the reply is there, or never will be: awaiting it does not have to wait."""
        return self._request.settled or self._request.abandoned

    def cancel(self) -> bool:
        """Abandon the request. If it was not written yet it never will be; else its reply is dropped.

        Returns:
            Whether it was abandoned; False if it was already `done`.
        """
        if self.done():
            return False
        self._abandon(self._request)
        self._request.wake()
        return True

    def __await__(self) -> Generator[Any, Any, Any]:
        request = self._request
        if request.settled or request.abandoned:
            # Not a full checkpoint: to let all other tasks run for each of a hundred replies that arrived
            # together would cost more than their requests. A reply that is not there does let them run.
            yield from trio.lowlevel.checkpoint_if_cancelled().__await__()  # noqa: ASYNC105 - it is awaited
        else:
            yield from self._wait().__await__()
        if not request.settled:
            from concurrent.futures import CancelledError

            raise CancelledError(f"The request {request.service}.{request.attribute} was cancelled")
        if request.error is not None:
            if hasattr(request, "unseen"):
                request.unseen.forget()
            # It may be awaited again: each time the error starts with a traceback of its own.
            raise request.error.with_traceback(None)
        return request.result

    async def _wait(self) -> None:
        request = self._request
        if self._deadline == math.inf:
            await request.wait()
            return
        with trio.move_on_at(self._deadline):
            await request.wait()
        if not self.done():
            self._abandon(request)
            request.error = timed_out(request, self._timeout)
            request.settled = True
            request.wake()

    def __repr__(self) -> str:
        request = self._request
        if not self.done():
            state = "waiting"
        elif not request.settled:
            state = "cancelled"
        else:
            state = "failed" if request.error else "arrived"
        return f"<Reply to {request.service}.{request.attribute} {state}>"


def timed_out(request: Request, seconds: float) -> ReplyTimeout:
    """Return the error of a request whose time is over."""
    what = f"{request.service}.{request.attribute}"
    fate = "it may still be executed" if request.may_have_run else "it was not sent"
    return ReplyTimeout(
        f"No reply to {what} within {seconds:g} seconds; {fate}",
        service=request.service,
        attribute=request.attribute,
        seconds=seconds,
        may_have_run=request.may_have_run,
    )
