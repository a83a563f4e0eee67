"""The command ``gateway``: run a gateway."""

from __future__ import annotations

import argparse
from typing import Final

from msl_network_trio.cli.parser import Parser, add_completer
from msl_network_trio.constants import PORT, WEBSOCKET_PORT

HELP: Final = "Put WebSocket in front of a Manager that has none, until Ctrl-C or SIGTERM"

EPILOG: Final = """\
Examples:
  # in front of the Manager on this computer
  %(prog)s

  # in front of another one, on port 443
  %(prog)s --manager lab-3:1875 --listen :443

  # behind a proxy on this computer that has the TLS
  %(prog)s --manager lab-3:1875 --listen localhost:8875 --disable-tls

To the Manager, everybody who comes through the gateway is the computer of the
gateway: do not let a Manager with --auth-hostname trust it, unless everybody who
reaches the gateway may do everything.
"""


def add_arguments(parser: Parser) -> None:
    """See `Command`."""
    parser.add_argument(
        "-m",
        "--manager",
        default=f"localhost:{PORT}",
        metavar="HOST:PORT",
        type=_address,
        help="the Manager (default: %(default)s)",
    )
    parser.add_argument(
        "-L",
        "--listen",
        default=f":{WEBSOCKET_PORT}",
        metavar="[HOST]:PORT",
        type=_address,
        help="where to listen; without a host at all network interfaces\n(default: %(default)s)",
    )
    parser.add_argument(
        "--websocket-origin",
        dest="origins",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="an origin, like https://lab.example, whose pages may connect,\n"
        "besides our own one; may be repeated; *: all",
    )
    _add_own_tls_arguments(parser)
    _add_manager_tls_arguments(parser)
    parser.add_argument(
        "--read-limit",
        type=int,
        default=256 * 1024 * 1024,
        metavar="BYTES",
        help="the largest message to accept (default: %(default)s)",
    )
    level = parser.add_argument(
        "-G",
        "--log-level",
        type=str.upper,
        default="INFO",
        metavar="LEVEL",
        choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        help="what is less important is not logged (default: %(default)s)",
    )
    add_completer(level, "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _add_own_tls_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--disable-tls", action="store_true", help="do without TLS on this side: ws:// instead of wss://"
    )
    parser.add_argument(
        "-c",
        "--cert-file",
        metavar="FILE",
        help="the certificate of this side, in PEM (default: that of a\nManager on this computer)",
    )
    parser.add_argument("-k", "--key-file", metavar="FILE", help="the private key of the certificate, in PEM")
    parser.add_argument(
        "-D",
        "--key-file-password",
        nargs="+",
        metavar=("PASSWORD", "WORD"),
        help="the password of the private key, or the path of a file that\nholds it",
    )


def _add_manager_tls_arguments(parser: Parser) -> None:
    parser.add_argument("--manager-disable-tls", action="store_true", help="the Manager does without TLS")
    parser.add_argument(
        "--manager-cert-file",
        metavar="FILE",
        help="the Manager's certificate, or that of the CA that signed it\n"
        "(default: the one that was saved for its host; if there is\n"
        "none, you are asked)",
    )
    parser.add_argument(
        "--manager-auto-save",
        action="store_true",
        help="trust, and save, a certificate of the Manager that is new,\nwithout asking",
    )
    parser.add_argument(
        "--manager-disable-hostname-check",
        dest="manager_assert_hostname",
        action="store_false",
        help="the Manager's certificate may be for another host",
    )


def execute(options: argparse.Namespace) -> int:
    """See `Command`."""
    from msl_network_trio.gateway.running import run_forever
    from msl_network_trio.gateway.server import split_address

    kwargs = vars(options)
    del kwargs["command"]
    host, kwargs["port"] = split_address(kwargs.pop("listen"), WEBSOCKET_PORT)
    kwargs["host"] = host or None
    run_forever(**kwargs)
    return 0


def _address(text: str) -> str:
    from msl_network_trio.gateway.server import split_address

    try:
        split_address(text, 0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
