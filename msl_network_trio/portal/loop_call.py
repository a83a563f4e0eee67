"""Blocking call from a thread into the Trio loop."""

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

_CLEAN_UP_TIMEOUT = 5.0
"""Maximum seconds that an interrupted call waits for the cleanup in the Trio thread."""

_loop_call: ContextVar[LoopCall[Any] | None] = ContextVar("call", default=None)


class Poster(Protocol):
    """The way into a Trio run; see `Portal`."""

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """See `Portal.post`."""


def run_has_ended() -> ConnectionLost:
    """Return the error of a call when the Trio run has ended."""
    return ConnectionLost("The Trio run that the connection belonged to has ended")


class LoopCall(Generic[R]):
    """A blocking call into the Trio loop, from a thread that is not a worker thread of the Trio run.

    While the thread waits, the called task can make it call functions (`ask`).

    Args:
        portal: The way into the Trio run.
        function: The async function to call.
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
        # Functions that the thread must call; None: there is an outcome.
        self._next: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._outcome: outcome.Outcome[R] | None = None

    @property
    def is_done(self) -> bool:
        """Whether there is an outcome."""
        return self._outcome is not None

    # ---- in the thread ----

    def run(self) -> R:
        """Call the function in the Trio thread, and return its result.

        Raises:
            ConnectionLost: The Trio run has ended.
            BaseException: The function has raised it, or it has interrupted the thread.
        """
        try:
            self._portal.post(self._start)
            self._serve(math.inf)
            park_at_exit()
            assert self._outcome is not None
            return self._outcome.unwrap()
        except BaseException as error:
            if not (isinstance(self._outcome, outcome.Error) and self._outcome.error is error):
                self._abandon()
            raise

    def _serve(self, seconds: float) -> None:
        """Call the functions that the task asks for, until there is an outcome."""
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

    def _abandon(self) -> None:
        """Cancel the function, and wait until it and `close` have cleaned up."""
        is_clean: queue.SimpleQueue[None] = queue.SimpleQueue()
        try:
            self._portal.post(self._start_cleaning_up, is_clean)
            is_clean.get(timeout=_CLEAN_UP_TIMEOUT)
        except (ConnectionLost, queue.Empty):
            pass

    # ---- in the Trio thread ----

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

    def _start_cleaning_up(self, is_clean: queue.SimpleQueue[None]) -> None:
        if not self._started:  # Ctrl-C was raised before _start was posted
            is_clean.put(None)
            return
        try:
            trio.lowlevel.spawn_system_task(self._clean_up, is_clean)
        except RuntimeError:  # the run is ending, and closes everything
            is_clean.put(None)

    async def _clean_up(self, is_clean: queue.SimpleQueue[None]) -> None:
        try:
            self._scope.cancel()
            await self._ended.wait()
            # It may have finished before the cancellation.
            if self._close is not None and isinstance(self._outcome, outcome.Value):
                await self._close(self._outcome.value)
        finally:
            is_clean.put(None)

    async def ask(self, function: Callable[[], R]) -> R:
        """Make the thread call a function, and return its result."""
        answered = trio.Event()
        answer: outcome.Outcome[R] | None = None

        def answer_it() -> None:
            nonlocal answer
            try:
                answer = outcome.Value(function())
            except Exception as error:  # noqa: BLE001 - it is raised in the task; Ctrl-C stays in the thread
                answer = outcome.Error(error)
            self._portal.post(answered.set)

        self._next.put(answer_it)
        await answered.wait()
        assert answer is not None
        return answer.unwrap()


async def in_calling_thread(function: Callable[..., R], *args: Any) -> R:
    """Call a function in the thread whose call this task serves; without one, in a worker thread.

    Cancellation abandons the call.
    """
    call = _loop_call.get()
    if call is None or call.is_done:  # tasks that outlive the call inherit it
        return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)
    result: R = await call.ask(partial(function, *args))
    return result
