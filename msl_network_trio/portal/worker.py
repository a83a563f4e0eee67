"""And back: a thread for what may block, or is the user's."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import outcome
import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.portal.portal import Portal

R = TypeVar("R")


class Worker:
    """A thread that calls functions, one after the other; it ends with this object.

    It is a daemon, so it does not keep the interpreter from ending.

    Args:
        name: The name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True).start()
        weakref.finalize(self, self._jobs.put, None).atexit = False

    def submit(self, function: Callable[[], object]) -> None:
        """Have a function called, after those that were submitted before; it must raise nothing."""
        self._jobs.put(function)

    async def call(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
        """Call a function from Trio, and wait for what it returns. Cancellation abandons it."""
        portal = Portal.here()
        done = trio.Event()
        result: outcome.Outcome[R] | None = None

        def job() -> None:
            nonlocal result
            result = outcome.capture(partial(function, *args, **kwargs))
            try:
                portal.post(done.set)
            except ConnectionLost:
                pass  # nobody is there to be told

        self.submit(job)
        await done.wait()
        assert result is not None
        return result.unwrap()


def _work(jobs: queue.SimpleQueue[Callable[[], object] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # it may be all that keeps the worker alive
