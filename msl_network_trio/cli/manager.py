"""The command ``manager``: run a Manager."""

from __future__ import annotations

import argparse
from typing import Final

from msl_network_trio.cli.limit_options import add_limits
from msl_network_trio.cli.numbers import count, port, seconds
from msl_network_trio.cli.parser import Parser, add_completer, read_argument
from msl_network_trio.cli.server_options import add_certificate, add_log_level, add_origins
from msl_network_trio.constants import PORT

HELP: Final = "Run a Manager, until Ctrl-C or SIGTERM ends it"

EPILOG: Final = """\
Examples:
  # run a Manager with the default settings: TLS, all network interfaces
  %(prog)s

  # on port 8326 of one interface
  %(prog)s --host 192.168.1.20 --port 8326

  # Clients and Services have to know the password "abc 123"
  %(prog)s --auth-password abc 123

  # or the one in the first line of a file, which keeps it out of the history
  %(prog)s --auth-password manager-password.txt

  # everybody has to log in as a user (see the command user)
  %(prog)s --auth-login

  # only hosts that are trusted may connect (see the command hostname)
  %(prog)s --auth-hostname

  # also for web pages, and for who is behind a proxy that lets only HTTP pass
  %(prog)s --websocket-port 8875

  # with a certificate and a key of your own
  %(prog)s --cert-file lab-3.crt --key-file lab-3.key

  # on this computer only, without TLS, and with all details in the log
  %(prog)s --host localhost --disable-tls --log-level DEBUG

It uses the certificate, the key and the database of msl-network, if there are any:
~/.msl/network, or what the environment variable MSL_NETWORK_HOME says.
"""


def add_arguments(parser: Parser) -> None:
    """See `Command`."""
    parser.add_argument(
        "-p",
        "--port",
        type=port,
        default=PORT,
        help="the port to listen on (default: %(default)s);\n0: any that is free, which the log then tells",
    )
    parser.add_argument(
        "-H",
        "--host",
        help="the host name or address to listen on\n(default: all network interfaces)",
    )
    _add_web_arguments(parser)
    add_certificate(
        parser,
        tls="do without TLS: everything can be read on the way",
        certificate="the certificate, in PEM (default: one that is made at the\nfirst start)",
        key=". With a key and\nno certificate, the default certificate is replaced by one\n"
        "that is made for this key",
    )
    _add_authentication_arguments(parser)
    parser.add_argument(
        "-d",
        "--database",
        metavar="FILE",
        help="the database with the users, the trusted hosts, and who has\n"
        "connected (default: manager.sqlite3 in the folder\n~/.msl/network)",
    )
    _add_log_arguments(parser)
    parser.add_argument(
        "--drain",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="how long to wait at the end, at the most, until open requests\n"
        "have been answered (default: do not wait)",
    )
    add_limits(parser)


def _add_web_arguments(parser: Parser) -> None:
    parser.add_argument(
        "-w",
        "--websocket-port",
        type=port,
        metavar="PORT",
        help="also listen on this port for WebSocket, and show a page to\n"
        "browsers (default: do not); 0: any that is free",
    )
    add_origins(parser, "websocket_origins")
    parser.add_argument(
        "--trusted-gateway",
        dest="trusted_gateways",
        action="append",
        default=[],
        metavar="HOST",
        help="a host, by name or address, whose word counts for the address\n"
        "of who is behind it: a gateway, or a proxy; may be repeated",
    )


def _add_authentication_arguments(parser: Parser) -> None:
    authentication = parser.add_mutually_exclusive_group()
    authentication.add_argument(
        "--auth-hostname",
        action="store_true",
        help="only hosts that are trusted may connect",
    )
    authentication.add_argument(
        "--auth-login",
        action="store_true",
        help="Clients and Services have to log in as a user",
    )
    authentication.add_argument(
        "-P",
        "--auth-password",
        nargs="+",
        metavar=("PASSWORD", "WORD"),
        help="the password that Clients and Services have to know; it may\n"
        "have spaces. If it is the path of a file, the first line of\n"
        "the file is the password; if there is no such file, the path\n"
        "itself is",
    )


def _add_log_arguments(parser: Parser) -> None:
    parser.add_argument(
        "-l",
        "--log-file",
        metavar="FILE",
        help="the file to log to, besides the console (default: a new one\n"
        "named after the time, in the folder ~/.msl/network/logs)",
    )
    add_log_level(parser)
    parser.add_argument(
        "--log-format",
        choices=["text", "json"],
        default="text",
        help="how to write the log (default: %(default)s); json: one object a line",
    )
    rotate = parser.add_argument(
        "--log-rotate",
        type=_rotation,
        metavar="WHEN",
        help="when to begin the log file anew: from a size on, such as 10M,\n"
        "or hourly, daily, weekly (default: never)",
    )
    add_completer(rotate, "10M", "hourly", "daily", "weekly")
    parser.add_argument(
        "--log-keep",
        type=count,
        default=100,
        metavar="NUMBER",
        help="how many old log files to keep then (default: %(default)s)",
    )


def execute(options: argparse.Namespace) -> int:
    """See `Command`."""
    from msl_network_trio.manager.running import filter_run_forever_kwargs, run_forever

    run_forever(**filter_run_forever_kwargs(**vars(options)))
    return 0


def _rotation(text: str) -> str:
    from msl_network_trio.manager.logs import read_rotation

    read_argument(read_rotation, text)
    return text
