"""Ctrl-C where it must not cut anything in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar, TypeVarTuple

from msl_network_trio.portal import process

try:
    # What signal.signal() calls, without making enums, which takes most of its time.
    from _signal import getsignal as _get_handler  # type: ignore[import-not-found]
    from _signal import signal as _set_handler
except ImportError:  # not CPython
    _get_handler, _set_handler = signal.getsignal, signal.signal

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


def uninterrupted(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Call a function that Ctrl-C does not cut in two: it takes effect at the end.

    Of use in the main thread, and harmless in others. The function must not wait for anything.
    """
    if threading.get_ident() != process.this.main_thread:
        return function(*args)
    handler = _get_handler(signal.SIGINT)
    if not callable(handler):  # it is ignored, or ends the process
        return function(*args)
    noted: dict[int, FrameType | None] = {}
    try:
        # Called with the number and the frame, it takes a note; this is on the way of every request.
        _set_handler(signal.SIGINT, noted.setdefault)
        return function(*args)
    finally:
        _set_handler(signal.SIGINT, handler)
        if noted:
            handler(signal.SIGINT, None)
