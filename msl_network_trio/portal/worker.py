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

    An exception may interrupt the thread at any moment; then `run` is called again, and does what is left.

    Args:
        function: The function; must raise nothing.
        finish: Called afterwards, also when the function was interrupted, perhaps more than once.
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


class Worker:
    """A thread that calls functions, one after the other; it ends with this object.

    It is a daemon, so it does not keep the interpreter from ending. An exception that is injected into it
    interrupts one function at most.

    Args:
        name: The name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._jobs: deque[_Job] = deque()
        # What is put there just wakes the thread; None: it shall end when there are no more jobs.
        self._wakes: queue.SimpleQueue[bool | None] = queue.SimpleQueue()
        threading.Thread(target=_work, args=(self._jobs, self._wakes), name=name, daemon=True).start()
        weakref.finalize(self, self._wakes.put, None).atexit = False

    def submit(self, function: Callable[[], object]) -> None:
        """Have a function called, after those that were submitted before; it must raise nothing."""
        self._put(_Job(function))

    def _put(self, job: _Job) -> None:
        self._jobs.append(job)
        self._wakes.put(True)

    async def call(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
        """Call a function from Trio, and wait for what it returns. Cancellation abandons it."""
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
                pass  # nobody is there to be told

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
            # It came between two jobs, so it belongs to no caller.
            logger.warning("%r interrupted the thread %r", error, threading.current_thread().name)


def _work_off(jobs: deque[_Job], wakes: queue.SimpleQueue[bool | None]) -> bool:
    """Run jobs until the thread shall end; may be interrupted and called again at any moment."""
    is_last = False
    while True:
        # First, since an interruption may have lost a wake.
        while jobs:
            jobs[0].run()
            jobs.popleft()
        if is_last:
            return True
        is_last = wakes.get() is None
