"""Read lease: lets a thread that waits for data read the stream itself (leader/followers).

Usually a task reads, and wakes the thread that the data is for. For a thread that sends one message and waits
for one, again and again, these two switches between threads take longer than everything else. So the task
lends the lease: a thread that waits takes it, reads, and keeps it or releases it. The task checks at
intervals whether the lease is used, and takes it back otherwise, or at once if it is called back.

| state     | `is_lent` | `holder` | reader                                         |
|-----------|-----------|----------|------------------------------------------------|
| not lent  | False     | None     | the task                                       |
| free      | True      | None     | none: the next thread that waits may take it   |
| taken     | True      | a thread | that thread                                    |
| returned  | True      | None     | none, until the task has taken it back         |

The lease changes hands with the lock of the stream held, and its holder holds the lock while it receives.
It decides only which thread receives data; the data is processed in the same order in any case.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from time import perf_counter
from typing import ClassVar, Final

import trio

_FREQUENT: Final = 0.05
"""Maximum seconds between messages for threads that make it worth lending the lease."""

_MIN_BACKOFF: Final = 0.05
_MAX_BACKOFF: Final = 1.6
"""Seconds in which the task does not lend after it lent the lease in vain; they double each time."""


class ReadLease(ABC):
    """Read lease of a stream; base class of those of client and Service.

    Args:
        lock: The lock of the stream.
        threads_may_receive: Whether the stream lets threads receive; else the lease is never lent.

    Attributes:
        is_lent: Whether the task leaves reading to threads.
        holder: The thread that reads, or an object that stands for it; None: there is none.
        first_check: Seconds after which the task checks for the first time whether the lease is used.
        last_check: Maximum seconds between checks; they double from the first.
        worthwhile: Minimum number of uses, or the lease was lent in vain.
    """

    first_check: ClassVar[float]
    last_check: ClassVar[float]
    worthwhile: ClassVar[int]

    def __init__(self, lock: threading.RLock, *, threads_may_receive: bool) -> None:
        self.is_lent = False
        self.holder: object | None = None
        self._lock = lock
        self._threads_may_receive = threads_may_receive
        self._is_returned = False
        self._called_back: trio.Event | None = None  # made when needed, as a connection may have no threads
        self._uses = 0
        self._uses_before = 0
        """The number of uses before it was lent."""
        self._last = 0.0
        self._not_before = 0.0
        self._backoff = _MIN_BACKOFF

    # ---- for threads, with the lock held ----

    def is_free(self) -> bool:
        """Whether a thread may take the lease; without the lock: whether it is worth acquiring the lock."""
        return self.is_lent and self.holder is None and not self._is_returned

    def release(self, holder: object) -> None:
        """Leave reading to another thread; no effect if this is not the holder."""
        if self.holder is holder:
            self.holder = None

    def give_back(self, holder: object) -> None:
        """Leave reading to the task, which has to be called back; no effect if this is not the holder."""
        if self.holder is holder:
            self.holder = None
            self._is_returned = True

    # ---- for the task ----

    def is_worth_lending(self) -> bool:
        """Return whether to lend the lease, now that a message for a thread has arrived."""
        if not self._threads_may_receive:
            return False
        now = perf_counter()
        is_frequent, self._last = now - self._last < _FREQUENT, now
        return is_frequent and now >= self._not_before

    def lend(self) -> None:
        """Let threads take the lease; with the lock held. Afterwards `wait`, and `take_back` in any case."""
        self.is_lent = True
        self._is_returned = False
        self._uses_before = self._uses
        self._called_back = trio.Event()

    async def wait(self) -> None:
        """Wait until `call_back` is called, or the lease is not used any more."""
        called_back = self._called_back
        assert called_back is not None  # it was lent
        seconds = self.first_check
        while True:
            uses = self._uses
            with trio.move_on_after(seconds):
                await called_back.wait()
                return
            if self.is_idle(was_used=self._uses != uses):
                return
            seconds = min(2 * seconds, self.last_check)

    @abstractmethod
    def is_idle(self, *, was_used: bool) -> bool:
        """Return whether the task has to take the lease back.

        Args:
            was_used: Whether it was used since the last check.
        """

    def take_back(self) -> None:
        """Let the task read again; no effect if the lease is not lent."""
        with self._lock:
            if not self.is_lent:
                return
            self.is_lent = False
            self.holder = None
            self.call_back()
        self._last = perf_counter()
        if self._uses - self._uses_before >= self.worthwhile:
            self._backoff = _MIN_BACKOFF
        else:
            self._not_before = self._last + self._backoff
            self._backoff = min(2 * self._backoff, _MAX_BACKOFF)

    def call_back(self) -> None:
        """Wake the task to take the lease back at once; in the Trio thread."""
        if self._called_back is not None:
            self._called_back.set()
