"""Duties of a server process towards its parent: report that it is ready, and end with it."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO


def take_standard_output() -> TextIO:
    """Return the original standard output for the parent, and redirect further output to os.devnull.

    So a program pays for writing to a console, but not for the speed of the console.
    """
    for_parent = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    return for_parent


def say_ready(for_parent: TextIO, facts: dict[str, Any]) -> None:
    """Report to the parent that the process is ready, with the facts that it needs."""
    print("ready", json.dumps(facts), file=for_parent, flush=True)


_to_do_at_end: list[Callable[[], object]] = []


def at_end(function: Callable[[], object]) -> None:
    """Call a function when this process ends with its parent; the last registered one is called first."""
    _to_do_at_end.append(function)


def end_with_parent() -> None:
    """End this process at the end of standard input, whatever it is doing."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    try:
        for function in reversed(_to_do_at_end):
            function()
    finally:
        os._exit(0)
