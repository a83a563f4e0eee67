"""Loggers that never raise.

Logging calls user code (handlers, filters, ``__str__`` of arguments) and writes to files and streams. Each of
these may raise: the disk is full, ``sys.stderr`` is closed, a log server is unreachable. That must not cost a
reply, a thread or a connection, so every module gets its logger here instead of from `logging`. Loggers may
be used from any thread; the locks are those of `logging`.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from time import monotonic
from typing import Any, Final

SHOWN_EVERY: Final = 60.0
"""Minimum seconds between two reported failures."""


class Logger:
    """A `logging.Logger` whose methods do not raise.

    Exceptions of handlers, filters and arguments are printed to ``sys.stderr``, as `logging` does with most
    of them, but at most every `SHOWN_EVERY` seconds, and not if ``logging.raiseExceptions`` is False. In the
    main thread `KeyboardInterrupt` and `SystemExit` are raised, since a signal handler may have raised them.
    In other threads they would only end the thread unnoticed.

    Args:
        name: Name of the logger.

    Attributes:
        isEnabledFor: The bound method of `logging.Logger`, which the hot path calls directly.
    """

    __slots__ = ("_logger", "isEnabledFor")

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self.isEnabledFor = self._logger.isEnabledFor

    def debug(self, text: str, *args: Any, **kwargs: Any) -> None:
        """See `logging.Logger.debug`."""
        self._write(logging.DEBUG, text, args, kwargs)

    def info(self, text: str, *args: Any, **kwargs: Any) -> None:
        """See `logging.Logger.info`."""
        self._write(logging.INFO, text, args, kwargs)

    def warning(self, text: str, *args: Any, **kwargs: Any) -> None:
        """See `logging.Logger.warning`."""
        self._write(logging.WARNING, text, args, kwargs)

    def error(self, text: str, *args: Any, **kwargs: Any) -> None:
        """See `logging.Logger.error`."""
        self._write(logging.ERROR, text, args, kwargs)

    def exception(self, text: str, *args: Any, **kwargs: Any) -> None:
        """See `logging.Logger.exception`."""
        self._write(logging.ERROR, text, args, {"exc_info": True, **kwargs})

    def log(self, level: int, text: str, *args: Any, **kwargs: Any) -> None:
        """See `logging.Logger.log`."""
        self._write(level, text, args, kwargs)

    def _write(self, level: int, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            # The caller is three frames up: above this method and the public one.
            self._logger.log(level, text, *args, stacklevel=3, **kwargs)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)) and _in_main_thread():
                raise
            failures.show(error)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class Failures:
    """Rate-limited report of log records that could not be written.

    Attributes:
        count: Number of records that could not be written.
    """

    def __init__(self) -> None:
        self.count = 0
        self._shown = -SHOWN_EVERY

    def show(self, error: BaseException) -> None:
        """Count a failure, and print its traceback, at most every `SHOWN_EVERY` seconds."""
        self.count += 1
        now = monotonic()
        if not logging.raiseExceptions or sys.stderr is None or now - self._shown < SHOWN_EVERY:
            return
        self._shown = now
        try:
            print(f"--- Logging failed in {threading.current_thread().name} ---", file=sys.stderr)
            traceback.print_exception(error, file=sys.stderr)
        except Exception:  # noqa: BLE001 - there is no other place to report it
            pass


failures: Final = Failures()
"""The failures of this process, for all loggers."""


def get_logger(name: str) -> Logger:
    """Return a logger; modules pass ``__name__``."""
    return Logger(name)
