"""Requests of tasks: `ParkedRequest`, whose caller waits in the call, and `Reply`, to be awaited later.

Both belong to the Trio thread. Only `Request.phase` and the outcome are also set by other threads, with the
lock of the connection held.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol

import outcome
import trio
from trio.lowlevel import checkpoint_if_cancelled, current_task, reschedule, wait_task_rescheduled

from msl_network_trio.client.statistics import ErrorCounts
from msl_network_trio.exceptions import NetworkError, ReplyTimeout
from msl_network_trio.logger import get_logger
from msl_network_trio.parking import RESUME
from msl_network_trio.protocol.requests import NO_WAITER, SETTLED, Request

logger = get_logger(__name__)


class ParkedRequest(Request):
    """A request whose calling task is parked until `wake`."""

    __slots__ = ()

    waiter: trio.lowlevel.Task | None

    def wake(self) -> None:
        """Wake the caller."""
        task = self.waiter
        if task is not None:
            self.waiter = None
            reschedule(task, RESUME)

    def forget_waiter(self, _: Callable[[], outcome.Error]) -> trio.lowlevel.Abort:
        """Abort the wait of the caller, when Trio cancels it."""
        self.waiter = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait(self) -> None:
        """Park the calling task until `wake`."""
        self.waiter = current_task()
        await wait_task_rescheduled(self.forget_waiter)


class Owner(Protocol):
    """Maker of requests; see `TaskRequests`."""

    errors: ErrorCounts

    def abandon(self, request: Request) -> None:
        """Abandon a request."""


class Reply(Request):
    """The reply to a request that was made with ``asynchronous=True``.

    It can be awaited any number of times, in any number of tasks; that returns the result or raises the error
    of the request. Cancelling a task that awaits it does not cancel the request, `cancel` does. Awaiting a
    reply that has arrived is a checkpoint for cancellation, but does not let other tasks run.
    """

    # It is the request itself, since a second object for each would make many of them a tenth slower.
    __slots__ = ("_deadline", "_timeout", "_unseen", "owner")

    waiter: Any
    """A `trio.Event`, made when the reply is awaited before it has arrived; until then `NO_WAITER`."""

    owner: Owner
    """The maker of the request, which abandons it; to be set by it."""

    counts_errors = True
    """Whether an error of it counts in the statistics of the client."""

    _deadline: float
    _timeout: float
    _unseen: _UnseenError
    """Set if an error arrived while no task waited."""

    def limit(self, seconds: float) -> None:
        """Set the timeout in seconds, from now."""
        self._timeout = seconds
        self._deadline = trio.current_time() + seconds

    def done(self) -> bool:
        """Return whether awaiting it returns at once: it has arrived, or the request was abandoned."""
        return self.phase >= SETTLED

    @trio.lowlevel.enable_ki_protection
    def cancel(self) -> bool:
        """Abandon the request. If it was not written yet it is withdrawn; else its reply is dropped.

        Returns:
            Whether it was abandoned; False if it was `done`.
        """
        if self.done():
            return False
        self.owner.abandon(self)
        self.wake()
        return True

    @trio.lowlevel.enable_ki_protection
    def __await__(self) -> Generator[Any, Any, Any]:
        if self.phase >= SETTLED:
            # Not a full checkpoint: to schedule all other tasks for each of a hundred replies that arrived
            # together would cost more than their requests. Waiting for a reply does schedule them.
            yield from checkpoint_if_cancelled().__await__()  # noqa: ASYNC105 - it is awaited
        else:
            yield from self._wait().__await__()
        if self.phase is not SETTLED:
            from concurrent.futures import CancelledError

            raise CancelledError(f"The request {self.service}.{self.attribute} was cancelled")
        if self.error is not None:
            if hasattr(self, "_unseen"):
                self._unseen.forget()
            elif self.counts_errors:
                self.owner.errors.count(self.error)
            # It may be awaited again: each time the error has a traceback of its own.
            raise self.error.with_traceback(None)
        return self.result

    @trio.lowlevel.enable_ki_protection
    async def _wait(self) -> None:
        if self.waiter is NO_WAITER:
            self.waiter = trio.Event()
            if self.settled:
                # Another thread has settled it at the same moment, and may have seen no event to set.
                self.waiter.set()
        if not hasattr(self, "_deadline"):
            await self.waiter.wait()
            return
        with trio.move_on_at(self._deadline):
            await self.waiter.wait()
        if not self.done():
            self.owner.abandon(self)
            self.fail(timed_out(self, self._timeout))
            self.wake()

    def wake(self) -> None:
        """Wake the tasks that wait; without any, keep an error to be logged."""
        if self.waiter is not NO_WAITER:
            self.waiter.set()
        elif self.error is not None:
            self._unseen = _UnseenError(self, self.error)
            self.owner.errors.count(self.error)

    def __dir__(self) -> list[str]:
        # Without the attributes of a request, which are for the connection.
        return sorted({*object.__dir__(self)} - _REQUEST_NAMES)

    def __repr__(self) -> str:
        if not self.done():
            state = "waiting"
        elif not self.settled:
            state = "cancelled"
        else:
            state = "failed" if self.error else "arrived"
        return f"<Reply to {self.service}.{self.attribute} {state}>"


_REQUEST_NAMES = {name for name in dir(Request) if not name.startswith("_")} | {
    "counts_errors",
    "limit",
    "owner",
}


class PostedReply(Reply):
    """The reply to a request that the client makes for itself, whose errors no caller gets."""

    __slots__ = ()

    counts_errors = False


class _UnseenError:
    """Logs the error of a reply that was never awaited, when the reply is deleted.

    A ``__del__`` of `Reply` would make every reply slower, with or without an error.
    """

    def __init__(self, reply: Reply, error: NetworkError) -> None:
        self._what = f"{reply.service}.{reply.attribute}"
        self._error: NetworkError | None = error

    def forget(self) -> None:
        """Log nothing."""
        self._error = None

    def __del__(self) -> None:
        if self._error is not None:
            logger.error("the reply to %s was never awaited, and was an error: %s", self._what, self._error)


def timed_out(request: Request, seconds: float) -> ReplyTimeout:
    """Return the error of a request whose timeout has expired."""
    what = f"{request.service}.{request.attribute}"
    fate = "it may still be executed" if request.may_have_run else "it was not sent"
    return ReplyTimeout(
        f"No reply to {what} within {seconds:g} seconds; {fate}",
        service=request.service,
        attribute=request.attribute,
        seconds=seconds,
        may_have_run=request.may_have_run,
    )
