"""Callback queues: calls of one function of the user, in order and one at a time, in a task of their own.

Everything here runs in the Trio thread. The caller never waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import trio

from msl_network_trio import callbacks
from msl_network_trio.callbacks import CallbackTasks
from msl_network_trio.logger import get_logger

logger = get_logger(__name__)

_MAX_QUEUED: Final = 1000
"""Maximum number of calls that wait; beyond it the oldest are dropped, which is logged."""


class CallbackQueue:
    """Calls a function, in the order of `put`; an exception in it is logged, and ends nothing.

    There is a task only while calls wait.

    Args:
        tasks: Runs the task, and cancels it at the end of the client.
        function: The function, plain or async.
        what: Description of the function, for the log.
    """

    __slots__ = ("_dropped", "_function", "_is_running", "_logged", "_queue", "_tasks", "_what")

    def __init__(self, tasks: CallbackTasks, function: Callable[..., Any], what: str) -> None:
        self._tasks = tasks
        self._function = function
        self._what = what
        self._queue: deque[tuple[Any, ...]] = deque()
        self._is_running = False
        self._dropped = self._logged = 0

    @trio.lowlevel.enable_ki_protection
    def put(self, *args: Any) -> None:
        """Schedule a call with these arguments. After the end of the client it has no effect."""
        if self._tasks.nursery is None:
            return
        self._append(args)
        if not self._is_running:
            self._is_running = True
            self._tasks.start(self._run)

    @trio.lowlevel.enable_ki_protection
    def put_last(self, *args: Any, seconds: float) -> None:
        """Schedule the last call, and make it and those that wait although the other callback tasks end.

        It does not wait for a call that runs, which may be waiting for the end of the client.

        Args:
            *args: The arguments.
            seconds: Maximum seconds that the calls may take.
        """
        self._append(args)
        self._tasks.start_final(self._run, seconds)

    def _append(self, args: tuple[Any, ...]) -> None:
        self._queue.append(args)
        if len(self._queue) > _MAX_QUEUED:
            self._queue.popleft()
            self._dropped += 1
            if self._dropped > 2 * self._logged:  # at 1, 3, 7, 15, ...
                self._logged = self._dropped
                logger.warning("%s falls behind: %d calls dropped so far", self._what, self._dropped)

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        callbacks.in_callback.set(True)
        try:
            while self._queue:
                await callbacks.call(self._function, self._queue.popleft(), {}, self._what)
        finally:
            self._is_running = False
