"""The options for what a Manager puts up with."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

from msl_network_trio.cli.numbers import byte_count, count, or_none, positive_seconds, seconds
from msl_network_trio.cli.parser import Parser


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
        positive_seconds,
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
        "maximum number of connections that owe an answer before\nauthentication (default: 200), or none",
    ),
    (
        "handshake_timeout",
        positive_seconds,
        "SECONDS",
        "how long a peer may take to say who it is (default: 300)",
    ),
    ("tls_timeout", positive_seconds, "SECONDS", "how long a TLS handshake may take (default: 10)"),
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
        "replace_after",
        or_none(positive_seconds),
        "SECONDS",
        "seconds of silence, also of TCP, after which a Service\nmay be replaced (default: 5), or none",
    ),
    (
        "login_attempts",
        or_none(count),
        "NUMBER",
        "maximum number of failed logins of a user from a host\n(default: 10), or none",
    ),
    ("login_memory", positive_seconds, "SECONDS", "when a failed login is forgotten (default: 60)"),
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
