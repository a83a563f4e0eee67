"""The options and the connection of commands that send an administrator's request to a running Manager."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msl_network_trio.cli import passwords
from msl_network_trio.cli.numbers import port_of_another
from msl_network_trio.cli.parser import CommandError, Parser
from msl_network_trio.constants import PORT

if TYPE_CHECKING:
    from msl_network_trio.sync import Client


def add_connection(parser: Parser) -> None:
    """Declare the options for the Manager's address and the administrator's login."""
    add = parser.add_argument
    add("-H", "--host", default="localhost", help="the host of the Manager (default: %(default)s)")
    add(
        "-p",
        "--port",
        type=port_of_another,
        default=PORT,
        help="the port of the Manager (default: %(default)s)",
    )
    add("-u", "--username", help="your username (default: prompt for it)")
    add("-P", "--password", nargs="+", metavar=("PASSWORD", "WORD"), help=f"your password;\n{passwords.HELP}")
    add(
        "-M",
        "--password-manager",
        nargs="+",
        metavar=("PASSWORD", "WORD"),
        help="the password of the Manager, if it has one",
    )
    add("--disable-tls", action="store_true", help="connect without TLS")
    add("-c", "--cert-file", metavar="FILE", help="the certificate of the Manager, in PEM")
    add("--auto-save", action="store_true", help="trust and save an unknown certificate without asking")


@contextmanager
def connected(options: argparse.Namespace, name: str) -> Iterator[Client]:
    """Connect to the Manager that the options of `add_connection` name.

    Args:
        options: The parsed options.
        name: The name of the client, as the Manager shows it.

    Raises:
        AuthenticationError: A password file cannot be used.
        CommandError: The Manager cannot be reached, or refuses the request.
    """
    from msl_network_trio.exceptions import AuthenticationError, NetworkError
    from msl_network_trio.manager.secret import read_secret
    from msl_network_trio.sync import connect

    secrets: dict[str, Any] = {
        name: read_secret(words, f"--{name.replace('_', '-')}", AuthenticationError)
        for name in ("password", "password_manager")
        if (words := getattr(options, name)) is not None
    }
    try:
        with connect(
            name=name,
            host=options.host,
            port=options.port,
            username=options.username,
            disable_tls=options.disable_tls,
            cert_file=options.cert_file,
            auto_save=options.auto_save,
            **secrets,
        ) as client:
            yield client
    except NetworkError as error:
        raise CommandError(_with_options(str(error))) from error


def _with_options(text: str) -> str:
    """Replace the arguments of `connect` in the text of an error by the options of the command."""

    def options(found: re.Match[str]) -> str:
        return "Pass " + re.sub(r"([a-z_]+)=(True)?", lambda each: f"--{each[1].replace('_', '-')}", found[1])

    return re.sub(r"Pass (.+) to connect\(\), or prompts=", options, text)
