"""The command ``keygen``: make a private key."""

from __future__ import annotations

import argparse
from typing import Final

from msl_network_trio.cli import passwords
from msl_network_trio.cli.parser import Parser, add_completer

HELP: Final = "Make a private key, for a certificate"

EPILOG: Final = """\
Examples:
  # the key of the Manager on this computer: RSA, 2048 bits, not encrypted
  %(prog)s

  # a larger one, in a file of your own
  %(prog)s rsa --size 4096 --out lab-3.key

  # one of an elliptic curve, encrypted; you are asked for the password
  %(prog)s ecc --curve SECP256R1 --out lab-3.key --password

If there is such a file, it is replaced. Nobody but you can read it. The next
step is the command certgen; clients have to trust the new certificate.
"""


def add_arguments(parser: Parser) -> None:
    """See `Command`."""
    parser.add_argument(
        "algorithm",
        nargs="?",
        default="rsa",
        choices=["rsa", "dsa", "ecc"],
        help="the kind of key (default: %(default)s); TLS of today does not\ntake dsa any more",
    )
    curve = parser.add_argument(
        "-c",
        "--curve",
        default="SECP384R1",
        help="the elliptic curve, for ecc only (default: %(default)s)",
    )
    add_completer(curve, "SECP256R1", "SECP384R1", "SECP521R1")
    parser.add_argument(
        "-p",
        "--password",
        nargs="*",
        metavar="WORD",
        help=f"encrypt the key with this password;\n{passwords.HELP}.\nWithout a word you are asked",
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        help="the file to write (default: localhost.key in the folder\n~/.msl/network/keys)",
    )
    size = parser.add_argument(
        "-s",
        "--size",
        type=_size,
        default=2048,
        help="how many bits, for rsa and dsa (default: %(default)s)",
    )
    add_completer(size, "2048", "3072", "4096")


def execute(options: argparse.Namespace) -> int:
    """See `Command`."""
    password = None
    if options.password is not None:
        password = passwords.password_of(options.password, "The password of the private key")
    from msl_network_trio.manager.generating import generate_key

    path = generate_key(
        options.out, algorithm=options.algorithm, password=password, size=options.size, curve=options.curve
    )
    print(f"Created the private {options.algorithm.upper()} key {path}")
    return 0


def _size(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bits")
    return int(text)
