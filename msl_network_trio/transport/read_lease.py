"""Whose turn it is to read: the task's or, for a moment, that of a thread that waits for a reply anyway.

A thread that makes one call after the other would otherwise wait, in each of them, until the event loop has
read the reply, has woken it and has gone to sleep again, which takes longer than all the rest. So the task
stands aside while such a thread is at work, and looks from time to time whether it still is. Whoever needs
the task calls it back.
"""

from __future__ import annotations

import threading
from time import monotonic

import trio

from msl_network_trio.protocol.requests import Request

MAX_LEASE = 0.02
"""For how many seconds a thread reads; a reply that takes longer can as well be read by the task."""

_FREQUENT = 0.05
"""How many seconds apart, at the most, replies to threads have to be before the task stands aside."""

_FIRST_LOOK, _LAST_LOOK = 0.01, 0.02
"""After how many seconds aside the task looks whether threads still read, at first and in the long run."""

_MIN_BACKOFF, _MAX_BACKOFF = 0.05, 1.6
"""For how many seconds the task stays when it had stood aside for nobody; they double each time."""


class ReadLease:
    """Says whose turn it is to read. What threads call, they call with the lock held.

    Args:
        lock: The connection's.
        threads_may_receive: Whether threads may read at all.

    Attributes:
        is_lent: Whether the task stands aside.
        holder: The request whose thread reads; None: no thread does.
    """

    def __init__(self, lock: threading.RLock, *, threads_may_receive: bool) -> None:
        self.is_lent = False
        self.holder: Request | None = None
        self._lock = lock
        self._threads_may_receive = threads_may_receive
        self._until = 0.0
        self._turns = 0
        self._called_back: trio.Event | None = None
        self._last_reply = 0.0
        self._not_before = 0.0
        self._backoff = _MIN_BACKOFF

    # For threads.

    def take(self, request: Request) -> bool:
        """Let the thread that made this request read, if the task stands aside and no other thread reads."""
        if not self.is_lent or self.holder is not None:
            return False
        self.holder = request
        self._until = monotonic() + MAX_LEASE
        self._turns += 1
        return True

    def give_up(self, request: Request) -> None:
        """Let the thread that made this request read no more, if it does."""
        if self.holder is request:
            self.holder = None

    def hand_back(self, request: Request) -> None:
        """Leave reading to the task, which is to be called back: it has to look at what was received."""
        self.give_up(request)
        self.is_lent = False

    # For the task.

    def is_worth_lending(self) -> bool:
        """Return whether to stand aside, now that nothing but replies have come, for which threads waited.

        That is if threads may read, and are likely to wait for more replies soon.
        """
        if not self._threads_may_receive:
            return False
        now = monotonic()
        is_frequent, self._last_reply = now - self._last_reply < _FREQUENT, now
        return is_frequent and now >= self._not_before

    async def lend(self) -> None:
        """Let threads read, until none does any more or the task is called back."""
        with self._lock:
            self.is_lent = True
            self._called_back = called_back = trio.Event()
            turns_before = turns = self._turns
        look = _FIRST_LOOK
        try:
            while True:
                with trio.move_on_after(look):
                    await called_back.wait()
                    return
                if turns == self._turns and (self.holder is None or monotonic() > self._until + MAX_LEASE):
                    return
                turns = self._turns
                look = min(2 * look, _LAST_LOOK)
        finally:
            with self._lock:
                self.is_lent = False
                self.holder = None
            if self._turns > turns_before:
                self._backoff = _MIN_BACKOFF
            else:
                self._not_before = monotonic() + self._backoff
                self._backoff = min(2 * self._backoff, _MAX_BACKOFF)

    def call_back(self) -> None:
        """Have the task read at once; in the Trio thread."""
        if self._called_back is not None:
            self._called_back.set()
