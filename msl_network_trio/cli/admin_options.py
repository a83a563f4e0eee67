"""What commands have in common that make a request of a running Manager as an administrator."""

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
    """Declare the options that say of which Manager, and who asks."""
    add = parser.add_argument
    add("-H", "--host", default="localhost", help="the host of the Manager (default: %(default)s)")
    add("-p", "--port", type=port_of_another, default=PORT, help="its port (default: %(default)s)")
    add("-u", "--username", help="who you are (default: you are asked)")
    add("-P", "--password", nargs="+", metavar=("PASSWORD", "WORD"), help=f"your password;\n{passwords.HELP}")
    add(
        "-M",
        "--password-manager",
        nargs="+",
        metavar=("PASSWORD", "WORD"),
        help="the password of the Manager, if it has one",
    )
    add("--disable-tls", action="store_true", help="if the Manager does without TLS")
    add("-c", "--cert-file", metavar="FILE", help="the certificate of the Manager")
    add("--auto-save", action="store_true", help="trust the Manager's certificate at first sight")


@contextmanager
def connected(options: argparse.Namespace, name: str) -> Iterator[Client]:
    """Connect to the Manager of `add_connection`.

    Args:
        options: The options.
        name: The name of the client.

    Raises:
        AuthenticationError: A file with a password cannot be used.
        CommandError: The Manager cannot be reached, or refuses what is requested.
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
    """Name the options of the command where an error names the arguments of `connect`."""

    def options(found: re.Match[str]) -> str:
        return "Pass " + re.sub(r"([a-z_]+)=(True)?", lambda each: f"--{each[1].replace('_', '-')}", found[1])

    return re.sub(r"Pass (.+) to connect\(\), or prompts=", options, text)
