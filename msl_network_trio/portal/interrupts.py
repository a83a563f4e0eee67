"""Deferral of signal handlers during a critical section of the main thread.

Python calls signal handlers in the main thread, between any two bytecode instructions, and they may raise:
the one for Ctrl-C does, those that end a program (SIGTERM) or limit a time (SIGALRM) often do. Only the main
thread changes the state of this module.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar, TypeVarTuple

from msl_network_trio.portal import process

try:
    # The functions behind signal.signal(), without the conversion to enums, which takes most of its time.
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
"""Numbers of the signals that can be handled."""


def uninterrupted(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Call a function, and defer all signal handlers until it has returned.

    In other threads than the main one it just calls the function. The function must not wait.
    """
    if threading.get_ident() != process.this.main_thread:
        return function(*args)
    handlers = _handlers()
    noted: dict[int, FrameType | None] = {}
    to_restore = [*handlers]
    try:
        try:
            for number, _ in handlers:
                # As a handler it is called with the number and the frame, and stores them.
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
"""Cache: the handlers of all signals, and those of them that are Python functions."""


def _handlers() -> Handlers:
    """Return the signals whose handlers are Python functions, and these; each call over TLS needs it."""
    global _known  # noqa: PLW0603 - the cache saves two thirds of the time
    now = [*map(_get_handler, _SIGNALS)]
    before, handlers = _known
    if now != before:
        # Other signals are ignored, end the process, or have a handler that is not a Python function.
        handlers = [pair for pair in zip(_SIGNALS, now, strict=True) if callable(pair[1])]
        _known = (now, handlers)
    return handlers


def _restore(handlers: Handlers) -> None:
    """Set handlers; those that are set already may be called, and raise, between two steps."""
    try:
        while handlers:
            _set_handler(*handlers[-1])
            handlers.pop()
    finally:
        if handlers:
            _restore(handlers)


def _call(handlers: Handlers, noted: dict[int, FrameType | None]) -> None:
    """Call the handlers of the deferred signals; each of them may raise."""
    for number, handler in handlers:
        if number in noted:
            frame = noted.pop(number)
            try:
                handler(number, frame)
            finally:
                _call(handlers, noted)
