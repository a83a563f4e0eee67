"""Logging for programs that run a Manager: to the console and to a file.

A disk that is full, or a console that is gone, costs the records that cannot be written, and nothing else: it
is reported on standard error once a minute. Each record is written at once and as a whole, or its line ends
where the disk was full, and the next one begins a new line.

Nothing else in this package configures logging: whoever runs a Manager with `open_manager` does it in
their own way.
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
"""Those of msl-network 1.0.0, so that what reads its logs reads ours."""

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
"""The names of the usual levels."""

KEEP: Final = 100
"""How many old log files are kept, if the log is begun anew now and then."""

_REPORT_EVERY: Final = 60.0
"""Seconds between reports of what cannot be written, and between attempts to begin a log file anew."""

_SIZE = re.compile(r"(\d+)([KMG]?)", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_TIMES: Final = {"hourly": "H", "daily": "MIDNIGHT", "weekly": "W0"}

logger = logging.getLogger(__name__)


def level_number(level: str | int) -> int:
    """Return the number of a level.

    Args:
        level: The name of a level of `logging`, in capital or small letters, or a number, which may be text.

    Raises:
        TypeError: It is neither text nor a number.
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
    """The file in which a Manager that starts now logs."""
    now = dt.datetime.now().strftime("%Y-%m-%d-%H-%M-%S")
    return log_folder() / f"manager-{now}.log"


class JsonFormatter(logging.Formatter):
    """Makes each record one JSON object on a line of its own.

    It has ``time`` (UTC), ``level``, ``logger`` and ``message``, and if there is one, the traceback as
    ``exception``. What happened to a peer has an ``event`` and the fields of that, see ``docs/operation.md``.
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
        # What has no JSON form, or is no Unicode, must not cost the record.
        return visible_json(json.dumps(fields, ensure_ascii=False, default=repr))


class _Robust(logging.Handler):
    """A handler that reports what it cannot write on standard error, once a minute."""

    _lost = 0
    """Number of records that could not be written since one could be."""
    _reported = -_REPORT_EVERY

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        before = self._lost
        try:
            super().emit(record)
        except Exception:  # noqa: BLE001 - that a file cannot be opened, which base classes do not handle
            self.handleError(record)
        if before and self._lost == before:
            self._lost = 0
            text = "%d records before this one could not be written"
            super().emit(logger.makeRecord(logger.name, logging.WARNING, __file__, 0, text, (before,), None))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of `logging.Handler`
        """See `logging.Handler.handleError`."""
        error = sys.exception()
        self._lost += 1
        if isinstance(error, OSError | ValueError):
            self._report(error)
        elif self._is_time_to_report():  # a mistake in a program, which its traceback explains
            super().handleError(record)

    def _report(self, error: Exception) -> None:
        if self._is_time_to_report():
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            text = (
                f"the log cannot be written to {self._target()}: {reason}; {self._lost:,} records are lost\n"
            )
            # It may be closed, or a file on the same disk.
            with contextlib.suppress(AttributeError, OSError, ValueError):
                sys.stderr.write(text)
                sys.stderr.flush()

    def _is_time_to_report(self) -> bool:
        now = time.monotonic()
        if now < self._reported + _REPORT_EVERY:
            return False
        self._reported = now
        return True

    def _target(self) -> str:
        return str(getattr(self, "baseFilename", "the console"))


class ConsoleHandler(_Robust, logging.StreamHandler[TextIO]):
    """Writes to the console."""


class _Lines(io.FileIO):
    """A file to which lines are appended: as a whole, or the next one begins a new line."""

    _is_torn = False

    def write(self, data: Any) -> int:
        """Write all of it.

        Raises:
            OSError: Not all of it can be written.
        """
        whole = rest = memoryview(data).cast("B")
        try:
            if self._is_torn:
                super().write(b"\n")
                self._is_torn = False
            while rest:
                rest = rest[super().write(rest) :]
        except OSError:
            self._is_torn = self._is_torn or 0 < len(rest) < len(whole)
            raise
        return len(whole)


class _FileHandler(_Robust, logging.FileHandler):
    """Writes to a file."""

    def _open(self) -> io.TextIOWrapper:
        # What cannot be written must not wait in a buffer, where it would be the next time what goes first.
        lines = _Lines(self.baseFilename, "a")
        return io.TextIOWrapper(lines, "utf-8", "backslashreplace", write_through=True)


class _RotatingHandler(_FileHandler, logging.handlers.BaseRotatingHandler):
    """Writes to a file that is begun anew; after a failure the old one is used, for at least a minute."""

    _rollover_after = -math.inf

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 - of `logging.handlers`
        """See `logging.handlers`."""
        is_due = super().shouldRollover(record)  # type: ignore[misc] # of the class that is mixed in
        return bool(is_due) and time.monotonic() >= self._rollover_after

    def doRollover(self) -> None:  # noqa: N802
        """See `logging.handlers`."""
        try:
            self._begin_anew()
        except OSError as error:
            self._rollover_after = time.monotonic() + _REPORT_EVERY
            self._report(OSError(error.errno, f"{error.strerror or error}, when it was to be begun anew"))

    def _begin_anew(self) -> None:
        super().doRollover()  # type: ignore[misc]


class _SizeHandler(_RotatingHandler, logging.handlers.RotatingFileHandler):
    """Writes to a file that is begun anew when it has a size."""

    def _begin_anew(self) -> None:
        # Not as the base class does, which would move all old files on at each attempt that fails, and so
        # remove them one after the other.
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
    """Writes to a file that is begun anew at times."""

    def _begin_anew(self) -> None:
        try:
            super()._begin_anew()
        except OSError:
            if not Path(self.baseFilename).exists():
                # It was renamed. What failed came later, and must not be tried with the file that follows.
                self.rolloverAt = self.computeRollover(int(time.time()))
            raise


def _file_handler(path: Path, rotate: str | None, keep: int) -> logging.FileHandler:
    """Return what writes to a file.

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
    """Return when to begin a log file anew.

    Args:
        rotate: What the user says of it, see `logging_to`.

    Returns:
        The time as `logging.handlers.TimedRotatingFileHandler` has it, or the size in bytes.

    Raises:
        ValueError: It makes no sense.
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
    """Log to standard output and to a file within a block; afterwards everything is as it was.

    A program that has configured logging already goes on seeing the messages where it wants to; then only
    the file is added. An exception that leaves the block is written, with its traceback, to the file: whoever
    looks there must find why the Manager ended.

    Args:
        level: From which level on, by name or number.
        file: The file, to which is appended if it exists; None: the default one, named after the time.
        style: ``"text"``, as msl-network has it, or ``"json"``, see `JsonFormatter`.
        rotate: When to begin the file anew, keeping the old one under another name: from a size on, such as
            ``"10M"``, or ``"hourly"``, ``"daily"``, ``"weekly"``; None: never.
        keep: How many old files to keep.

    Yields:
        The file.

    Raises:
        ValueError: There is no such level or style, or it makes no sense when to begin the file anew.
        OSError: The file cannot be written.
    """
    number = level_number(level)
    if style not in {"text", "json"}:
        raise ValueError(f"The log is written as text or json, not as {style!r}")
    if rotate is not None:
        read_rotation(rotate)  # before a folder is made
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
