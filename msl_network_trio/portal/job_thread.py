"""Background thread with a job queue, for functions that may block and for handlers of the user."""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import outcome
import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.logger import get_logger
from msl_network_trio.portal.portal import Portal

logger = get_logger(__name__)

R = TypeVar("R")


class _Job:
    """A function to be called once.

    An exception may interrupt the thread at any moment. Then `run` is called again, and does the rest.

    Args:
        function: The function; must not raise.
        finish: Called afterwards, also if the function was interrupted, possibly more than once.
    """

    __slots__ = ("_finish", "_function", "_is_started")

    def __init__(self, function: Callable[[], object], finish: Callable[[], object] | None = None) -> None:
        self._function = function
        self._finish = finish
        self._is_started = False

    def run(self) -> None:
        """Call the function, unless it was called before."""
        if not self._is_started:
            self._is_started = True
            self._function()
        if self._finish is not None:
            self._finish()


class JobThread:
    """A background thread that calls functions, one at a time; it ends when this object is deleted.

    It is a daemon, so it does not keep the interpreter from ending. An exception that is injected into it
    interrupts at most one function.

    Args:
        name: Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._jobs: deque[_Job] = deque()
        # An item wakes the thread; None: the thread ends when there are no more jobs.
        self._wakes: queue.SimpleQueue[bool | None] = queue.SimpleQueue()
        threading.Thread(target=_work, args=(self._jobs, self._wakes), name=name, daemon=True).start()
        weakref.finalize(self, self._wakes.put, None).atexit = False

    def submit(self, function: Callable[[], object]) -> None:
        """Schedule a call of a function, after those that were submitted before. It must not raise."""
        self._put(_Job(function))

    def _put(self, job: _Job) -> None:
        self._jobs.append(job)
        self._wakes.put(True)

    async def call(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
        """Call a function from the Trio thread, and return its result. Cancellation abandons the call."""
        portal = Portal.here()
        done = trio.Event()
        result: outcome.Outcome[R] | None = None

        def job() -> None:
            nonlocal result
            result = outcome.capture(partial(function, *args, **kwargs))

        def finish() -> None:
            try:
                portal.post(done.set)
            except ConnectionLost:
                pass  # no task waits any more

        self._put(_Job(job, finish))
        await done.wait()
        if result is None:
            raise RuntimeError(f"An exception interrupted the thread that had called {function!r}")
        return result.unwrap()


def _work(jobs: deque[_Job], wakes: queue.SimpleQueue[bool | None]) -> None:
    is_ending = False
    while not is_ending:
        try:
            is_ending = _work_off(jobs, wakes)
        except BaseException as error:  # noqa: BLE001 - it is logged
            # It was raised between two jobs, so it belongs to no caller.
            logger.warning("%r interrupted the thread %r", error, threading.current_thread().name)


def _work_off(jobs: deque[_Job], wakes: queue.SimpleQueue[bool | None]) -> bool:
    """Run jobs until the end of the thread; may be interrupted and called again at any moment."""
    is_last = False
    while True:
        # Before waiting, since an interruption may have lost a wake.
        while jobs:
            jobs[0].run()
            jobs.popleft()
        if is_last:
            return True
        is_last = wakes.get() is None
