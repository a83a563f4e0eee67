"""The command ``disconnect``: close the connection of a peer."""

from __future__ import annotations

import argparse
from typing import Final

from msl_network_trio.cli.admin_options import add_connection, connected
from msl_network_trio.cli.parser import Parser

HELP: Final = "Close the connection of a Client or Service with a Manager"

EPILOG: Final = """\
Examples:
  # the connection of the Service with the name Echo
  %(prog)s Echo

  # the connection of a client, by the name that the Manager shows
  %(prog)s --host lab-3 --username a.smith "Client[pc-7:50314]"

Only an administrator may do this; see the command user. Requests that the peer has
not answered fail, its locks are released, and its name is free. It may reconnect.
"""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments; see `Command`."""
    parser.add_argument(
        "peer", help="the name of a Service, or the name[HOST:port] or\nHOST:port of a Client or Service"
    )
    add_connection(parser)


def execute(options: argparse.Namespace) -> int:
    """Run the command; see `Command`."""
    from msl_network_trio.visible import visible

    with connected(options, "disconnect") as client:
        for name in client.admin_request("disconnect_peer", options.peer):
            print(visible(f"Disconnected {name}"))
    return 0
