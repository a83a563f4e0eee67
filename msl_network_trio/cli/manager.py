"""The command ``manager``: run a Manager."""

from __future__ import annotations

import argparse
from typing import Final

from msl_network_trio.cli.limit_options import add_limits
from msl_network_trio.cli.numbers import count, port, seconds
from msl_network_trio.cli.parser import Parser, add_completer, read_argument
from msl_network_trio.cli.passwords import HELP as PASSWORD_HELP
from msl_network_trio.cli.server_options import add_certificate, add_log_level, add_origins
from msl_network_trio.constants import PORT

HELP: Final = "Run a Manager, until Ctrl-C or SIGTERM"

EPILOG: Final = """\
Examples:
  # run a Manager with the default settings: TLS, all network interfaces
  %(prog)s

  # on port 8326 of one interface
  %(prog)s --host 192.168.1.20 --port 8326

  # require the password "abc 123" from Clients and Services
  %(prog)s --auth-password abc 123

  # read the password from a file, which keeps it out of the shell's history
  %(prog)s --auth-password manager-password.txt

  # require a login (see the command user)
  %(prog)s --auth-login

  # accept trusted hosts only (see the command hostname)
  %(prog)s --auth-hostname

  # also accept WebSocket connections, of web pages and through HTTP proxies
  %(prog)s --websocket-port 8875

  # use another certificate and key
  %(prog)s --cert-file lab-3.crt --key-file lab-3.key

  # listen on this computer only, without TLS, and log all details
  %(prog)s --host localhost --disable-tls --log-level DEBUG

The Manager uses the certificate, the key and the database of msl-network if they
exist, in ~/.msl/network or the folder of the environment variable MSL_NETWORK_HOME.
"""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments; see `Command`."""
    parser.add_argument(
        "-p",
        "--port",
        type=port,
        default=PORT,
        help="the port to listen on (default: %(default)s); 0: any free\nport, which the log shows",
    )
    parser.add_argument(
        "-H",
        "--host",
        help="the host name or address to listen on\n(default: all network interfaces)",
    )
    _add_web_arguments(parser)
    add_certificate(
        parser,
        tls="listen without TLS: the traffic is not encrypted",
        certificate="the certificate, in PEM (default: one that is created at the\nfirst start)",
        key=". With a key and\nno certificate, the default certificate is replaced by one\n"
        "that is created for this key",
    )
    _add_authentication_arguments(parser)
    parser.add_argument(
        "-d",
        "--database",
        metavar="FILE",
        help="the database of users, trusted hosts and connections\n"
        "(default: manager.sqlite3 in the folder ~/.msl/network)",
    )
    _add_log_arguments(parser)
    parser.add_argument(
        "--drain",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="maximum time to wait for open requests at shutdown\n(default: 0)",
    )
    add_limits(parser)


def _add_web_arguments(parser: Parser) -> None:
    parser.add_argument(
        "-w",
        "--websocket-port",
        type=port,
        metavar="PORT",
        help="also listen on this port for WebSocket, and serve a web page\n"
        "(default: do not); 0: any free port",
    )
    add_origins(parser, "websocket_origins")
    parser.add_argument(
        "--trusted-gateway",
        dest="trusted_gateways",
        action="append",
        default=[],
        metavar="HOST",
        help="name or address of a gateway or proxy that may report the\n"
        "addresses of the peers behind it; may be repeated",
    )


def _add_authentication_arguments(parser: Parser) -> None:
    authentication = parser.add_mutually_exclusive_group()
    authentication.add_argument(
        "--auth-hostname",
        action="store_true",
        help="accept trusted hosts only",
    )
    authentication.add_argument(
        "--auth-login",
        action="store_true",
        help="require a login from Clients and Services",
    )
    authentication.add_argument(
        "-P",
        "--auth-password",
        nargs="+",
        metavar=("PASSWORD", "WORD"),
        help=f"require this password from Clients and Services;\n{PASSWORD_HELP}",
    )


def _add_log_arguments(parser: Parser) -> None:
    parser.add_argument(
        "-l",
        "--log-file",
        metavar="FILE",
        help="the file to log to, besides the console (default: a new file\n"
        "named after the time, in the folder ~/.msl/network/logs)",
    )
    add_log_level(parser)
    parser.add_argument(
        "--log-format",
        choices=["text", "json"],
        default="text",
        help="the format of the log (default: %(default)s); json: an object per line",
    )
    rotate = parser.add_argument(
        "--log-rotate",
        type=_rotation,
        metavar="WHEN",
        help="when to start a new log file: at a size such as 10M, or hourly,\n"
        "daily, weekly (default: never)",
    )
    add_completer(rotate, "10M", "hourly", "daily", "weekly")
    parser.add_argument(
        "--log-keep",
        type=count,
        default=100,
        metavar="NUMBER",
        help="maximum number of old log files to keep (default: %(default)s)",
    )


def execute(options: argparse.Namespace) -> int:
    """Run the command; see `Command`."""
    from msl_network_trio.manager.running import filter_run_forever_kwargs, run_forever

    run_forever(**filter_run_forever_kwargs(**vars(options)))
    return 0


def _rotation(text: str) -> str:
    from msl_network_trio.manager.logs import read_rotation

    read_argument(read_rotation, text)
    return text
