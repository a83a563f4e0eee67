"""Whose turn it is to read requests: the task's, or that of a thread that waits for the next one anyway.

To hand a request over to a thread takes longer than to carry out most of them: the event loop and the thread
wake each other in turns. So while requests for plain methods come one at a time, as they do from a program
that makes one call after the other, the task stands aside: the thread that has answered a request reads the
next one itself and carries it out.

Nobody reads while that thread is at work, so there are limits to it:

- It does so only for methods that have returned promptly the last time (`MethodProfile.is_prompt`).
- A task looks every `MAX_BLOCKED` seconds, and reads again if a method takes longer all the same. That is as
  long as Python lets a thread compute before others have their turn.
- Whatever is not a single such request is left to the task, which then reads on for a while: when requests
  come several at a time, they are carried out side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter
from typing import Final, Protocol

import trio

MAX_BLOCKED: Final = 0.005
"""For how many seconds, at the most, a method holds up other requests because it has been prompt before."""

MAX_WAIT: Final = 0.02
"""For how many seconds a thread waits for the next request before it leaves that to the task."""

_FREQUENT: Final = 0.05
"""How many seconds apart, at the most, single requests have to be before the task stands aside."""

_WORTHWHILE: Final = 8
"""How many requests threads have to read while the task stands aside, or it did so in vain."""

_MIN_BACKOFF, _MAX_BACKOFF = 0.05, 1.6
"""For how many seconds the task reads when it had stood aside in vain; they double each time."""


class Reader(Protocol):
    """A thread that carries out requests."""

    started_at: float
    """When it has begun what it is doing, by `time.perf_counter`; 0: it does nothing."""


class RequestLease:
    """Says whose turn it is to read.

    Args:
        lock: Held whenever the turn changes, and by who reads.
        threads_may_receive: Whether threads may read at all.
        call_soon: Calls something in the Trio thread, from any thread.

    Attributes:
        is_lent: Whether the task stands aside.
        holder: The thread that reads; None: none does.
    """

    def __init__(
        self,
        lock: threading.RLock,
        call_soon: Callable[[Callable[[], object]], object],
        *,
        threads_may_receive: bool,
    ) -> None:
        self.is_lent = False
        self.holder: Reader | None = None
        self._lock = lock
        self._call_soon = call_soon
        self._threads_may_receive = threads_may_receive
        self._called_back = trio.Event()
        self._is_given_back = False
        self._read = 0
        self._last = 0.0
        self._not_before = 0.0
        self._backoff = _MIN_BACKOFF

    # ---- for threads ----

    def take(self, thread: Reader, is_idle: Callable[[], bool]) -> bool:
        """Let a thread read, if the task stands aside and no other thread reads.

        Args:
            thread: The thread, which has done with what it did.
            is_idle: Whether no request waits for a thread.
        """
        if self.holder is thread:
            return True
        if not self._is_free():
            return False
        with self._lock:
            if not self._is_free() or not is_idle():
                return False
            self.holder = thread
            return True

    def _is_free(self) -> bool:
        return self.is_lent and self.holder is None and not self._is_given_back

    def has_read(self) -> None:
        """Note that the thread whose turn it is carries out what it has read, and will then read on."""
        self._read += 1

    def give_back(self, thread: Reader) -> None:
        """Leave reading to the task.

        Args:
            thread: The thread that reads no more.
        """
        with self._lock:
            if self.holder is thread:
                self.holder = None
                self._is_given_back = True  # the task has to see to what it left before anybody reads on
                self._call_soon(self._called_back.set)

    # ---- for the task ----

    def is_worth_lending(self) -> bool:
        """Whether to stand aside, now that a single request has come, for a plain method that is prompt."""
        if not self._threads_may_receive:
            return False
        now = perf_counter()
        is_frequent, self._last = now - self._last < _FREQUENT, now
        return is_frequent and now >= self._not_before

    def lend(self) -> None:
        """Have the next thread that has answered a request read; then `wait`.

        The lock is held until that request is in the queue: it is not to wait for a thread that reads.
        """
        self.is_lent = True
        self._is_given_back = False
        self._read = 0
        self._called_back = trio.Event()

    async def wait(self) -> None:
        """Wait until no thread reads, or the one that does is at work for too long."""
        while True:
            with trio.move_on_after(MAX_BLOCKED):
                await self._called_back.wait()
                return
            holder = self.holder
            if holder is None or 0.0 < holder.started_at <= perf_counter() - MAX_BLOCKED:
                return

    def take_back(self) -> None:
        """Return the read lease to the task."""
        with self._lock:
            if not self.is_lent:
                return
            self.is_lent = False
            self.holder = None
            self._called_back.set()
        if self._read >= _WORTHWHILE:
            self._backoff = _MIN_BACKOFF
        else:
            self._not_before = perf_counter() + self._backoff
            self._backoff = min(2 * self._backoff, _MAX_BACKOFF)
        self._last = perf_counter()
