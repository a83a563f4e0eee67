"""The command ``certgen``: create a self-signed certificate."""

from __future__ import annotations

import argparse
import math
import sys
from typing import Final

from msl_network_trio.cli.parser import Parser, add_completer
from msl_network_trio.cli.passwords import HELP as PASSWORD_HELP

HELP: Final = "Create a self-signed certificate for this computer"

EPILOG: Final = """\
Examples:
  # the default certificate of a Manager on this computer
  %(prog)s

  # one for your own key, valid for three months; print its contents
  %(prog)s lab-3.crt --key-file lab-3.key --years-valid 0.25 --show

The certificate is valid for all names and addresses of this computer. An existing
file is replaced, and clients must then trust the new certificate. The private key
is created by the command keygen; the default key is created here if it is missing.
"""

_YEARS = 100 if sys.maxsize > 2**32 else 15


def add_arguments(parser: Parser) -> None:
    """Declare the arguments; see `Command`."""
    parser.add_argument(
        "out",
        nargs="?",
        metavar="FILE",
        help="the file to write (default: localhost.crt in the folder\n~/.msl/network/certs)",
    )
    algorithm = parser.add_argument(
        "-a",
        "--algorithm",
        default="SHA256",
        help="the hash to sign with (default: %(default)s)",
    )
    add_completer(algorithm, "SHA256", "SHA384", "SHA512")
    parser.add_argument(
        "-k",
        "--key-file",
        metavar="FILE",
        help="the private key, in PEM (default: localhost.key in the folder\n"
        "~/.msl/network/keys, which is created if it is missing)",
    )
    parser.add_argument(
        "-p",
        "--key-file-password",
        nargs="+",
        metavar=("PASSWORD", "WORD"),
        help=f"the password of the private key, if it has one;\n{PASSWORD_HELP}",
    )
    parser.add_argument(
        "-y",
        "--years-valid",
        type=_years,
        default=_YEARS,
        metavar="YEARS",
        help="years for which it is valid; 0.25 is three months\n(default: %(default)s)",
    )
    parser.add_argument("--show", action="store_true", help="print the contents of the new certificate")


def execute(options: argparse.Namespace) -> int:
    """Run the command; see `Command`."""
    from msl_network_trio.exceptions import CertificateError
    from msl_network_trio.manager.certificate_text import describe
    from msl_network_trio.manager.generating import generate_certificate
    from msl_network_trio.manager.secret import read_secret

    password = None
    if options.key_file_password is not None:
        password = read_secret(options.key_file_password, "The password of the private key", CertificateError)
    path = generate_certificate(
        options.out,
        key_file=options.key_file,
        key_file_password=password,
        algorithm=options.algorithm,
        years=options.years_valid,
    )
    print(f"Created the self-signed certificate {path}")
    if options.show:
        print(f"\n{describe(path.read_bytes())}")
    return 0


def _years(text: str) -> float:
    try:
        years = float(text)
    except ValueError:
        years = math.nan
    if not 0 < years < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of years")
    return years
