"""Logging of programs that run a Manager, to the console and to a file.

If the disk is full or the console is closed, only the records that cannot be written are lost, which is
reported on standard error once a minute. Each record is written at once. A record that is written in part
ends its line, and the next one begins a new line. Handlers run in any thread, under the locks of `logging`.

Nothing else in this package configures logging; programs that use `open_manager` configure it themselves.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import logging
import logging.handlers
import math
import os
import re
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, Literal, TextIO

from msl_network_trio.arguments import whole
from msl_network_trio.constants import log_folder
from msl_network_trio.protocol.manager.event_log import FIELDS
from msl_network_trio.visible import VisibleFormatter, visible_json

_CONSOLE_FORMAT = "%(asctime)s [%(levelname)-5s] %(name)s - %(message)s"
_FILE_FORMAT = "%(asctime)s [%(levelname)-8s] %(name)s - %(message)s"
"""The formats of msl-network 1.0.0, for programs that read its logs."""

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
"""The names of the standard levels."""

KEEP: Final = 100
"""Maximum rotated log files to keep."""

_REPORT_INTERVAL: Final = 60.0
"""Seconds between reports of lost records, and between attempts to rotate a log file."""

_SIZE = re.compile(r"(\d+)([KMG]?)", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_TIMES: Final = {"hourly": "H", "daily": "MIDNIGHT", "weekly": "W0"}

logger = logging.getLogger(__name__)


def level_number(level: str | int) -> int:
    """Return the number of a level.

    Args:
        level: The name of a level of `logging`, case-insensitive, or a number, which may be text.

    Raises:
        TypeError: The level is neither text nor a number.
        ValueError: There is no such level.
    """
    if not isinstance(level, str):
        return whole("log_level", level, 0)
    text = level.strip().upper()
    if text.isdecimal():
        return int(text)
    names = logging.getLevelNamesMapping()
    if text not in names:
        raise ValueError(f"{level!r} is no level of logging. Use {', '.join(LEVELS)} or a number")
    return names[text]


def default_log_file() -> Path:
    """Return the path of the log file of a Manager that starts now."""
    now = dt.datetime.now().strftime("%Y-%m-%d-%H-%M-%S")
    return log_folder() / f"manager-{now}.log"


class JsonFormatter(logging.Formatter):
    """Formatter of records as JSON objects, one per line.

    Fields: ``time`` (UTC), ``level``, ``logger``, ``message``, and ``exception`` for a traceback. Records
    about a peer have an ``event`` and its fields, see ``docs/operation.md``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        time = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        # Values without a JSON form, or invalid Unicode, must not lose the record.
        return visible_json(json.dumps(fields, ensure_ascii=False, default=repr))


