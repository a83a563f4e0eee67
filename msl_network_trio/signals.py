"""Graceful shutdown on signals: the first one ends the program in order, the next one at once.

Handlers are installed in the main thread only, and only for signals with the default disposition: a signal
that was ignored when the program began (``nohup``) stays ignored, and handlers of the program stay in place.

What such a handler raises (``sys.exit()``, most often) would hit Trio, or us, at any step, and break the
connection. So it is kept, the program ends in order, and then it is raised. Only in code of the user in the
Trio thread it is raised where it is.
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
"""What ends a program. SIGHUP: its terminal was closed. SIGBREAK: CTRL_BREAK_EVENT on Windows."""

_SIGHUP: Final = getattr(signal, "SIGHUP", None)

_SAME_HANGUP: Final = 0.25
"""Seconds in which a further SIGHUP is the same one: when a terminal is closed, both the shell and the kernel
send it, and systemd sends it behind a SIGTERM (``SendSIGHUP=``)."""


class StopSignals:
    """Receives the signals that end a program; what `stop_signals` gives.

    Args:
        interrupt: Whether Ctrl-C also raises KeyboardInterrupt, if it comes while code of the user runs in
            the Trio thread that is not protected from it, see `trio.lowlevel.enable_ki_protection`.

    Attributes:
        received: The number of the first signal that ends the program; None: there was none.
        raised: What a handler of the program has raised, and is to be raised in the end; None: nothing.
    """

    def __init__(self, *, interrupt: bool) -> None:
        self.received: int | None = None
        self.raised: BaseException | None = None
        self._interrupt = interrupt
        self._process = os.getpid()
        self._when = 0.0
        self._before: dict[int, Any] = {}
        self._kept: dict[int, tuple[Any, Any]] = {}
        """The handlers of the program, and what is in their place."""
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: Callable[[], object] | None = None

    def take(self) -> None:
        """Install handlers for signals with the default disposition, and wrap the handlers of the program."""
        numbers = [getattr(signal, name, None) for name in _NAMES]
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if handler is signal.SIG_DFL or handler is signal.default_int_handler:
                if number in numbers:
                    self._before[number] = signal.signal(number, self._handle)
            elif callable(handler):
                keeping = partial(self._call, handler)
                self._kept[number] = (handler, keeping)
                signal.signal(number, keeping)

    def restore(self) -> None:
        """Restore the handlers that `take` replaced."""
        for number, handler in self._before.items():
            now = signal.getsignal(number)
            if now is signal.SIG_DFL or now == self._handle:
                signal.signal(number, handler)
        for number, (handler, keeping) in self._kept.items():
            if signal.getsignal(number) is keeping:
                signal.signal(number, handler)

    def call(self, stop: Callable[[], object]) -> None:
        """Say what to call at the first signal, in the Trio thread, in which this is called.

        If there was one already, it is called soon.
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
            # The next one is for the operating system: it ends the process, whatever it may be waiting for.
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

    def _call(self, handler: Callable[..., Any], number: int, frame: FrameType | None) -> None:
        """Call a handler of the program, and defer what it raises unless code of the user is interrupted."""
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
                    raise  # the second one does not wait for an end in order
                return
            self.raised = error
            self.received = self.received or number
            self._when = monotonic()
            self._stop_soon()
            if in_code_of_user:
                raise

    def _handle_in_child(self, number: int, frame: FrameType | None) -> None:
        """Do what would have been done without us, in a process that was forked while we were here."""
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
                pass  # it has ended already

    def _stop_now(self) -> None:
        assert self.received is not None
        assert self._stop is not None
        logger.info("%s received", signal.Signals(self.received).name)
        self._stop()


_current: list[StopSignals] = []
"""The instances whose blocks are entered, the innermost last."""


@contextlib.contextmanager
def stop_signals(*, interrupt: bool = False) -> Generator[StopSignals]:
    """Receive the signals that end a program within a block, around `trio.run`.

    Outside the main thread no signals can be received, so nothing happens there. At the end of the block it
    raises what a handler of the program has raised, see `StopSignals.raised`.

    Args:
        interrupt: See `StopSignals`.
    """
    signals = StopSignals(interrupt=interrupt)
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    _current.append(signals)
    try:
        signals.take()
        yield signals
    finally:
        signals.restore()
        _current.remove(signals)
    if signals.raised is not None:
        raise signals.raised


def pass_on_interrupt() -> None:
    """Pass a Ctrl-C on that has interrupted code of the user in which it must not stay.

    To be called in code that is protected from it, so that it reaches the main task.
    """
    if not (_current and _current[-1].received is not None):  # else it has arrived, the next one would kill
        signal.raise_signal(signal.SIGINT)
