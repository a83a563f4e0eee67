"""What is to be done once more before the event loop waits for the operating system.

Tasks that can go on now may all have something to send, and it goes out best together. A task of its own to
send it would cost as much as several requests, each time: it has to be woken, and the event loop takes one
more turn for it. The event loop tells its instruments just as well when no task can go on any more.
"""

from __future__ import annotations

from collections.abc import Callable

import trio


class BeforeWaiting(trio.abc.Instrument):
    """Calls functions when all tasks that could go on have done so; `here` returns that of this run."""

    def __init__(self) -> None:
        self._functions: list[Callable[[], None]] = []

    @classmethod
    def here(cls) -> BeforeWaiting:
        """Return the one of this Trio run."""
        try:
            return _of_this_run.get()
        except LookupError:
            instrument = cls()
            trio.lowlevel.add_instrument(instrument)
            _of_this_run.set(instrument)
            return instrument

    def call(self, function: Callable[[], None]) -> None:
        """Call a function, once.

        Args:
            function: Must not raise, and must not make a task go on: the event loop has made up its mind how
                long it will wait.
        """
        self._functions.append(function)

    def before_io_wait(self, timeout: float) -> None:
        """Called by Trio."""
        if self._functions:
            functions, self._functions = self._functions, []
            for function in functions:
                function()


_of_this_run: trio.lowlevel.RunVar[BeforeWaiting] = trio.lowlevel.RunVar("_of_this_run")