class _Robust(logging.Handler):
    """A handler that reports lost records on standard error once a minute."""

    _lost = 0
    """Records lost since the last one that was written."""
    _reported = -_REPORT_INTERVAL
    """Time of the last report, by `time.monotonic`."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        before = self._lost
        try:
            super().emit(record)
        except Exception:  # noqa: BLE001 - base classes do not handle a file that cannot be opened
            self.handleError(record)
        if before and self._lost == before:
            self._lost = 0
            text = "%d records before this one could not be written"
            super().emit(logger.makeRecord(logger.name, logging.WARNING, __file__, 0, text, (before,), None))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - name of `logging.Handler`
        """See `logging.Handler.handleError`."""
        error = sys.exception()
        self._lost += 1
        if isinstance(error, OSError | ValueError):
            self._report(error)
        elif self._is_time_to_report():  # an error of a program, shown with its traceback
            super().handleError(record)

    def _report(self, error: Exception) -> None:
        if self._is_time_to_report():
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            text = (
                f"the log cannot be written to {self._target()}: {reason}; {self._lost:,} records are lost\n"
            )
            # Standard error may be closed, or redirected to the same disk.
            with contextlib.suppress(AttributeError, OSError, ValueError):
                sys.stderr.write(text)
                sys.stderr.flush()

    def _is_time_to_report(self) -> bool:
        now = time.monotonic()
        if now < self._reported + _REPORT_INTERVAL:
            return False
        self._reported = now
        return True

    def _target(self) -> str:
        return str(getattr(self, "baseFilename", "the console"))


class ConsoleHandler(_Robust, logging.StreamHandler[TextIO]):
    """Handler for the console."""


class _LineFile(io.FileIO):
    """A file of lines; after a line that was written in part, the next one begins a new line."""

    _has_partial_line = False

    def write(self, data: Any) -> int:
        """Write all data.

        Raises:
            OSError: Not all data can be written.
        """
        whole = rest = memoryview(data).cast("B")
        try:
            if self._has_partial_line:
                super().write(b"\n")
                self._has_partial_line = False
            while rest:
                rest = rest[super().write(rest) :]
        except OSError:
            self._has_partial_line = self._has_partial_line or 0 < len(rest) < len(whole)
            raise
        return len(whole)


class _FileHandler(_Robust, logging.FileHandler):
    """Handler for a file."""

    def _open(self) -> io.TextIOWrapper:
        # Unbuffered: data that cannot be written must not be kept in a buffer and precede the next record.
        lines = _LineFile(self.baseFilename, "a")
        return io.TextIOWrapper(lines, "utf-8", "backslashreplace", write_through=True)


class _RotatingHandler(_FileHandler, logging.handlers.BaseRotatingHandler):
    """Handler for a rotated file; after a failed rotation it keeps the file for at least a minute."""

    _rollover_after = -math.inf

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 - name of `logging.handlers`
        """See `logging.handlers`."""
        is_due = super().shouldRollover(record)  # type: ignore[misc] # of the other base class
        return bool(is_due) and time.monotonic() >= self._rollover_after

    def doRollover(self) -> None:  # noqa: N802
        """See `logging.handlers`."""
        try:
            self._rotate()
        except OSError as error:
            self._rollover_after = time.monotonic() + _REPORT_INTERVAL
            self._report(OSError(error.errno, f"{error.strerror or error}, when it was to be rotated"))

    def _rotate(self) -> None:
        super().doRollover()  # type: ignore[misc]


class _SizeHandler(_RotatingHandler, logging.handlers.RotatingFileHandler):
    """Handler for a file that is rotated at a size."""

    def _rotate(self) -> None:
        # The base class would rename all old files at each failed attempt, and so delete them one by one.
        if self.stream is not None:
            self.stream.close()
            self.stream = None
        current = Path(self.baseFilename)
        old = [current.with_name(f"{current.name}.{number}") for number in range(1, self.backupCount + 1)]
        paths = [current, *old]
        gap = next((number for number, path in enumerate(paths) if not path.exists()), self.backupCount)
        for number in range(gap, 0, -1):
            paths[number - 1].replace(paths[number])
        self.stream = self._open()


class _TimeHandler(_RotatingHandler, logging.handlers.TimedRotatingFileHandler):
    """Handler for a file that is rotated at fixed times."""

    def _rotate(self) -> None:
        try:
            super()._rotate()
        except OSError:
            if not Path(self.baseFilename).exists():
                # The file was renamed before the failure, so the next one must not be rotated at once.
                self.rolloverAt = self.computeRollover(int(time.time()))
            raise


def _file_handler(path: Path, rotate: str | None, keep: int) -> logging.FileHandler:
    """Return the handler of a log file.

    Raises:
        OSError: The file cannot be written.
    """
    if rotate is None:
        return _FileHandler(path, encoding="utf-8")
    when = read_rotation(rotate)
    if isinstance(when, str):
        return _TimeHandler(path, when, backupCount=keep, encoding="utf-8")
    return _SizeHandler(path, maxBytes=when, backupCount=keep, encoding="utf-8")


def read_rotation(rotate: str) -> str | int:
    """Return the size or the time at which to rotate a log file.

    Args:
        rotate: The argument of the user, see `logging_to`.

    Returns:
        The ``when`` of `logging.handlers.TimedRotatingFileHandler`, or the size in bytes.

    Raises:
        ValueError: The argument is invalid.
    """
    text = rotate.strip().lower()
    if text in _TIMES:
        return _TIMES[text]
    size = _SIZE.fullmatch(text)
    if size is None or not int(size[1]):
        raise ValueError(f"{rotate!r} is neither a size, such as 10M, nor one of {', '.join(_TIMES)}")
    return int(size[1]) * _UNITS[size[2].upper()]


@contextlib.contextmanager
def logging_to(
    level: str | int,
    file: str | os.PathLike[str] | None,
    *,
    style: Literal["text", "json"] = "text",
    rotate: str | None = None,
    keep: int = KEEP,
) -> Generator[Path]:
    """Log to standard output and to a file within a block; afterwards the configuration is restored.

    If the program has configured logging already, only the file is added. An exception that leaves the block
    is written to the file with its traceback.

    Args:
        level: The lowest level to log, by name or number.
        file: The file, appended to if it exists; None: the default one, named after the time.
        style: ``"text"`` as msl-network, or ``"json"``, see `JsonFormatter`.
        rotate: The size or time for a new file: a size such as ``"10M"``, or ``"hourly"``, ``"daily"``,
            ``"weekly"``; None: never.
        keep: Maximum rotated files to keep.

    Yields:
        The path of the file.

    Raises:
        ValueError: The level, style or rotation is invalid.
        OSError: The file cannot be written.
    """
    number = level_number(level)
    if style not in {"text", "json"}:
        raise ValueError(f"The log is written as text or json, not as {style!r}")
    if rotate is not None:
        read_rotation(rotate)  # checked before a folder is made
    keep = whole("log_keep", keep, -math.inf)
    if keep < 1:
        raise ValueError(f"At least one old log file is kept, not {keep}")
    path = default_log_file() if file is None else Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    to_file = _file_handler(path, rotate, keep)
    to_file.setFormatter(JsonFormatter() if style == "json" else _formatter(_FILE_FORMAT))
    handlers: list[logging.Handler] = [to_file]
    if not root.handlers and sys.stdout is not None:  # None: a program without a console on Windows
        console = ConsoleHandler(sys.stdout)
        console.setFormatter(JsonFormatter() if style == "json" else _formatter(_CONSOLE_FORMAT))
        handlers.append(console)
    level_before = root.level
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(number)
    try:
        yield path
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        to_file.handle(
            logger.makeRecord(
                logger.name, logging.ERROR, __file__, 0, text, (), (type(error), error, error.__traceback__)
            )
        )
        raise
    finally:
        root.setLevel(level_before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def _formatter(text: str) -> logging.Formatter:
    formatter = VisibleFormatter(text)
    formatter.default_msec_format = "%s.%03d"
    return formatter
