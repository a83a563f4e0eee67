"""Types of arguments that are numbers, for the ``type`` of an option."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


def port(text: str) -> int:
    """Parse the number of a port to listen on; 0: any free port."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 65535")
    return int(text)


def port_of_another(text: str) -> int:
    """Parse the number of a port to connect to."""
    if not text.isdecimal() or not 0 < int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 65535")
    return int(text)


def byte_count(text: str) -> int:
    """Parse a number of bytes, such as ``64M``."""
    number, unit = text[:-1], text[-1:].upper()
    if unit.isdecimal():
        number, unit = text, ""
    if not number.isdecimal() or unit not in _UNITS or int(number) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes, such as 500000, 64M or 1G")
    return int(number) * _UNITS[unit]


def seconds(text: str) -> float:
    """Parse a number of seconds from 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def positive_seconds(text: str) -> float:
    """Parse a number of seconds above 0."""
    value = seconds(text)
    if not value:
        raise argparse.ArgumentTypeError("it must be more than 0")
    return value


def count(text: str) -> int:
    """Parse a whole number from 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a function that parses the word none as None, and all else as `kind` does."""

    def read(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    return read
