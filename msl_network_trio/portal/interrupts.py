"""Defers signal handlers while the main thread is in a critical section.

Python calls signal handlers in the main thread, between any two steps of what it executes, and they may
raise: that for Ctrl-C does, those that end a program (SIGTERM) or limit a time (SIGALRM) often do.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar, TypeVarTuple

from msl_network_trio.portal import process

try:
    # What signal.signal() calls, without making enums, which takes most of its time.
    from _signal import getsignal as _get_handler  # type: ignore[import-not-found]
    from _signal import signal as _set_handler
except ImportError:  # not CPython
    _get_handler, _set_handler = signal.getsignal, signal.signal

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

Handlers = list[tuple[int, Callable[[int, FrameType | None], Any]]]

_SIGNALS = sorted(
    int(number)
    for number in signal.valid_signals()
    if number not in {getattr(signal, "SIGKILL", None), getattr(signal, "SIGSTOP", None)}
)
"""The signals that can be handled."""


def uninterrupted(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Call a function and defer all signal handlers until it has returned.

    Of use in the main thread, and harmless in others. The function must not wait for anything.
    """
    if threading.get_ident() != process.this.main_thread:
        return function(*args)
    handlers = _handlers()
    noted: dict[int, FrameType | None] = {}
    to_restore = [*handlers]
    try:
        try:
            for number, _ in handlers:
                # Called with the number and the frame, it takes a note.
                _set_handler(number, noted.setdefault)
            return function(*args)
        finally:
            _restore(to_restore)
    finally:
        if to_restore:  # another thread has injected an exception
            _restore(to_restore)
        if noted:
            _call(handlers, noted)


_known: tuple[list[Any], Handlers] = ([], [])
"""What the handlers of all signals were last time, and those of them that Python calls."""


def _handlers() -> Handlers:
    """Return the signals that have handlers which Python calls; this is on the way of calls by TLS."""
    global _known  # noqa: PLW0603 - it saves two thirds of the time
    now = [*map(_get_handler, _SIGNALS)]
    before, handlers = _known
    if now != before:
        # The others are ignored, end the process, or are not written in Python.
        handlers = [pair for pair in zip(_SIGNALS, now, strict=True) if callable(pair[1])]
        _known = (now, handlers)
    return handlers


def _restore(handlers: Handlers) -> None:
    """Set handlers; those that are set already may be called, and raise, in the midst of it."""
    try:
        while handlers:
            _set_handler(*handlers[-1])
            handlers.pop()
    finally:
        if handlers:
            _restore(handlers)


def _call(handlers: Handlers, noted: dict[int, FrameType | None]) -> None:
    """Call the handlers of the signals that came meanwhile; each of them may raise."""
    for number, handler in handlers:
        if number in noted:
            frame = noted.pop(number)
            try:
                handler(number, frame)
            finally:
                _call(handlers, noted)
