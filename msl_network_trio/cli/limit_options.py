"""The options for the limits of a Manager."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

from msl_network_trio.cli.numbers import byte_count, count, or_none, positive_seconds, seconds
from msl_network_trio.cli.parser import Parser


def add_limits(parser: Parser) -> None:
    """Declare an option for each limit of a Manager; its name is that of the argument of `open_manager`."""
    group = parser.add_argument_group(
        "limits", "the most that peers may use; where 'none' is mentioned, it removes the limit"
    )
    for name, kind, metavar, text in _OPTIONS:
        # Options that are not given are suppressed, so that only open_manager has the defaults.
        group.add_argument(
            f"--{name.replace('_', '-')}", type=kind, metavar=metavar, default=argparse.SUPPRESS, help=text
        )


_OPTIONS: Final[list[tuple[str, Callable[[str], Any], str, str]]] = [
    ("read_limit", or_none(byte_count), "BYTES", "maximum size of a line (default: 256M), or none"),
    (
        "max_backlog",
        byte_count,
        "BYTES",
        "maximum size of the data queued for a peer; beyond it the\npeer is disconnected (default: 256M)",
    ),
    (
        "stalled_after",
        positive_seconds,
        "SECONDS",
        "maximum time in which a peer reads none of its queued data\n(default: 60)",
    ),
    (
        "max_connections",
        or_none(count),
        "NUMBER",
        "maximum number of connected peers (default: 5000), or none",
    ),
    (
        "max_unauthenticated",
        or_none(count),
        "NUMBER",
        "maximum number of connections in the handshake that the Manager\nwaits for (default: 200), or none",
    ),
    (
        "handshake_timeout",
        positive_seconds,
        "SECONDS",
        "maximum time for authentication (default: 300)",
    ),
    ("tls_timeout", positive_seconds, "SECONDS", "maximum time for a TLS handshake (default: 10)"),
    (
        "max_links",
        or_none(count),
        "NUMBER",
        "maximum number of links of a client (default: 1000), or none",
    ),
    (
        "max_requests",
        or_none(count),
        "NUMBER",
        "maximum number of open requests of a client\n(default: 100000), or none",
    ),
    (
        "notification_rate",
        or_none(count),
        "NUMBER",
        "maximum number of notifications per second of a Service\n(default: 100000), or none",
    ),
    (
        "replace_after",
        or_none(positive_seconds),
        "SECONDS",
        "silence, of TCP too, after which another Service may take\nthe name (default: 5), or none",
    ),
    (
        "login_attempts",
        or_none(count),
        "NUMBER",
        "maximum number of failed logins per user and host\n(default: 10), or none",
    ),
    ("login_memory", positive_seconds, "SECONDS", "time until a failed login is forgotten (default: 60)"),
    (
        "login_delay",
        seconds,
        "SECONDS",
        "delay of a login per login that has failed (default: 0.5)",
    ),
    (
        "max_records",
        or_none(count),
        "NUMBER",
        "maximum number of rows in the database's table of connections\n(default: 1000000), or none",
    ),
]
