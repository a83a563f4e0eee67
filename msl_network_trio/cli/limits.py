"""The options for what a Manager puts up with."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

from msl_network_trio.cli.parser import Parser

_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


def add_limits(parser: Parser) -> None:
    """Declare an option for each of the Manager's limits, which are named as they are."""
    group = parser.add_argument_group(
        "limits", "what peers may want; 'none' is no limit where it is mentioned"
    )
    for name, kind, metavar, text in _OPTIONS:
        # Those that are not given are left out, so that the defaults are in one place.
        group.add_argument(
            f"--{name.replace('_', '-')}", type=kind, metavar=metavar, default=argparse.SUPPRESS, help=text
        )


def byte_count(text: str) -> int:
    """Read a number of bytes, such as ``64M``."""
    number, unit = text[:-1], text[-1:].upper()
    if unit.isdecimal():
        number, unit = text, ""
    if not number.isdecimal() or unit not in _UNITS or int(number) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes, such as 500000, 64M or 1G")
    return int(number) * _UNITS[unit]


def seconds(text: str) -> float:
    """Read a number of seconds from 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def _positive_seconds(text: str) -> float:
    value = seconds(text)
    if not value:
        raise argparse.ArgumentTypeError("it must be more than 0")
    return value


def count(text: str) -> int:
    """Read a number from 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a function that reads the same, or the word none."""

    def read(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    return read


_OPTIONS: Final[list[tuple[str, Callable[[str], Any], str, str]]] = [
    ("read_limit", or_none(byte_count), "BYTES", "the largest line of a peer (default: 256M), or none"),
    (
        "max_backlog",
        byte_count,
        "BYTES",
        "how much may wait for a peer that does not read before it\nis dropped (default: 256M)",
    ),
    (
        "stalled_after",
        _positive_seconds,
        "SECONDS",
        "for how long a peer may read nothing of what waits for it\n(default: 60)",
    ),
    (
        "max_connections",
        or_none(count),
        "NUMBER",
        "how many peers may be connected (default: 5000), or none",
    ),
    (
        "max_unauthenticated",
        or_none(count),
        "NUMBER",
        "how many connections may not have said yet who they are\n(default: 200), or none",
    ),
    (
        "handshake_timeout",
        _positive_seconds,
        "SECONDS",
        "how long a peer may take to say who it is (default: 300)",
    ),
    ("tls_timeout", _positive_seconds, "SECONDS", "how long a TLS handshake may take (default: 10)"),
    (
        "max_links",
        or_none(count),
        "NUMBER",
        "with how many Services a client may be linked\n(default: 1000), or none",
    ),
    (
        "max_requests",
        or_none(count),
        "NUMBER",
        "how many requests of a client may wait for their answers\n(default: 100000), or none",
    ),
    (
        "notification_rate",
        or_none(count),
        "NUMBER",
        "how many notifications per second a Service may emit\n(default: 100000), or none",
    ),
    (
        "login_attempts",
        or_none(count),
        "NUMBER",
        "how many logins from one host may fail, until those that have\nare forgotten (default: 10), or none",
    ),
    ("login_memory", _positive_seconds, "SECONDS", "when a failed login is forgotten (default: 60)"),
    (
        "login_delay",
        seconds,
        "SECONDS",
        "how long a login waits for each one that has failed\n(default: 0.5)",
    ),
    (
        "max_records",
        or_none(count),
        "NUMBER",
        "how many rows to keep in the database of who has connected\n(default: 1000000), or none",
    ),
]
