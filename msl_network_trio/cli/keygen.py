"""The command ``keygen``: create a private key."""

from __future__ import annotations

import argparse
from typing import Final

from msl_network_trio.cli import passwords
from msl_network_trio.cli.parser import Parser, add_completer

HELP: Final = "Create a private key for a certificate"

EPILOG: Final = """\
Examples:
  # the default key of a Manager on this computer: RSA, 2048 bits, not encrypted
  %(prog)s

  # a larger key, in another file
  %(prog)s rsa --size 4096 --out lab-3.key

  # an encrypted key of an elliptic curve; prompts for the password
  %(prog)s ecc --curve SECP256R1 --out lab-3.key --password

An existing file is replaced. Only you can read the new one. Then run the command
certgen; clients must trust the new certificate.
"""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments; see `Command`."""
    parser.add_argument(
        "algorithm",
        nargs="?",
        default="rsa",
        choices=["rsa", "dsa", "ecc"],
        help="the type of key (default: %(default)s); TLS 1.3 does not support\ndsa",
    )
    curve = parser.add_argument(
        "-c",
        "--curve",
        default="SECP384R1",
        help="the elliptic curve of an ecc key (default: %(default)s)",
    )
    add_completer(curve, "SECP256R1", "SECP384R1", "SECP521R1")
    parser.add_argument(
        "-p",
        "--password",
        nargs="*",
        metavar="WORD",
        help=f"encrypt the key with this password;\n{passwords.HELP}.\nWithout a word, prompt for it",
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
        help="the size of an rsa or dsa key, in bits (default: %(default)s)",
    )
    add_completer(size, "2048", "3072", "4096")


def execute(options: argparse.Namespace) -> int:
    """Run the command; see `Command`."""
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
