"""Waits of threads that can be interrupted.

A thread may wait in three surroundings, and must not be stuck in any of them: the main thread has to notice
Ctrl-C, a worker thread of a Trio application the cancellation of the task that it works for, and no daemon
thread may disturb the end of the interpreter.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable
from time import monotonic

import trio

from msl_network_trio.portal.process import is_main_thread

SLICE = 0.05
"""For how many seconds to wait before looking around, where nothing else would interrupt a wait."""


class Latch:
    """An event that any thread may set, and threads wait for.

    Unlike `threading.Event` it stays intact whatever exception interrupts a thread that waits: the lock of a
    `threading.Condition` may be released twice then.

    Attributes:
        is_set: Whether it was set.
    """

    __slots__ = ("_gates", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._gates: list[_thread.LockType] = []

    def set(self) -> None:
        """Wake all threads that wait; setting it again, also after an interrupted call, does no harm."""
        self.is_set = True
        for gate in [*self._gates]:
            try:
                gate.release()
            except RuntimeError:
                pass  # it was released before

    def attempt(self, seconds: float) -> bool:
        """Wait until it is set, at most this many seconds, and return whether it is; see `wait`."""
        if not self.is_set:
            gate = _thread.allocate_lock()
            gate.acquire()
            self._gates.append(gate)
            # Only now: what was set before that had no gate to release.
            if not self.is_set:
                gate.acquire(True, min(seconds, threading.TIMEOUT_MAX))
            self._gates.remove(gate)
        return self.is_set


def let_go(lock: threading.RLock) -> None:
    """Release a lock that an exception has kept the end of a ``with`` block from releasing, if it has."""
    try:
        lock.release()
    except RuntimeError:
        pass  # this thread does not hold it


def check_may_wait(what: str, instead: str = "") -> None:
    """Refuse to wait where nobody may.

    Args:
        what: The function that is to be called, for the message.
        instead: What is to be awaited in the Trio thread; nothing: what has the same name in the async API.

    Raises:
        RuntimeError: This is a Trio thread, and waiting would stop its event loop.
        trio.Cancelled: This is a worker thread, and the task that it works for was cancelled.
    """
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(
            f"{what}() of msl_network_trio.sync would block the event loop that runs in this thread; "
            f"here, await {instead or f'{what}() of msl_network_trio'}"
        )
    check_cancelled()


def check_cancelled() -> bool:
    """Return whether this is a worker thread of Trio.

    Raises:
        trio.Cancelled: It is, and the task that it works for was cancelled.
    """
    if is_main_thread():
        return False
    try:
        trio.from_thread.check_cancelled()
    except RuntimeError:
        return False
    return True


def wait(attempt: Callable[[float], bool], seconds: float) -> bool:
    """Wait for something, interrupted by Ctrl-C and by cancellation, and return whether it came.

    Args:
        attempt: Waits for as many seconds as it is told to, and returns whether it came.
        seconds: How long to wait at the most; infinity: no limit.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed, and this is the main thread.
        trio.Cancelled: This is a worker thread, and the task that it works for was cancelled.
    """
    # Most waits are over before it pays to find out where we are.
    if attempt(min(seconds, SLICE)):
        return True
    deadline = monotonic() + seconds - SLICE
    # On Windows a signal does not interrupt a thread that waits for a lock.
    longest = SLICE if check_cancelled() or sys.platform == "win32" else threading.TIMEOUT_MAX
    while (left := deadline - monotonic()) > 0:
        if attempt(min(left, longest)):
            return True
        check_cancelled()
    return False
