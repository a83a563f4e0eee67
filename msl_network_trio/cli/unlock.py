"""The command ``unlock``: release locks on a Service."""

from __future__ import annotations

import argparse
from typing import Final

from msl_network_trio.cli.admin_options import add_connection, connected
from msl_network_trio.cli.parser import Parser

HELP: Final = "Release the locks that Clients hold on a Service"

EPILOG: Final = """\
Examples:
  # all locks on the Service with the name Echo
  %(prog)s Echo

  # the lock of one client
  %(prog)s Echo --holder "Client[pc-7:50314]"

Only an administrator may do this; see the command user. The holders stay connected
and linked, and get no message.
"""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments; see `Command`."""
    parser.add_argument("service", help="the name of the Service")
    parser.add_argument(
        "--holder",
        metavar="CLIENT",
        help="the holder of the lock: name[HOST:port] or HOST:port\n(default: all holders)",
    )
    add_connection(parser)


def execute(options: argparse.Namespace) -> int:
    """Run the command; see `Command`."""
    from msl_network_trio.visible import visible

    with connected(options, "unlock") as client:
        names = client.admin_request("release_locks", options.service, options.holder)
        for name in names:
            print(visible(f"Released the lock of {name} on {options.service}"))
        if not names:
            print(visible(f"There is no lock on {options.service}"))
    return 0
