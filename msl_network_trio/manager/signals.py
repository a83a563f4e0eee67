"""Signals that end a program, for as long as it runs in the main thread."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Generator

import trio

from msl_network_trio.logger import get_logger

logger = get_logger(__name__)

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
"""What ends a program; SIGBREAK is what CTRL_BREAK_EVENT is on Windows, where nobody sends a SIGTERM."""


@contextlib.contextmanager
def signal_receiver() -> Generator[AsyncIterator[int] | None]:
    """Receive the signals that end a program; None if they cannot be, which is so outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        yield signals


async def end_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    """Cancel a scope at the first signal."""
    number = await anext(signals)
    # The next one is for the operating system: it ends the process, whatever it may be waiting for.
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    logger.info("%s received", signal.Signals(number).name)
    scope.cancel()
