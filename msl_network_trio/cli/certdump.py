"""The command ``certdump``: show the contents of a certificate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from msl_network_trio.atomic_files import PUBLIC, replace
from msl_network_trio.cli.parser import CommandError, Parser

HELP: Final = "Show the contents of a certificate"

EPILOG: Final = """\
Examples:
  # print them
  %(prog)s lab-3.crt

  # write them to a file
  %(prog)s lab-3.crt --out lab-3.txt
"""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments; see `Command`."""
    parser.add_argument("certfile", metavar="FILE", help="the certificate, in PEM")
    parser.add_argument("-o", "--out", metavar="FILE", help="the file to write to (default: the terminal)")


def execute(options: argparse.Namespace) -> int:
    """Run the command; see `Command`."""
    from msl_network_trio.manager.certificate_text import NotACertificate, describe

    try:
        text = describe(Path(options.certfile).read_bytes())
    except NotACertificate as error:
        raise CommandError(f"{options.certfile}: {error}") from error
    if options.out is None:
        print(text)
        return 0
    out = Path(options.out)
    replace(out, f"Certificate details for {options.certfile}\n{text}\n".encode(), mode=PUBLIC)
    print(f"Dumped the certificate details to {out}")
    return 0
