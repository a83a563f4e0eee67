"""Interruptible waits of threads.

A wait must not get stuck in any of three surroundings: in the main thread Ctrl-C interrupts it, in a worker
thread of a Trio application the cancellation of the task that waits for the thread, and a daemon thread must
not disturb the end of the interpreter. Everything here may be used in any thread.
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
"""Seconds between checks for Ctrl-C and cancellation, where these do not interrupt a wait by themselves."""


class Latch:
    """A one-time event that any thread may set and threads wait for.

    Unlike `threading.Event` it stays intact if an exception interrupts a thread that waits: the lock of a
    `threading.Condition` may be released twice then.

    Attributes:
        is_set: Whether it was set.
    """

    __slots__ = ("_gates", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._gates: list[_thread.LockType] = []

    def set(self) -> None:
        """Wake all threads that wait. May be repeated, also after an interrupted call."""
        self.is_set = True
        for gate in [*self._gates]:
            try:
                gate.release()
            except RuntimeError:
                pass  # it was released before

    def timed_wait(self, seconds: float) -> bool:
        """Wait until it is set, at most this many seconds, and return whether it is; see `wait`."""
        if not self.is_set:
            gate = _thread.allocate_lock()
            gate.acquire()
            self._gates.append(gate)
            # Check again: a set() that came before had no gate to release.
            if not self.is_set:
                gate.acquire(True, min(seconds, threading.TIMEOUT_MAX))
            self._gates.remove(gate)
        return self.is_set


def release_if_held(lock: threading.RLock) -> None:
    """Release a lock if an exception has kept the end of a ``with`` block from releasing it."""
    try:
        lock.release()
    except RuntimeError:
        pass  # this thread does not hold it


def check_may_wait(what: str, instead: str = "") -> None:
    """Raise an exception if the calling thread must not wait.

    Args:
        what: Name of the function that was called, for the message.
        instead: The call to await in the Trio thread instead; empty: the async function of the same name.

    Raises:
        RuntimeError: This is a Trio thread, and waiting would block its event loop.
        trio.Cancelled: This is a worker thread, and the task that waits for it was cancelled.
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
        trio.Cancelled: It is one, and the task that waits for it was cancelled.
    """
    if is_main_thread():
        return False
    try:
        trio.from_thread.check_cancelled()
    except RuntimeError:
        return False
    return True


def wait(timed_wait: Callable[[float], bool], seconds: float) -> bool:
    """Wait for something, interrupted by Ctrl-C and by cancellation.

    Args:
        timed_wait: Waits at most the given number of seconds, and returns whether it succeeded.
        seconds: Maximum seconds to wait; infinity: no limit.

    Returns:
        Whether `timed_wait` succeeded in time.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed, and this is the main thread.
        trio.Cancelled: This is a worker thread, and the task that waits for it was cancelled.
    """
    # Most waits end before it pays to find out in which kind of thread this is.
    if timed_wait(min(seconds, SLICE)):
        return True
    deadline = monotonic() + seconds - SLICE
    # On Windows a signal does not interrupt a thread that waits for a lock.
    longest = SLICE if check_cancelled() or sys.platform == "win32" else threading.TIMEOUT_MAX
    while (left := deadline - monotonic()) > 0:
        if timed_wait(min(left, longest)):
            return True
        check_cancelled()
    return False
