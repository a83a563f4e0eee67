"""What the process of a server owes its parent: to say that it is ready, and to end with it."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO


def take_standard_output() -> TextIO:
    """Return what was standard output, for the parent; what else is printed from now on goes to os.devnull.

    So it costs a program what writing to a console costs it, and not what the console makes of it.
    """
    for_parent = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    return for_parent


def say_ready(for_parent: TextIO, facts: dict[str, Any]) -> None:
    """Say that the process is ready, and what the parent has to know of it."""
    print("ready", json.dumps(facts), file=for_parent, flush=True)


_to_do_at_end: list[Callable[[], object]] = []


def at_end(function: Callable[[], object]) -> None:
    """Have a function called when this process ends with its parent, the last one first."""
    _to_do_at_end.append(function)


def end_with_parent() -> None:
    """End this process, whatever it is doing, when standard input ends."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    try:
        for function in reversed(_to_do_at_end):
            function()
    finally:
        os._exit(0)
