"""What belongs to this process, and is not inherited by those that it forks."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from msl_network_trio.portal.background_thread import Script


class Process:
    """A process.

    Attributes:
        main_thread: The identifier of the thread that signals interrupt.
        lock: Held while `script` is looked at and started.
        script: The Trio thread of this process, if it has one that we have started.
        is_exiting: Whether the interpreter is about to end, and only daemon threads are left.
    """

    # It is inherited.
    hooks_fork: ClassVar[bool] = False

    def __init__(self) -> None:
        self.main_thread = threading.main_thread().ident
        self.lock = threading.RLock()
        self.script: Script | None = None
        self.is_exiting = False


this = Process()
"""The one that runs now. To be looked up in this module each time: after a fork it is another one."""


def notice_forks() -> None:
    """See to it that a process that is forked from this one begins anew."""
    if not Process.hooks_fork and hasattr(os, "register_at_fork"):
        Process.hooks_fork = True
        os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    """Begin anew in a process that was forked, in which there is but one thread."""
    global this  # noqa: PLW0603 - this is another process
    this = Process()


def is_main_thread() -> bool:
    """Return whether this is the thread that signals interrupt."""
    return threading.get_ident() == this.main_thread


def stand_still_at_exit() -> None:
    """Return, but for a daemon thread of an interpreter that is about to end: it does not go on.

    The connections have ended, and the errors that this makes would be printed over what the program printed
    last.
    """
    if this.is_exiting and not is_main_thread():
        while True:
            threading.Event().wait()


def is_exiting() -> bool:
    """Return whether the interpreter is about to end, and only daemon threads are left."""
    return this.is_exiting
