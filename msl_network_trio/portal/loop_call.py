"""A call of a thread into a Trio run, which it waits for."""

from __future__ import annotations

import math
import queue
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import outcome
import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.portal.process import is_exiting, park_at_exit
from msl_network_trio.portal.waiting import wait

R = TypeVar("R")

_CLEAN_UP = 5.0
"""How many seconds an interrupted call may take to leave everything tidy."""

_loop_call: ContextVar[LoopCall[Any] | None] = ContextVar("call", default=None)


class Poster(Protocol):
    """The way into a Trio run; see `Portal`."""

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """See `Portal.post`."""


def run_has_ended() -> ConnectionLost:
    """Return what is raised when there is no Trio run any more."""
    return ConnectionLost("The Trio run that the connection belonged to has ended")


class LoopCall(Generic[R]):
    """A call of a thread that is no worker thread of the Trio run; meanwhile it can be asked to do things.

    Args:
        portal: The way into the Trio run.
        function: What to call.
        close: See `Portal.open`.
    """

    def __init__(
        self,
        portal: Poster,
        function: Callable[[], Awaitable[R]],
        close: Callable[[R], Awaitable[object]] | None,
    ) -> None:
        self._portal = portal
        self._function = function
        self._close = close
        self._scope = trio.CancelScope()
        self._started = False
        self._ended = trio.Event()
        # What the thread shall do next; None: nothing more, since there is an outcome.
        self._next: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._outcome: outcome.Outcome[R] | None = None

    @property
    def is_done(self) -> bool:
        """Whether there is an outcome."""
        return self._outcome is not None

    # In the thread.

    def run(self) -> R:
        """Have the function called, and return what it returns.

        Raises:
            ConnectionLost: The Trio run has ended.
            BaseException: What the function raises, or what has interrupted the thread.
        """
        try:
            self._portal.post(self._start)
            self._attend(math.inf)
            park_at_exit()
            assert self._outcome is not None
            return self._outcome.unwrap()
        except BaseException as error:
            if not (isinstance(self._outcome, outcome.Error) and self._outcome.error is error):
                self._give_up()
            raise

    def _attend(self, seconds: float) -> None:
        """Do what is asked for, until there is an outcome."""
        task: Callable[[], None] | None = None

        def arrived(seconds: float) -> bool:
            nonlocal task
            try:
                task = self._next.get(timeout=seconds)
            except queue.Empty:
                return False
            return True

        while wait(arrived, seconds) and task is not None:
            task()

    def _give_up(self) -> None:
        """Cancel the function, and wait until it has cleaned up and nothing is left of what it has done."""
        tidy: queue.SimpleQueue[None] = queue.SimpleQueue()
        try:
            self._portal.post(self._start_tidying, tidy)
            tidy.get(timeout=_CLEAN_UP)
        except (ConnectionLost, queue.Empty):
            pass

    # In the Trio thread.

    def _start(self) -> None:
        self._started = True
        try:
            trio.lowlevel.spawn_system_task(self._run, name=self._function)
        except RuntimeError:  # the run is ending
            self._finish(outcome.Error(run_has_ended()))

    async def _run(self) -> None:
        _loop_call.set(self)
        try:
            with self._scope:
                self._finish(outcome.Value(await self._function()))
        except Exception as error:  # noqa: BLE001 - it is raised in the thread
            self._finish(outcome.Error(error))
        finally:
            if self._outcome is None:  # cancelled, with the thread or with the run
                self._finish(outcome.Error(run_has_ended()))

    def _finish(self, result: outcome.Outcome[R]) -> None:
        self._outcome = result
        self._ended.set()
        if not is_exiting():
            self._next.put(None)

    def _start_tidying(self, tidy: queue.SimpleQueue[None]) -> None:
        if not self._started:  # Ctrl-C came before that was even asked for
            tidy.put(None)
            return
        try:
            trio.lowlevel.spawn_system_task(self._tidy_up, tidy)
        except RuntimeError:  # the run is ending, and closes everything
            tidy.put(None)

    async def _tidy_up(self, tidy: queue.SimpleQueue[None]) -> None:
        try:
            self._scope.cancel()
            await self._ended.wait()
            # It may have been too late to cancel it.
            if self._close is not None and isinstance(self._outcome, outcome.Value):
                await self._close(self._outcome.value)
        finally:
            tidy.put(None)

    async def ask(self, function: Callable[[], R]) -> R:
        """Have the thread call a function, and return what that returns."""
        answered = trio.Event()
        answer: outcome.Outcome[R] | None = None

        def answer_it() -> None:
            nonlocal answer
            try:
                answer = outcome.Value(function())
            except Exception as error:  # noqa: BLE001 - it is raised in the task; Ctrl-C is for the thread
                answer = outcome.Error(error)
            self._portal.post(answered.set)

        self._next.put(answer_it)
        await answered.wait()
        assert answer is not None
        return answer.unwrap()


async def in_calling_thread(function: Callable[..., R], *args: Any) -> R:
    """Call a function in the thread that waits for this task, if there is one, else in a worker thread.

    Cancellation abandons it.
    """
    call = _loop_call.get()
    if call is None or call.is_done:  # it is inherited by tasks that live longer
        return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)
    result: R = await call.ask(partial(function, *args))
    return result
