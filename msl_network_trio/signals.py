"""Graceful shutdown on signals: the first signal shuts the program down, the second one kills it.

Handlers are installed in the main thread only, and only for signals with the default disposition: signals
that were ignored when the program started (``nohup``) stay ignored, and handlers of the program stay in
place.

An exception of such a handler (usually SystemExit) could interrupt Trio or this package at any instruction
and break the connection. So it is deferred: the program shuts down, and then the exception is raised. Only in
user code that runs in the Trio thread it is raised immediately.

Handlers run in the main thread, between any two instructions, and therefore use no lock.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Generator
from functools import partial
from time import monotonic
from types import FrameType
from typing import Any, Final

import trio

from msl_network_trio.logger import get_logger

logger = get_logger(__name__)

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""Signals that end a program. SIGHUP: its terminal was closed. SIGBREAK: CTRL_BREAK_EVENT on Windows."""

_SIGHUP: Final = getattr(signal, "SIGHUP", None)

_SAME_HANGUP: Final = 0.25
"""Seconds in which a further SIGHUP does not count as a second signal.

When a terminal is closed, both the shell and the kernel send SIGHUP, and systemd sends it after a SIGTERM
(``SendSIGHUP=``).
"""


class StopSignals:
    """Handlers of the signals that end a program; see `stop_signals`.

    Args:
        interrupt: Whether Ctrl-C also raises KeyboardInterrupt in user code that runs in the Trio thread
            without protection, see `trio.lowlevel.enable_ki_protection`.

    Attributes:
        received: Number of the first signal that was received; None: none yet.
        raised: Deferred exception of a handler of the program, to be raised after the shutdown; None: none.
    """

    def __init__(self, *, interrupt: bool) -> None:
        self.received: int | None = None
        self.raised: BaseException | None = None
        self._interrupt = interrupt
        self._process = os.getpid()
        self._when = 0.0
        self._before: dict[int, Any] = {}
        self._kept: dict[int, tuple[Any, Any]] = {}
        """Handlers of the program, and the wrappers installed in their place, by signal number."""
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: Callable[[], object] | None = None

    def install(self) -> None:
        """Install handlers for signals with the default disposition, and wrap the handlers of the program."""
        numbers = [getattr(signal, name, None) for name in _NAMES]
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if handler is signal.SIG_DFL or handler is signal.default_int_handler:
                if number in numbers:
                    self._before[number] = signal.signal(number, self._handle)
            elif callable(handler):
                keeping = partial(self._call_handler, handler)
                self._kept[number] = (handler, keeping)
                signal.signal(number, keeping)

    def restore(self) -> None:
        """Restore the handlers that `install` replaced."""
        for number, handler in self._before.items():
            now = signal.getsignal(number)
            if now is signal.SIG_DFL or now == self._handle:
                signal.signal(number, handler)
        for number, (handler, keeping) in self._kept.items():
            if signal.getsignal(number) is keeping:
                signal.signal(number, handler)

    def on_stop(self, stop: Callable[[], object]) -> None:
        """Set the function that starts the shutdown; call this in the Trio thread.

        Args:
            stop: Called in the Trio thread at the first signal; soon, if a signal was received already.
        """
        self._token = trio.lowlevel.current_trio_token()
        self._stop = stop
        if self.received is not None:
            self._stop_soon()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            self._handle_in_child(number, frame)
        elif self.received is None:
            self.received = number
            self._when = monotonic()
            # The default disposition lets the second signal kill the process even if Python is stuck.
            for each in self._before:
                if each != _SIGHUP:
                    signal.signal(each, signal.SIG_DFL)
            self._stop_soon()
            in_trio = self._interrupt and number == signal.SIGINT and trio.lowlevel.in_trio_run()
            if in_trio and not trio.lowlevel.currently_ki_protected():
                raise KeyboardInterrupt
        elif number != _SIGHUP or monotonic() - self._when >= _SAME_HANGUP:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _call_handler(self, handler: Callable[..., Any], number: int, frame: FrameType | None) -> None:
        """Call a handler of the program, and defer its exception unless user code is interrupted."""
        try:
            handler(number, frame)
        except BaseException as error:
            if os.getpid() != self._process or not trio.lowlevel.in_trio_run():
                raise
            in_code_of_user = not trio.lowlevel.currently_ki_protected()
            ends = isinstance(error, (SystemExit, KeyboardInterrupt))
            if in_code_of_user and not ends:
                raise
            if self.raised is not None:
                if ends:
                    raise  # a second exception does not wait for the shutdown
                return
            self.raised = error
            self.received = self.received or number
            self._when = monotonic()
            self._stop_soon()
            if in_code_of_user:
                raise

    def _handle_in_child(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal in a forked process with the handler that was installed before ours."""
        before = self._before[number]
        signal.signal(number, before)
        if callable(before):
            before(number, frame)
        else:
            signal.raise_signal(number)

    def _stop_soon(self) -> None:
        if self._token is not None:
            try:
                self._token.run_sync_soon(self._stop_now)
            except trio.RunFinishedError:
                pass  # the Trio run has ended already

    def _stop_now(self) -> None:
        assert self.received is not None
        assert self._stop is not None
        logger.info("%s received", signal.Signals(self.received).name)
        self._stop()


_current: list[StopSignals] = []
"""The instances whose `stop_signals` blocks are active, the innermost last."""


@contextlib.contextmanager
def stop_signals(*, interrupt: bool = False) -> Generator[StopSignals]:
    """Handle the signals that end a program, for the duration of a block around `trio.run`.

    Python handles signals in the main thread only, so this has no effect in other threads. The end of the
    block raises the deferred exception, see `StopSignals.raised`.

    Args:
        interrupt: See `StopSignals`.
    """
    signals = StopSignals(interrupt=interrupt)
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    _current.append(signals)
    try:
        signals.install()
        yield signals
    finally:
        signals.restore()
        _current.remove(signals)
    if signals.raised is not None:
        raise signals.raised


def pass_on_interrupt() -> None:
    """Send a Ctrl-C that has interrupted user code in the background on to the main task.

    The caller must be protected from KeyboardInterrupt.
    """
    if not (_current and _current[-1].received is not None):  # a second signal would kill the process
        signal.raise_signal(signal.SIGINT)
