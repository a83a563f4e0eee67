"""The command ``gateway``: run a gateway."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Final

from msl_network_trio.cli.numbers import byte_count, or_none
from msl_network_trio.cli.parser import Parser, read_argument
from msl_network_trio.cli.server_options import add_certificate, add_log_level, add_origins
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
reaches the gateway may do everything. The addresses of visitors, for its log and
its limits on logins, it takes only with --trusted-gateway.
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
    add_origins(parser, "origins")
    add_certificate(
        parser,
        tls="do without TLS on this side: ws:// instead of wss://",
        certificate="the certificate of this side, in PEM (default: that of a\nManager on this computer)",
        key="",
    )
    _add_manager_tls_arguments(parser)
    parser.add_argument(
        "--trusted-proxy",
        dest="trusted_proxies",
        action="append",
        default=[],
        metavar="HOST",
        help="a proxy in front of the gateway, by name or address, whose\n"
        "X-Forwarded-For counts; may be repeated",
    )
    parser.add_argument(
        "--read-limit",
        type=or_none(byte_count),
        default=256 * 1024 * 1024,
        metavar="BYTES",
        help="the largest message to accept (default: 256M), or none",
    )
    add_log_level(parser)


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
