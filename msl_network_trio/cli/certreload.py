"""The command ``certreload``: reload the key and the certificate of a running Manager."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from msl_network_trio.cli.admin_options import add_connection, connected
from msl_network_trio.cli.parser import Parser

HELP: Final = "Reload the key and the certificate of a running Manager"

EPILOG: Final = """\
Examples:
  # the Manager on this computer; prompts for username and password
  %(prog)s

  # another Manager; it reloads the files with which it was started
  %(prog)s --host lab-3 --username a.smith --password password.txt

Only an administrator may do this; see the command user. Open connections are not
affected, new ones get the new certificate. If the files cannot be used, the error
states the reason, and the Manager keeps its certificate.
"""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments; see `Command`."""
    add_connection(parser)


def execute(options: argparse.Namespace) -> int:
    """Run the command; see `Command`."""
    with connected(options, "certreload") as client:
        loaded = client.admin_request("reload_certificate")
    sys.stdout.write(
        f"The Manager uses the certificate {loaded['certificate']}\n"
        f"  Fingerprint (SHA256): {loaded['fingerprint']}\n"
        f"  Valid until: {loaded['expires']}\n"
    )
    return 0
