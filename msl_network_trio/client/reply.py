"""The two ways to wait for a reply: at once, parked in the call, or later, with the `Reply` in hand."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol

import outcome
import trio
from trio.lowlevel import checkpoint_if_cancelled, current_task, reschedule, wait_task_rescheduled

from msl_network_trio.exceptions import NetworkError, ReplyTimeout
from msl_network_trio.logger import get_logger
from msl_network_trio.parking import RESUME
from msl_network_trio.protocol.requests import NO_WAITER, SETTLED, Request

logger = get_logger(__name__)


class ParkedRequest(Request):
    """A request whose caller is parked until it is woken."""

    __slots__ = ()

    waiter: trio.lowlevel.Task | None

    def wake(self) -> None:
        """Let the caller go on."""
        task = self.waiter
        if task is not None:
            self.waiter = None
            reschedule(task, RESUME)

    def forget_waiter(self, _: Callable[[], outcome.Error]) -> trio.lowlevel.Abort:
        """Let Trio cancel the parked caller."""
        self.waiter = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait(self) -> None:
        """Park the calling task until `wake`."""
        self.waiter = current_task()
        await wait_task_rescheduled(self.forget_waiter)


class Owner(Protocol):
    """Who makes requests."""

    def abandon(self, request: Request) -> None:
        """Give up on a request."""


class Reply(Request):
    """The reply to a request that was made with ``asynchronous=True``.

    Await it, as often as you like and in as many tasks as you like; that returns the result, or raises what
    the request raised. Cancelling a task that awaits it does not cancel the request, `cancel` does. Awaiting
    a reply that is there already notices cancellation, but does not let other tasks run.
    """

    # It is the request itself, since a second object for each would make many of them a tenth slower.
    __slots__ = ("_deadline", "_timeout", "_unseen", "owner")

    waiter: Any
    """A `trio.Event` that is made by who waits, which most need not; else `NO_WAITER`."""

    owner: Owner
    """Gives up on the request; to be set by who makes it."""

    _deadline: float
    _timeout: float
    _unseen: _UnseenError
    """There is one if an error came when nobody waited, so that it is not lost."""

    def limit(self, seconds: float) -> None:
        """Wait for the reply no longer than so many seconds from now."""
        self._timeout = seconds
        self._deadline = trio.current_time() + seconds

    def done(self) -> bool:
        """Return whether the reply is there, or never will be: awaiting it does not have to wait."""
        return self.phase >= SETTLED

    @trio.lowlevel.enable_ki_protection
    def cancel(self) -> bool:
        """Abandon the request. If it was not written yet it never will be; else its reply is dropped.

        Returns:
            Whether it was abandoned; False if it was already `done`.
        """
        if self.done():
            return False
        self.owner.abandon(self)
        self.wake()
        return True

    @trio.lowlevel.enable_ki_protection
    def __await__(self) -> Generator[Any, Any, Any]:
        if self.phase >= SETTLED:
            # Not a full checkpoint: to let all other tasks run for each of a hundred replies that arrived
            # together would cost more than their requests. A reply that is not there does let them run.
            yield from checkpoint_if_cancelled().__await__()  # noqa: ASYNC105 - it is awaited
        else:
            yield from self._wait().__await__()
        if self.phase is not SETTLED:
            from concurrent.futures import CancelledError

            raise CancelledError(f"The request {self.service}.{self.attribute} was cancelled")
        if self.error is not None:
            if hasattr(self, "_unseen"):
                self._unseen.forget()
            # It may be awaited again: each time the error starts with a traceback of its own.
            raise self.error.with_traceback(None)
        return self.result

    @trio.lowlevel.enable_ki_protection
    async def _wait(self) -> None:
        if self.waiter is NO_WAITER:
            self.waiter = trio.Event()
            if self.settled:
                # A thread has taken the reply in the same moment, and may have found nobody to tell.
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
        """Tell who waits, if anybody does."""
        if self.waiter is not NO_WAITER:
            self.waiter.set()
        elif self.error is not None:
            self._unseen = _UnseenError(self, self.error)

    def __dir__(self) -> list[str]:
        # What a request is to the connection is not for those who wait for the reply.
        return sorted({*object.__dir__(self)} - _REQUEST_NAMES)

    def __repr__(self) -> str:
        if not self.done():
            state = "waiting"
        elif not self.settled:
            state = "cancelled"
        else:
            state = "failed" if self.error else "arrived"
        return f"<Reply to {self.service}.{self.attribute} {state}>"


_REQUEST_NAMES = {name for name in dir(Request) if not name.startswith("_")} | {"limit", "owner"}


class _UnseenError:
    """Says what the error of a reply was, when it is gone and nobody has awaited its reply.

    A ``__del__`` of the replies themselves would make each of them, with an error or not, slower.
    """

    def __init__(self, reply: Reply, error: NetworkError) -> None:
        self._what = f"{reply.service}.{reply.attribute}"
        self._error: NetworkError | None = error

    def forget(self) -> None:
        """Say nothing."""
        self._error = None

    def __del__(self) -> None:
        if self._error is not None:
            logger.error("nobody awaited the reply to %s, which was an error: %s", self._what, self._error)


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
