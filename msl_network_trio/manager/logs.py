"""Logging for programs that run a Manager: to the console and to a file.

Nothing else in this package configures logging: whoever runs a Manager with `open_manager` does it in
their own way.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Final

from msl_network_trio.constants import log_folder

_CONSOLE_FORMAT = "%(asctime)s [%(levelname)-5s] %(name)s - %(message)s"
_FILE_FORMAT = "%(asctime)s [%(levelname)-8s] %(name)s - %(message)s"
"""Those of msl-network 1.0.0, so that what reads its logs reads ours."""

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
"""The names of the usual levels."""

logger = logging.getLogger(__name__)


def level_number(level: str | int) -> int:
    """Return the number of a level.

    Args:
        level: The name of a level of `logging`, in capital or small letters, or a number, which may be text.

    Raises:
        ValueError: There is no such level.
    """
    if isinstance(level, int):
        return level
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


@contextlib.contextmanager
def logging_to(level: str | int, file: str | os.PathLike[str] | None) -> Generator[Path]:
    """Log to standard output and to a file within a block; afterwards everything is as it was.

    A program that has configured logging already goes on seeing the messages where it wants to; then only
    the file is added. An exception that leaves the block is written, with its traceback, to the file: whoever
    looks there must find why the Manager ended.

    Args:
        level: From which level on, by name or number.
        file: The file, to which is appended if it exists; None: the default one, named after the time.

    Yields:
        The file.

    Raises:
        ValueError: There is no such level.
        OSError: The file cannot be written.
    """
    number = level_number(level)
    path = default_log_file() if file is None else Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    to_file = logging.FileHandler(path, encoding="utf-8")
    to_file.setFormatter(_formatter(_FILE_FORMAT))
    handlers: list[logging.Handler] = [to_file]
    if not root.handlers and sys.stdout is not None:  # None: a program without a console on Windows
        console = logging.StreamHandler(sys.stdout)
        console.setFormatter(_formatter(_CONSOLE_FORMAT))
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
    formatter = logging.Formatter(text)
    formatter.default_msec_format = "%s.%03d"
    return formatter
