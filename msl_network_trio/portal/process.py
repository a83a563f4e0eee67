"""State of this process, reset in a child process after a fork.

Any thread may read it; it needs no lock, since each attribute is assigned in one step.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import ClassVar


class Process:
    """State of a process.

    Attributes:
        main_thread: Identifier of the thread that runs signal handlers.
        is_exiting: Whether the interpreter is about to end and only daemon threads are left.
    """

    hooks_fork: ClassVar[bool] = False
    """Whether forks are hooked. Child processes inherit the hook, so this is not reset."""

    fork_callbacks: ClassVar[list[Callable[[], object]]] = []

    def __init__(self) -> None:
        self.main_thread = threading.main_thread().ident
        self.is_exiting = False


this = Process()
"""The current process. Look it up in this module each time: a fork replaces it."""


def hook_forks() -> None:
    """Make a forked child process start with fresh state; further calls have no effect."""
    if not Process.hooks_fork and hasattr(os, "register_at_fork"):
        Process.hooks_fork = True
        os.register_at_fork(after_in_child=_reset)


def on_fork(callback: Callable[[], object]) -> None:
    """Call a function in each child process after a fork, once forks are hooked.

    The child has a single thread. Use it to replace locks that another thread of the parent may hold.
    """
    Process.fork_callbacks.append(callback)


def _reset() -> None:
    """Reset the state in a forked child process, which has a single thread."""
    global this  # noqa: PLW0603 - this is another process
    this = Process()
    for callback in Process.fork_callbacks:
        callback()


def is_main_thread() -> bool:
    """Return whether the calling thread is the one that runs signal handlers."""
    return threading.get_ident() == this.main_thread


def park_at_exit() -> None:
    """Park the calling thread forever if it is a daemon thread and the interpreter is about to end.

    By then the connections have ended. The errors that follow from it would be printed after the last output
    of the program.
    """
    if this.is_exiting and not is_main_thread():
        while True:
            threading.Event().wait()


def is_exiting() -> bool:
    """Return whether the interpreter is about to end and only daemon threads are left."""
    return this.is_exiting
