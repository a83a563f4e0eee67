"""The loggers of this package, which never raise.

Logging calls code of the program (handlers, filters, the text of objects) and writes to files and streams.
Each of these may raise: a disk is full, ``sys.stderr`` is closed, a log server is gone. No reply, thread or
connection may be lost for that, so every module gets its logger here, and none from `logging`.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from time import monotonic
from typing import Any, Final

SHOWN_EVERY: Final = 60.0
"""Seconds between two tracebacks of what handlers raise."""


class Logger:
    """Writes to the logger of `logging` that has this name. From any thread.

    An exception that a handler, a filter or an argument raises is shown on ``sys.stderr``, as `logging` does
    with most of them, but at most every `SHOWN_EVERY` seconds, and not if ``logging.raiseExceptions`` is
    False. In the main thread `KeyboardInterrupt` and `SystemExit` are raised: a signal may be the reason. In
    any other thread they would only end that thread, unnoticed.

    Args:
        name: The name.

    Attributes:
        isEnabledFor: See `logging.Logger.isEnabledFor`; without a call in between, for the hot path.
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
            # The level of the stack at which the caller is: above this method and the public one.
            self._logger.log(level, text, *args, stacklevel=3, **kwargs)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)) and _in_main_thread():
                raise
            failures.show(error)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class Failures:
    """Shows what has kept records from being written.

    Attributes:
        count: Number of records whose writing raised.
    """

    def __init__(self) -> None:
        self.count = 0
        self._shown = -SHOWN_EVERY

    def show(self, error: BaseException) -> None:
        """Print the traceback of an exception, if there is where to and it is not one of many."""
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
"""The failures of this process."""


def get_logger(name: str) -> Logger:
    """Return a logger; modules call it with ``__name__``."""
    return Logger(name)
