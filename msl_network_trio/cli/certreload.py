"""The command ``certreload``: have a Manager load its key and certificate again."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from msl_network_trio.cli.admin_options import add_connection, connected
from msl_network_trio.cli.parser import Parser

HELP: Final = "Reload the key and the certificate of a running Manager"

EPILOG: Final = """\
Examples:
  # the Manager on this computer; you are asked for username and password
  %(prog)s

  # another one; the files are those with which it was started
  %(prog)s --host lab-3 --username a.smith --password password.txt

It takes an administrator; see the command user. Connections that are open go on,
new ones get the new certificate. If the files cannot be used, the Manager says
why, and goes on with what it has.
"""


def add_arguments(parser: Parser) -> None:
    """See `Command`."""
    add_connection(parser)


def execute(options: argparse.Namespace) -> int:
    """See `Command`."""
    with connected(options, "certreload") as client:
        loaded = client.admin_request("reload_certificate")
    sys.stdout.write(
        f"The Manager uses the certificate {loaded['certificate']}\n"
        f"  Fingerprint (SHA256): {loaded['fingerprint']}\n"
        f"  Valid until: {loaded['expires']}\n"
    )
    return 0
