"""The read lease of a Service: lets the thread that has answered a request read the next one.

To pass a request to a thread takes longer than most plain methods. So while requests for plain methods arrive
one at a time, as from a program that makes one call after the other, the thread that has answered a request
reads the next one and carries it out. Without it, the Service needs 1.53 to 1.59 times the CPU time.

No thread reads while that thread carries out a request. Therefore:

- It does so only for methods that returned promptly the last time (`MethodProfile.is_prompt`).
- The task checks every `MAX_BLOCKED` seconds, and takes the lease back if a method takes longer nevertheless.
  That is as long as Python lets a thread compute before it switches to another.
- Anything but a single such request is left to the task, which then keeps the lease for a while: requests
  that arrive several at a time are carried out concurrently.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter
from typing import Final, Protocol, cast

from msl_network_trio.transport.read_lease import ReadLease

MAX_BLOCKED: Final = 0.005
"""Maximum seconds for which a method that was prompt before delays the requests behind it."""

MAX_WAIT: Final = 0.02
"""Maximum seconds for which a thread waits for the next request before it gives the lease back."""


class Reader(Protocol):
    """A thread that carries out requests."""

    started_at: float
    """Start time of the request that it carries out, by `time.perf_counter`; 0: it carries out none."""


class RequestLease(ReadLease):
    """The lease; its holder is the `Reader` that reads or carries out what it has read.

    Args:
        lock: The lock of the stream.
        call_soon: Calls a function in the Trio thread, from any thread.
        threads_may_receive: Whether the stream lets threads receive.
    """

    first_check = last_check = MAX_BLOCKED
    worthwhile = 8

    def __init__(
        self,
        lock: threading.RLock,
        call_soon: Callable[[Callable[[], object]], object],
        *,
        threads_may_receive: bool,
    ) -> None:
        super().__init__(lock, threads_may_receive=threads_may_receive)
        self._call_soon = call_soon

    def take(self, thread: Reader, is_idle: Callable[[], bool]) -> bool:
        """Let a thread read if it holds the lease already, or the lease is free; without the lock.

        Args:
            thread: The thread, which carries out no request.
            is_idle: Returns whether no request waits for a thread.
        """
        if self.holder is thread:
            return True
        if not self.is_free():
            return False
        with self._lock:
            if not self.is_free() or not is_idle():
                return False
            self.holder = thread
            return True

    def count_use(self) -> None:
        """Note that the holder has read a request, which it carries out."""
        self._uses += 1

    def give_back(self, holder: object) -> None:
        """Leave reading to the task, and call it back; without the lock. See `ReadLease.give_back`."""
        with self._lock:
            if self.holder is holder:
                super().give_back(holder)
                self._call_soon(self.call_back)

    def is_idle(self, *, was_used: bool) -> bool:
        """See `ReadLease.is_idle`."""
        holder = cast("Reader | None", self.holder)
        return holder is None or 0.0 < holder.started_at <= perf_counter() - MAX_BLOCKED
