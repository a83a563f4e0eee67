"""The command ``gateway``: run a WebSocket gateway in front of a Manager."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Final

from msl_network_trio.cli.numbers import byte_count, or_none
from msl_network_trio.cli.parser import Parser, read_argument
from msl_network_trio.cli.server_options import add_certificate, add_log_level, add_origins
from msl_network_trio.constants import PORT, WEBSOCKET_PORT

HELP: Final = "Run a WebSocket gateway in front of a Manager, until Ctrl-C or SIGTERM"

EPILOG: Final = """\
Examples:
  # in front of the Manager on this computer
  %(prog)s

  # in front of another Manager, on port 443
  %(prog)s --manager lab-3:1875 --listen :443

  # behind a proxy on this computer that terminates TLS
  %(prog)s --manager lab-3:1875 --listen localhost:8875 --disable-tls

To the Manager, all peers behind the gateway have the address of the gateway. A
Manager with --auth-hostname that trusts this address trusts all of them. A Manager
with --trusted-gateway logs the peers' own addresses, and counts failed logins by
them.
"""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments; see `Command`."""
    parser.add_argument(
        "-m",
        "--manager",
        default=f"localhost:{PORT}",
        metavar="HOST:PORT",
        type=_address,
        help="the address of the Manager (default: %(default)s)",
    )
    parser.add_argument(
        "-L",
        "--listen",
        default=f":{WEBSOCKET_PORT}",
        metavar="[HOST]:PORT",
        type=_address,
        help="the address to listen on; without a host, all network\ninterfaces (default: %(default)s)",
    )
    add_origins(parser, "origins")
    add_certificate(
        parser,
        tls="listen without TLS: ws:// instead of wss://",
        certificate="the certificate of the gateway, in PEM (default: that of a\nManager on this computer)",
        key="",
    )
    _add_manager_tls_arguments(parser)
    parser.add_argument(
        "--trusted-proxy",
        dest="trusted_proxies",
        action="append",
        default=[],
        metavar="HOST",
        help="name or address of a proxy whose X-Forwarded-For header is\ntrusted; may be repeated",
    )
    parser.add_argument(
        "--read-limit",
        type=or_none(byte_count),
        default=256 * 1024 * 1024,
        metavar="BYTES",
        help="the maximum size of a message (default: 256M), or none",
    )
    add_log_level(parser)


def _add_manager_tls_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--manager-disable-tls", action="store_true", help="connect without TLS to the Manager"
    )
    parser.add_argument(
        "--manager-cert-file",
        metavar="FILE",
        help="the Manager's certificate, or that of the CA that signed it\n"
        "(default: the one saved for its host, else prompt)",
    )
    parser.add_argument(
        "--manager-auto-save",
        action="store_true",
        help="trust and save an unknown certificate of the Manager without\nasking",
    )
    parser.add_argument(
        "--manager-disable-hostname-check",
        dest="manager_assert_hostname",
        action="store_false",
        help="accept a Manager's certificate that names another host",
    )


def execute(options: argparse.Namespace) -> int:
    """Run the command; see `Command`."""
    from msl_network_trio.gateway.running import run_forever
    from msl_network_trio.gateway.settings import split_address

    kwargs = vars(options)
    del kwargs["command"]
    host, kwargs["port"] = split_address(kwargs.pop("listen"), WEBSOCKET_PORT)
    kwargs["host"] = host or None
    run_forever(**kwargs)
    return 0


def _address(text: str) -> str:
    from msl_network_trio.gateway.settings import split_address

    read_argument(partial(split_address, default_port=0), text)
    return text
